"""How long a picture takes: an overlay with its strip as PNG, step by step, beside a matplotlib figure.

    python tests/benchmarks/rendering.py [--images FOLDER]

Prints medians in milliseconds on one thread, by the clock and of the processor (which counts on a busy machine), for
squares of 224 and 1,024 pixels and 12 megapixels. Without a folder the images are made: smooth colours with noise,
which pack worse than most photographs.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

from evalcam_cli.data.preprocessing import Geometry, Preprocessing
from evalcam_cli.report.colours import Scale, paint
from evalcam_cli.report.enlarging import Floats, enlarge
from evalcam_cli.report.overlay import draw_overlay
from evalcam_cli.report.panel import Cell, Row, draw_panel
from evalcam_cli.report.png import png_bytes

SIZES = (((224, 224), 41), ((1024, 1024), 9), ((4000, 3000), 1))
CAPTION = ["black and gold garden spider  p = 0.912", "Grad-CAM, layer4"]


def make_image(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = smooth + generator.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def load_image(folder: Path, width: int, height: int) -> Image.Image:
    """The first image of the folder at this size."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
            with Image.open(path) as image:
                return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    raise SystemExit(f"no image in {folder}")


def figure(image: Image.Image, heat: Floats) -> bytes:
    """What a notebook does: the image, the heat and a colour bar as a matplotlib figure of about the same size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(image.width / 100, image.height / 100 + 0.5), dpi=100)
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    axes.imshow(np.asarray(image))
    drawing.colorbar(axes.imshow(heat, cmap="inferno", alpha=0.5), ax=axes, location="bottom")
    axes.set_title("\n".join(CAPTION), fontsize=8)
    axes.set_axis_off()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    return buffer.getvalue()


def pillow_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def medians(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Milliseconds by the clock and of the processor, after one try."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, processor = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    return clock, processor


def steps(image: Image.Image, geometry: Geometry) -> dict[str, Callable[[], object]]:
    generator = np.random.default_rng(1)
    coarse = generator.standard_normal((7, 7)).astype(np.float32)
    fine = generator.standard_normal((224, 224)).astype(np.float32)
    heat, _ = enlarge(coarse, geometry)
    drawn = draw_overlay(image, coarse, geometry, caption_lines=CAPTION)
    cells = [Cell(f"method {place}", coarse, Scale()) for place in range(14)]
    return {
        "enlarge a 7 x 7 map": lambda: enlarge(coarse, geometry),
        "enlarge a 224 x 224 map": lambda: enlarge(fine, geometry),
        "enlarge and colour": lambda: paint(image, coarse, geometry, Scale()),
        "the same with the strip": lambda: draw_overlay(image, coarse, geometry, caption_lines=CAPTION),
        "png_bytes": lambda: png_bytes(drawn),
        "Pillow's PNG, level 1": lambda: pillow_png(drawn),
        "overlay to PNG, altogether": lambda: png_bytes(draw_overlay(image, coarse, geometry, caption_lines=CAPTION)),
        "matplotlib figure to PNG": lambda: figure(image, heat),
        "panel of 14 methods to PNG": lambda: png_bytes(draw_panel(image, [Row("cat", "cat", cells)], geometry)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path)
    folder = parser.parse_args().images
    for (width, height), repeats in SIZES:
        image = make_image(width, height) if folder is None else load_image(folder, width, height)
        geometry = Preprocessing(224, "pad").geometry(width, height)
        print(f"{f'{width} x {height}':30} {'clock':>9} {'processor':>9}  ms")
        for name, work in steps(image, geometry).items():
            clock, processor = medians(work, repeats)
            print(f"  {name:28} {clock:9.2f} {processor:9.2f}")
        drawn = draw_overlay(image, np.eye(7, dtype=np.float32), geometry, caption_lines=CAPTION)
        print(f"  {'bytes against Pillow':28} {len(png_bytes(drawn)) / len(pillow_png(drawn)):8.2f}")


if __name__ == "__main__":
    main()
