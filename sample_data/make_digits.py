"""Write scikit-learn's bundled handwritten digits as one PNG per scan in a folder per digit.

The scans are 8 x 8 pixels with 17 grey levels (0 to 16, 16 is ink); see README.md for their origin.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits


def to_grey(scan: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Stretch the levels 0 to 16 over 0 to 255; `round(grey * 16 / 255)` gives them back exactly."""
    return np.rint(scan * (255 / 16)).astype(np.uint8)


def choose_rows(digits: NDArray[np.int64], *, per_class: int) -> list[int]:
    """The first `per_class` rows of each digit, in ascending order."""
    return sorted(int(row) for digit in range(10) for row in np.flatnonzero(digits == digit)[:per_class])


def write_digits(out: Path, *, per_class: int) -> int:
    """Write `out/digits/<digit>/digit_<row>.png`, where row is the scan's index in `load_digits`; return how many."""
    bunch = load_digits()
    rows = choose_rows(bunch.target, per_class=per_class)
    for row in rows:
        path = out / "digits" / str(bunch.target[row]) / f"digit_{row:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_grey(bunch.images[row])).save(path, optimize=True)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write scikit-learn's handwritten digits as PNG files.")
    parser.add_argument("--out", type=Path, required=True, help="folder in which `digits` is made")
    parser.add_argument("--per-class", type=int, default=100, help="scans per digit (default: 100, at most 174)")
    arguments = parser.parse_args()
    if any((arguments.out / "digits").glob("*")):
        parser.error(f"{(arguments.out / 'digits').absolute()} is not empty; remove it first")
    print(f"{write_digits(arguments.out, per_class=arguments.per_class)} digits")


if __name__ == "__main__":
    main()
