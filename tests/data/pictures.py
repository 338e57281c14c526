"""Pictures with the structure of photographs, all different, and their copies."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, width: int = 160, height: int = 120) -> Image.Image:
    """The same number gives the same picture, whatever its size."""
    rng = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(96)[:, None] * 96, np.fft.rfftfreq(96) * 96)
    noise = np.fft.irfft2(np.maximum(frequency, 1.0) ** -1.5 * np.fft.rfft2(rng.normal(size=(96, 96))), s=(96, 96))
    grey = np.clip(128 + 45 * (noise - noise.mean()) / noise.std(), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC).convert("RGB")


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without these shares of its sides."""
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


def save(image: Image.Image, path: Path, **options: object) -> Path:
    """In the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if path.suffix == ".png" else "JPEG", **options)
    path.write_bytes(buffer.getvalue())
    return path
