import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.fingerprints import (
    SIDE,
    Fingerprint,
    Structures,
    close_look,
    fingerprint_of,
    structure_of,
    take_fingerprints,
)
from tests.data.pictures import picture, save

LIMIT = 1_000_000


def taken(path: Path) -> Fingerprint:
    result = fingerprint_of(path, max_pixels=LIMIT)
    assert isinstance(result, Fingerprint), result
    return result


def structure(path: Path) -> NDArray[np.float64]:
    return np.asarray(Structures([taken(path)])[:1][0], dtype=np.float64)


def alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float((one * other).mean())  # both have zero mean and unit variance


def test_says_the_hash_of_the_bytes_and_the_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(picture(0), tmp_path / "a.jpg", exif=exif)

    found = taken(path)

    assert found.digest == hashlib.sha256(path.read_bytes()).digest()
    assert (found.width, found.height) == (120, 160)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_on_its_side_has_the_fingerprint_of_the_upright_one(tmp_path: Path, orientation: int) -> None:
    undone = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = picture(1, 400, 300)
    stored = upright.transpose(undone[orientation]) if orientation in undone else upright
    exif = Image.Exif()
    exif[0x0112] = orientation

    one = structure(save(stored, tmp_path / "a.jpg", quality=95, exif=exif))

    assert alike(one, structure(save(upright, tmp_path / "b.png"))) > 0.999


@pytest.mark.parametrize("size", [(64, 64), (75, 61), (500, 375), (501, 377), (1031, 640)])
def test_the_quick_decoder_sees_what_the_careful_one_sees(tmp_path: Path, size: tuple[int, int]) -> None:
    image = picture(2, *size)

    quick = structure(save(image, tmp_path / "a.jpg", quality=95))

    assert alike(quick, structure(save(image, tmp_path / "a.png"))) > 0.998


def test_light_and_contrast_do_not_matter(tmp_path: Path) -> None:
    image = picture(3)
    pale = image.point(lambda level: level // 2 + 60)

    assert alike(structure(save(image, tmp_path / "a.png")), structure(save(pale, tmp_path / "b.png"))) > 0.998


def test_different_pictures_are_not_alike(tmp_path: Path) -> None:
    found = [structure(save(picture(number), tmp_path / f"{number}.png")) for number in range(8)]

    assert max(alike(found[i], found[j]) for i in range(8) for j in range(i)) < 0.7


def test_an_image_of_one_colour_is_plain(tmp_path: Path) -> None:
    found = taken(save(Image.new("RGB", (50, 40), (90, 20, 7)), tmp_path / "a.jpg"))

    assert found.is_plain


def test_structure_has_neither_light_nor_noise() -> None:
    ramp = np.tile(np.linspace(0, 200, SIDE, dtype=np.float32), (SIDE, 1))
    board = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * np.float32(200)

    assert np.abs(structure_of(ramp)[:, 12:20]).max() < 1
    assert np.abs(structure_of(board))[4:-4, 4:-4].max() < 40
    assert np.abs(structure_of(np.full((2, SIDE, SIDE), 255, dtype=np.float32))).max() < 1e-3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff", "damaged"),
        (b"<html>", "HTML"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 500, "damaged"),
    ],
)
def test_what_is_no_image_is_named_and_does_not_stop_the_others(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(data)
    save(picture(0), tmp_path / "good.jpg")

    found, unreadable = take_fingerprints(tmp_path, ["bad.jpg", "good.jpg"], max_pixels=LIMIT)

    assert list(found) == ["good.jpg"]
    assert reason in unreadable["bad.jpg"]


def test_a_truncated_photograph_is_unreadable_here_as_everywhere(tmp_path: Path) -> None:
    path = save(picture(0, 500, 375), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-3000])

    assert fingerprint_of(path, max_pixels=LIMIT) == "truncated"
    assert close_look(path, max_pixels=LIMIT) is None


def test_limits_hold_for_the_quick_decoder_too(tmp_path: Path) -> None:
    path = save(picture(0, 100, 100), tmp_path / "a.jpg")
    (tmp_path / "link.jpg").symlink_to(path)

    assert "more than data.max_pixels" in str(fingerprint_of(path, max_pixels=9_999))
    assert fingerprint_of(tmp_path / "link.jpg", max_pixels=LIMIT) == "a symbolic link"
    assert "aspect" in str(fingerprint_of(save(picture(0, 1100, 10), tmp_path / "b.jpg"), max_pixels=LIMIT))


def test_a_photograph_in_cmyk_is_read(tmp_path: Path) -> None:
    image = picture(4, 300, 200)

    one = structure(save(image.convert("CMYK"), tmp_path / "a.jpg", quality=95))

    assert alike(one, structure(save(image, tmp_path / "b.png"))) > 0.99
