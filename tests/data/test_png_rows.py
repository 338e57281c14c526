import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.data.images import UnreadableImage, load_image
from evalcam_cli.data.png_rows import lacks_rows
from tests.zoo.formats import chunk, encoded, header, interlaced_png, png, rows, zeros


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (130, 40)])
def test_a_whole_png_lacks_no_rows(mode: str, size: tuple[int, int]) -> None:
    assert not lacks_rows(io.BytesIO(encoded(Image.new(mode, size))))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_one_row_less_is_seen(bits: int) -> None:
    row = bytes(-(-21 * bits // 8))

    assert lacks_rows(io.BytesIO(png(header(21, 9, bits=bits, colour=0), rows([row] * 8))))
    assert not lacks_rows(io.BytesIO(png(header(21, 9, bits=bits, colour=0), rows([row] * 9))))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (31, 17)])
def test_the_passes_of_an_interlaced_png_are_counted(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))

    assert not lacks_rows(io.BytesIO(interlaced_png(image)))


def test_data_in_many_chunks_is_one_stream() -> None:
    whole = rows([bytes(30)] * 10)
    data = whole[8:-4]
    pieces = b"".join(chunk(b"IDAT", data[place : place + 3]) for place in range(0, len(data), 3))

    assert not lacks_rows(io.BytesIO(png(header(10, 10), pieces)))


def test_a_png_whose_data_ends_early_is_not_a_black_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(header(16, 16), zeros(48, 9)))
    (tmp_path / "black.png").write_bytes(png(header(16, 16), zeros(48, 16)))

    with pytest.raises(UnreadableImage, match="truncated"):
        load_image(tmp_path / "x.png", 1000)
    assert load_image(tmp_path / "black.png", 1000).size == (16, 16)
