"""Draw pictures whose class is the shape of one object on a cluttered background, with exact boxes around the objects.

Everything but the shape - colours, size, rotation, place, background - is drawn from the same distributions for every
class, so a classifier can only be right by looking at the object, and a heatmap can be checked against its box.
"""

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float64]

# Each shape is a star: (points, inner radius), the outer radius being 1. With the inner radius cos(pi / points) the
# notches vanish and the star is a regular polygon; with 64 points that is a circle to a twentieth of a pixel.
SHAPES = {
    "circle": (64, math.cos(math.pi / 64)),
    "square": (4, math.cos(math.pi / 4)),
    "star": (5, 0.42),
    "triangle": (3, math.cos(math.pi / 3)),
}
ORDERED_PAIRS = tuple(permutations(SHAPES, 2))
SIDES = (120, 320)  # smallest and largest width or height, in pixels
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: brightness of red, green, blue to the eye
LEAST_CONTRAST = 90.0  # how much brighter (luma, 0 to 255) an object is than the background in its box
OVERSAMPLING = 4
ATTEMPTS = 1000
JPEG_QUALITY = 80


class Area(NamedTuple):
    """Range of an object's bounding box, as fractions of the image's area."""

    smallest: float
    largest: float


class Region(NamedTuple):
    """Part of an image in pixels; x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


class Box(NamedTuple):
    """All pixels that an object touches, in pixels of the upright image; x1 and y1 are exclusive."""

    label: str
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Scene:
    """A picture, (H, W, 3) uint8 RGB, and one box per object."""

    pixels: NDArray[np.uint8]
    boxes: tuple[Box, ...]


# The object


def outline_radius(label: str, angles: Floats) -> Floats:
    """Distance from the centre to the outline in each direction (radians); 1 at the outermost points."""
    points, inner = SHAPES[label]
    half_step = math.pi / points
    folded = np.abs((angles + half_step) % (2 * half_step) - half_step)  # 0 at a point, half_step at a notch
    # In polar coordinates, the straight line from radius 1 at angle 0 to radius `inner` at angle `half_step`.
    line: Floats = inner * math.sin(half_step) / (inner * np.sin(half_step - folded) + np.sin(folded))
    return line


def box_area_of_unit_shape(label: str, rotation: float) -> float:
    points, _ = SHAPES[label]
    angles = np.linspace(0, 2 * math.pi, 2 * points, endpoint=False)  # points and notches by turns
    radius = outline_radius(label, angles)
    return float(np.ptp(radius * np.cos(angles + rotation)) * np.ptp(radius * np.sin(angles + rotation)))


def draw_coverage(label: str, *, radius: float, rotation: float, offset: tuple[float, float] = (0, 0)) -> Floats:
    """Fraction of each pixel that the shape covers, cut to the pixels that it touches.

    The centre lies `offset` (x, y) pixels from a corner between four pixels.
    """
    half = math.ceil(radius) + 1
    ticks = (np.arange(2 * half * OVERSAMPLING) + 0.5) / OVERSAMPLING - half
    x, y = ticks[None, :] - offset[0], ticks[:, None] - offset[1]
    inside = np.hypot(x, y) <= radius * outline_radius(label, np.arctan2(y, x) - rotation)
    coverage: Floats = inside.reshape(2 * half, OVERSAMPLING, 2 * half, OVERSAMPLING).mean(axis=(1, 3))
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_object(rng: np.random.Generator, label: str, image_area: int, area: Area) -> Floats:
    """Coverage of an object of random size and rotation whose box covers a fraction within `area` of the image."""
    for _ in range(ATTEMPTS):
        rotation = rng.uniform(0, 2 * math.pi)
        box_area = rng.uniform(*area) * image_area
        radius = math.sqrt(box_area / box_area_of_unit_shape(label, rotation))
        coverage = draw_coverage(label, radius=radius, rotation=rotation, offset=(rng.uniform(), rng.uniform()))
        # Whole pixels make the box a little larger than asked for.
        if area.smallest <= coverage.size / image_area <= area.largest:
            return coverage
    raise ValueError(f"no {label} with a box of {area.smallest:g} to {area.largest:g} of {image_area} pixels")


def choose_colour(rng: np.random.Generator, background: Floats) -> Floats:
    """A random colour that is clearly brighter than the background, an (h, w, 3) cut-out.

    Always brighter: a few hundred pictures are too few to learn a shape both light on dark and dark on light.
    """
    luma = float((background @ LUMA).mean())
    for _ in range(ATTEMPTS):
        colour = rng.uniform(30, 250, size=3)
        if float(colour @ LUMA) - luma >= LEAST_CONTRAST:
            return colour
    raise ValueError(f"no colour is {LEAST_CONTRAST:g} brighter than a background of luma {luma:.0f}")


def choose_shift(rng: np.random.Generator, room: int) -> int:
    """A whole number from 0 to `room`, by the arcsine law, which favours the ends.

    An object that must lie inside covers the middle of the image far more often than a corner if all its places are
    equally likely: three images in ten have it there, and guessing the middle looks like knowing. By this law the
    middle is covered about as often as the object's share of the area.
    """
    return round(room * math.sin(rng.uniform(0, math.pi / 2)) ** 2)


def add_object(rng: np.random.Generator, image: Floats, label: str, region: Region, area: Area) -> Box:
    """Paint an object into `image`, somewhere in `region`, and return its box."""
    coverage = draw_object(rng, label, image.shape[0] * image.shape[1], area)
    height, width = coverage.shape
    x0 = region.x0 + choose_shift(rng, region.x1 - region.x0 - width)
    y0 = region.y0 + choose_shift(rng, region.y1 - region.y0 - height)
    window = image[y0 : y0 + height, x0 : x0 + width]
    paint = choose_colour(rng, window) + 14 * smooth_noise(rng, height, width, cells=2)[..., None]
    window += coverage[..., None] * (paint - window)
    return Box(label, x0, y0, x0 + width, y0 + height)


# The background: nothing in it is round, has straight sides that close, or has a sharp outline and a plain inside.


def smooth_noise(rng: np.random.Generator, height: int, width: int, *, cells: int) -> Floats:
    """(height, width) values, mostly within -1 and 1, that vary over about a `cells`-th of the picture."""
    grid = rng.uniform(-1, 1, size=(cells + 1, cells + 1)).astype(np.float32)
    smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64)


def lay_ground(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A gradient between two rather dark colours, with a coarse and a fine texture."""
    one, other = rng.uniform(25, 120, size=(2, 3))
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-0.5, 0.5, width)[None, :], np.linspace(-0.5, 0.5, height)[:, None]
    mix = np.clip(0.5 + math.cos(angle) * x + math.sin(angle) * y, 0, 1)[..., None]
    texture = 14 * smooth_noise(rng, height, width, cells=int(rng.integers(3, 7)))
    texture += rng.uniform(4, 9) * smooth_noise(rng, height, width, cells=int(rng.integers(16, 36)))
    ground: Floats = one + mix * (other - one) + texture[..., None]
    return ground


def blend(image: Floats, colour: Floats, opacity: Floats) -> None:
    """Paint `colour` over `image`; `opacity` is (H, W) within 0 and 1."""
    image += opacity[..., None] * (colour - image)


def near_colour(rng: np.random.Generator, image: Floats, spread: float) -> Floats:
    """A colour within `spread` of the image's mean, so that clutter is seen but does not outshine the object."""
    colour: Floats = np.clip(image.mean(axis=(0, 1)) + rng.uniform(-spread, spread, size=3), 0, 255)
    return colour


def add_patch(rng: np.random.Generator, image: Floats) -> None:
    """An irregular region with a soft edge: where smooth noise exceeds a level."""
    noise = smooth_noise(rng, *image.shape[:2], cells=int(rng.integers(3, 8)))
    level, softness = rng.uniform(0.25, 0.6), rng.uniform(0.05, 0.2)
    blend(image, near_colour(rng, image, 40), 0.8 / (1 + np.exp(-(noise - level) / softness)))


def add_blob(rng: np.random.Generator, image: Floats) -> None:
    """A long spot that fades out (a Gaussian), too stretched and too soft for a circle."""
    height, width = image.shape[:2]
    centre_x, centre_y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, math.pi)
    long = rng.uniform(0.08, 0.2) * max(height, width)
    short = long / rng.uniform(2, 4)
    x, y = np.arange(width)[None, :] - centre_x, np.arange(height)[:, None] - centre_y
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    blend(image, near_colour(rng, image, 50), 0.8 * np.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2)))


def bend(start: Floats, middle: Floats, end: Floats) -> list[tuple[float, float]]:
    """Points of the quadratic Bezier curve with these three controls."""
    return [
        (float(x), float(y))
        for t in np.linspace(0, 1, 24)
        for x, y in [(1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end]
    ]


def add_stroke(rng: np.random.Generator, image: Floats) -> None:
    """A thin line, straight or slightly curved."""
    height, width = image.shape[:2]
    start = rng.uniform((0, 0), (width, height))
    length, angle = rng.uniform(0.1, 0.45) * max(height, width), rng.uniform(0, 2 * math.pi)
    way = length * np.array([math.cos(angle), math.sin(angle)])
    sideways = np.array([-way[1], way[0]]) * rng.choice([0, rng.uniform(-0.6, 0.6)])
    points = bend(start, start + way / 2 + sideways, start + way)
    canvas = Image.new("L", (2 * width, 2 * height))  # twice as large, then reduced: soft edges
    line_width = int(rng.integers(2, 7))
    ImageDraw.Draw(canvas).line([(2 * x, 2 * y) for x, y in points], fill=255, width=line_width, joint="curve")
    soft = canvas.reduce(2).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.2))))
    blend(image, near_colour(rng, image, 70), np.asarray(soft, dtype=np.float64) / 255)


def draw_background(rng: np.random.Generator, height: int, width: int) -> Floats:
    """(height, width, 3) RGB within 0 and 255."""
    image = lay_ground(rng, height, width)
    for add, fewest, most in ((add_patch, 1, 3), (add_blob, 2, 6), (add_stroke, 4, 10)):
        for _ in range(int(rng.integers(fewest, most + 1))):
            add(rng, image)
    return np.clip(image, 0, 255)


# Scenes


def compose(
    rng: np.random.Generator, width: int, height: int, objects: Sequence[tuple[str, Region]], area: Area
) -> Scene:
    image = draw_background(rng, height, width)
    boxes = tuple(add_object(rng, image, label, region, area) for label, region in objects)
    return Scene(np.rint(np.clip(image, 0, 255)).astype(np.uint8), boxes)


def draw_single(seed: int, index: int, area: Area) -> Scene:
    """Scene `index` of the set with this seed, whatever the set's size; the classes take turns."""
    rng = np.random.default_rng((seed, 1, index))
    width, height = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, size=2))
    label = tuple(SHAPES)[index % len(SHAPES)]
    return compose(rng, width, height, [(label, Region(0, 0, width, height))], area)


def draw_pair(seed: int, index: int, area: Area) -> Scene:
    """Two objects of different classes, each wholly in its own half.

    Every 24 pairs hold each ordered pair of classes once side by side and once one above the other.
    """
    rng = np.random.default_rng((seed, 2, index))
    # The longer side is divided, so that objects of up to a fifth of the area fit into a half.
    short, long = sorted(int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, size=2))
    first, second = ORDERED_PAIRS[index % len(ORDERED_PAIRS)]
    if index // len(ORDERED_PAIRS) % 2 == 0:
        halves = Region(0, 0, long // 2, short), Region(long - long // 2, 0, long, short)
        return compose(rng, long, short, list(zip((first, second), halves, strict=True)), area)
    halves = Region(0, 0, short, long // 2), Region(0, long - long // 2, short, long)
    return compose(rng, short, long, list(zip((first, second), halves, strict=True)), area)


def singles(seed: int, count: int, area: Area) -> Iterator[tuple[str, Scene]]:
    for index in range(count):
        scene = draw_single(seed, index, area)
        yield f"{scene.boxes[0].label}/scene_{index:04d}.jpg", scene


def pairs(seed: int, count: int, area: Area) -> Iterator[tuple[str, Scene]]:
    for index in range(count):
        yield f"pair_{index:03d}.jpg", draw_pair(seed, index, area)


def write_scenes(folder: Path, scenes: Iterator[tuple[str, Scene]]) -> None:
    """Write each scene under its name in `folder`, and `folder/boxes.csv` with a row per object, sorted by path."""
    rows: list[tuple[str, Box]] = []
    for name, scene in scenes:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.pixels).save(path, quality=JPEG_QUALITY, optimize=True)
        rows.extend((name, box) for box in scene.boxes)
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", *Box._fields))
        writer.writerows((name, *box) for name, box in sorted(rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw pictures of shapes on cluttered backgrounds, with boxes.")
    parser.add_argument("--out", type=Path, required=True, help="folder in which `scenes` and `scene_pairs` are made")
    parser.add_argument("--seed", type=int, default=0, help="not negative; another seed, other pictures (default: 0)")
    parser.add_argument("--count", type=int, default=400, help="pictures with one object (default: 400)")
    parser.add_argument("--pairs", type=int, default=24, help="pictures with two objects (default: 24)")
    parser.add_argument(
        "--area",
        type=float,
        nargs=2,
        default=(0.08, 0.15),
        metavar=("MIN", "MAX"),
        help="box of an object as a fraction of the picture, within 0.01 and 0.2 (default: 0.08 0.15)",
    )
    arguments = parser.parse_args()
    smallest, largest = arguments.area
    if not 0.01 <= smallest < largest <= 0.2:
        parser.error(f"--area {smallest:g} {largest:g}: must be two rising fractions within 0.01 and 0.2")
    if min(arguments.seed, arguments.count, arguments.pairs) < 0:
        parser.error("--seed, --count and --pairs must not be negative")
    for folder in (arguments.out / "scenes", arguments.out / "scene_pairs"):
        if any(folder.glob("*")):  # old pictures beside a new boxes.csv would be pictures without boxes
            parser.error(f"{folder.absolute()} is not empty; remove it first")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    area = Area(*arguments.area)
    if arguments.count:
        write_scenes(arguments.out / "scenes", singles(arguments.seed, arguments.count, area))
    if arguments.pairs:
        write_scenes(arguments.out / "scene_pairs", pairs(arguments.seed, arguments.pairs, area))
    print(f"{arguments.count} scenes, {arguments.pairs} pairs")


if __name__ == "__main__":
    main()
