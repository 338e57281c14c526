import contextlib
import io
import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evalcam_cli.data.images as module
from evalcam_cli.data.images import DEEP, FRAMES, MAX_SCANS, UnreadableImage, examine, is_candidate, load_image
from tests.zoo.formats import deep_png, jpeg_of_many_scans

LIMIT = 100_000_000


def picture(width: int = 24, height: int = 16) -> Image.Image:
    """Colours that differ in every corner, smooth enough for JPEG."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(load_image(path, LIMIT)).astype(np.int64)


def reason(path: Path, limit: int = LIMIT) -> str:
    with pytest.raises(UnreadableImage) as caught:
        load_image(path, limit)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.reason


def png(width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 0, transparent: bytes = b"") -> bytes:
    """A PNG byte by byte; `colour` is 0 for grey and 2 for RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    alpha = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + alpha + chunk(b"IDAT", data) + chunk(b"IEND", b"")


TURNS = {  # how a picture must be stored so that the orientation restores it
    1: lambda upright: upright,
    2: lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"turned.{suffix}", TURNS[orientation](picture()), exif=exif)

    assert (pixels(path) == np.asarray(picture())).all()


def test_a_turned_jpeg_has_its_bright_corner_where_the_upright_one_has(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "turned.jpg", TURNS[6](picture()), exif=exif, quality=95, subsampling=0)

    assert np.abs(pixels(path) - np.asarray(picture()).astype(int)).max() < 16


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "x.png", picture(), exif=exif)

    assert (pixels(path) == np.asarray(picture())).all()


def test_unreadable_exif_is_ignored_without_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jpeg = saved(tmp_path / "plain.jpg", picture()).read_bytes()
    garbage = b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(range(256))
    (tmp_path / "x.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(garbage) + 2) + garbage + jpeg[2:])

    assert (pixels(tmp_path / "x.jpg") == pixels(tmp_path / "plain.jpg")).all()
    assert capfd.readouterr() == ("", "")


def test_metadata_does_not_pass(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe"
    path = saved(tmp_path / "x.jpg", picture(), exif=exif, comment=b"secret", icc_profile=b"not a profile")

    image = load_image(path, LIMIT)

    assert (image.info, dict(image.getexif())) == ({}, {})


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_its_full_range(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    path = saved(tmp_path / f"x.{suffix}", Image.fromarray(grey))

    assert pixels(path)[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_big_endian_16_bit_tiff_equals_little_endian(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    for name, image in {
        "little.tif": Image.fromarray(values),
        "big.tif": Image.frombytes("I;16B", (8, 8), values.astype(">u2").tobytes()),
    }.items():
        image.save(tmp_path / name)

    assert (pixels(tmp_path / "big.tif") == pixels(tmp_path / "little.tif")).all()


def test_floats_between_0_and_1_are_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tif", Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))

    assert pixels(path)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_other_floats_are_refused(tmp_path: Path, value: float) -> None:
    path = saved(tmp_path / "x.tif", Image.fromarray(np.array([[0.5, value]], np.float32)))

    assert "float pixels" in reason(path)


def test_32_bit_integers_are_refused(tmp_path: Path) -> None:
    assert "32-bit" in reason(saved(tmp_path / "x.tif", Image.fromarray(np.array([[7, 70_000]], np.int32))))


def test_half_transparent_black_over_white_is_grey(tmp_path: Path) -> None:
    for mode, colour in (("RGBA", (0, 0, 0, 128)), ("LA", (0, 128))):
        path = saved(tmp_path / f"{mode}.png", Image.new(mode, (2, 2), colour))
        assert pixels(path)[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.new("L", (3, 3), 7), {"transparency": 7}),
        (Image.new("1", (3, 3), 0), {"transparency": 0}),
        (Image.new("RGB", (3, 3), (1, 2, 3)), {"transparency": (1, 2, 3)}),
        (Image.new("RGB", (3, 3), "red").quantize(2), {"transparency": 0}),
        (Image.new("RGB", (3, 3), "red").quantize(2), {"transparency": bytes(2)}),
        (Image.fromarray(np.full((3, 3), 300, np.uint16)), {"transparency": 300}),
    ],
    ids=["L", "1", "RGB", "P-index", "P-alphas", "16-bit"],
)
def test_a_transparent_colour_becomes_white(tmp_path: Path, image: Image.Image, options: dict[str, object]) -> None:
    assert (pixels(saved(tmp_path / "x.png", image, **options)) == 255).all()


@pytest.mark.parametrize(("bits", "row"), [(2, b"\0\x1b"), (4, b"\0\x01\x23")])
def test_a_transparent_grey_of_few_bits_becomes_white(tmp_path: Path, bits: int, row: bytes) -> None:
    """The samples of the row are 0, 1, 2, 3, of which 1 is transparent."""
    transparent = struct.pack(">H", 1)
    (tmp_path / "x.png").write_bytes(png(4, 1, zlib.compress(row), bits=bits, transparent=transparent))

    step = 255 // (2**bits - 1)
    assert pixels(tmp_path / "x.png")[0, :, 0].tolist() == [0, 255, 2 * step, 3 * step]


def test_a_transparent_colour_of_16_bits_becomes_white(tmp_path: Path) -> None:
    row = zlib.compress(b"\0" + struct.pack(">6H", 1000, 2000, 3000, 65535, 0, 257))
    transparent = struct.pack(">3H", 1000, 2000, 3000)
    (tmp_path / "x.png").write_bytes(png(2, 1, row, bits=16, colour=2, transparent=transparent))

    assert pixels(tmp_path / "x.png")[0].tolist() == [[255, 255, 255], [255, 0, 1]]


def test_a_palette_with_alpha_is_flattened_without_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", picture().convert("P"), transparency=bytes(range(256)))

    with warnings.catch_warnings(record=True) as caught:
        load_image(path, LIMIT)

    assert not caught


def test_cmyk_with_and_without_adobe_marker_gives_the_colours_back(tmp_path: Path) -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    plain = saved(tmp_path / "plain.tif", red)
    adobe = saved(tmp_path / "adobe.jpg", red, quality=95)  # Pillow writes the marker and inverted inks
    assert b"Adobe" in adobe.read_bytes()

    for path in (plain, adobe):
        assert np.abs(pixels(path)[0, 0] - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = load_image(saved(tmp_path / "x.png", picture().convert(mode)), LIMIT)

    assert (image.mode, image.size) == ("RGB", (24, 16))


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    path = saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:], lossless=True)

    assert pixels(path)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.jpg"), ("JPEG", "x.png"), ("JPEG", "X.JPG"), ("BMP", "noname")])
def test_the_content_decides_not_the_name(tmp_path: Path, kind: str, name: str) -> None:
    assert load_image(saved(tmp_path / name, picture(), format=kind), LIMIT).size == (24, 16)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"just text", "not a JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>404</title>", "HTML"),
        (b"PK\5\6" + bytes(18), "ZIP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0" + bytes(40), "AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage", "PostScript"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
    ],
    ids=["zero-byte", "text", "git-lfs", "html", "zip", "heic", "avif", "eps", "png-header"],
)
def test_what_is_no_image_is_refused_with_a_reason(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content)

    assert word in reason(tmp_path / "x.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "webp"])
def test_half_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    whole = saved(tmp_path / f"x.{suffix}", Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))).read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])

    assert reason(tmp_path / "half")


def test_flipped_bits_give_an_image_or_a_reason_never_another_exception(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "gif", "tif", "webp", "bmp"):
        whole = saved(tmp_path / f"x.{suffix}", picture()).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for position in rng.integers(0, len(damaged), 3):
                damaged[position] ^= 1 << rng.integers(0, 8)
            (tmp_path / "damaged").write_bytes(damaged)
            with contextlib.suppress(UnreadableImage):
                assert load_image(tmp_path / "damaged", LIMIT).mode == "RGB"


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert load_image(saved(tmp_path / "x.png", Image.new("RGB", (1, 1))), LIMIT).size == (1, 1)


def test_a_line_of_50000_pixels_is_refused_and_100_to_1_is_not(tmp_path: Path) -> None:
    assert "100:1" in reason(saved(tmp_path / "x.png", Image.new("RGB", (50_000, 1))))
    assert load_image(saved(tmp_path / "y.png", Image.new("RGB", (3000, 30))), LIMIT).size == (3000, 30)
    assert "100:1" in reason(saved(tmp_path / "z.png", Image.new("RGB", (3030, 30))))


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(50_000, 50_000, bytes(1000)))

    assert "data.max_pixels" in reason(tmp_path / "x.png")


def test_the_pixel_limit_is_exact(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.new("L", (20, 10)))

    assert load_image(path, 200).size == (20, 10)
    assert "20x10" in reason(path, 199)


def test_a_text_bomb_is_refused(tmp_path: Path) -> None:
    plain = io.BytesIO()
    picture().save(plain, "PNG")
    content = b"comment\0\0" + zlib.compress(bytes(50_000_000))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    (tmp_path / "x.png").write_bytes(plain.getvalue()[:33] + chunk + plain.getvalue()[33:])

    assert reason(tmp_path / "x.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_a_pipe_a_folder_a_link_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(saved(tmp_path / "x.png", picture()))

    assert reason(tmp_path / "pipe.jpg") == "not a regular file"
    assert reason(tmp_path) == "not a regular file"
    assert reason(Path("/dev/zero")) == "not a regular file"
    assert reason(tmp_path / "link.jpg") == "a symbolic link"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as stream:
        stream.truncate(300 * 2**20)  # sparse

    assert "256 MB" in reason(tmp_path / "x.jpg")


def test_a_missing_file_and_an_impossible_name_are_refused(tmp_path: Path) -> None:
    assert "No such file" in reason(tmp_path / "none.jpg")
    assert "NUL" in reason(tmp_path / "a\0b.jpg")


@pytest.mark.parametrize(
    "name", ["고양이 [1].png", "a'b\"c.png", "a\nb.png", "bad\udcff\udcfe.png", "-rf.png", "*.png"]
)
def test_any_name_is_opened_and_shown_safely(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"no image")

    with pytest.raises(UnreadableImage) as caught:
        load_image(path, LIMIT)

    assert "\n" not in str(caught.value)
    str(caught.value).encode()
    path.unlink()
    with path.open("wb") as stream:
        picture().save(stream, "PNG")
    assert load_image(path, LIMIT).size == (24, 16)


def test_the_error_crosses_processes_whole(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage(tmp_path / "x.jpg", "truncated")))  # noqa: S301 (our own)

    assert (error.path, error.reason) == (tmp_path / "x.jpg", "truncated")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("A.JPG", True),
        ("a.JpEg", True),
        ("a.jpe", True),
        ("a.tiff", True),
        ("..jpg", False),
        (".jpg", False),
        (".hidden.png", False),
        ("a.jpg.part", False),
        ("a.txt", False),
        ("jpg", False),
    ],
)
def test_candidates_are_known_by_extension(name: str, expected: bool) -> None:
    assert is_candidate(name) is expected


def test_no_folder_below_the_root_may_be_a_link(tmp_path: Path) -> None:
    """As when one is put in a folder's place after it was listed."""
    (tmp_path / "elsewhere").mkdir()
    saved(tmp_path / "elsewhere" / "x.png", picture())
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnreadableImage, match="symbolic link"):
        load_image(tmp_path / "root" / "cat" / "x.png", LIMIT, root=tmp_path / "root")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "there" / "cat").mkdir(parents=True)
    saved(tmp_path / "there" / "cat" / "x.png", picture())
    (tmp_path / "root").symlink_to(tmp_path / "there")

    assert load_image(tmp_path / "root" / "cat" / "x.png", LIMIT, root=tmp_path / "root").size == (24, 16)


def test_opening_below_a_root_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    saved(tmp_path / "cat" / "x.png", picture())
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("this system does not list open files")
    before = len(list(open_files.iterdir()))

    for name in ("cat/x.png", "cat/none.png", "none/x.png", "cat"):
        with contextlib.suppress(UnreadableImage):
            load_image(tmp_path / name, LIMIT, root=tmp_path)

    assert len(list(open_files.iterdir())) == before


@pytest.mark.parametrize("kind", ["rgba", "grey16", "float", "palette"])
def test_a_large_image_converted_strip_by_strip_is_the_same(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / ("x.tif" if kind == "float" else "x.png")
    if kind == "rgba":
        Image.fromarray(rng.integers(0, 256, (50, 30, 4), np.uint8)).save(path)
    elif kind == "palette":
        picture(30, 50).convert("P").save(path, transparency=bytes(range(256)))
    elif kind == "float":
        Image.fromarray(rng.random((50, 30), np.float32)).save(path)
    else:
        path.write_bytes(deep_png(rng.integers(0, 65536, (50, 30), np.uint16), 0))
    whole = pixels(path)

    monkeypatch.setattr(module, "_STRIP", 200)

    assert (pixels(path) == whole).all()


def remark(path: Path) -> str:
    with path.open("rb") as stream:
        return examine(stream, path, LIMIT)[1]


def test_what_of_a_file_is_not_used_is_said(tmp_path: Path) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16)
    (tmp_path / "grey.png").write_bytes(deep_png(deep, 0))
    (tmp_path / "rgb.png").write_bytes(deep_png(np.stack([deep] * 3, axis=-1), 2))
    saved(tmp_path / "deep.tif", Image.fromarray(deep))
    for suffix in ("gif", "png", "tif", "webp"):
        saved(tmp_path / f"many.{suffix}", picture(), save_all=True, append_images=[picture(24, 16).rotate(90)])
        assert remark(tmp_path / f"many.{suffix}") == FRAMES
        assert not remark(saved(tmp_path / f"one.{suffix}", picture()))

    assert {remark(tmp_path / name) for name in ("grey.png", "rgb.png", "deep.tif")} == {DEEP}


def test_a_jpeg_of_very_many_scans_is_refused_and_a_usual_progressive_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "bomb.jpg").write_bytes(jpeg_of_many_scans(64, 64, MAX_SCANS))
    (tmp_path / "some.jpg").write_bytes(jpeg_of_many_scans(64, 64, 63))

    assert "scans" in reason(tmp_path / "bomb.jpg")
    assert load_image(tmp_path / "some.jpg", LIMIT).size == (64, 64)
    assert load_image(saved(tmp_path / "x.jpg", picture(), progressive=True), LIMIT).size == (24, 16)


def test_a_webp_canvas_beyond_the_limit_is_refused_before_it_is_set_up(tmp_path: Path) -> None:
    frames = [picture(), picture().rotate(180)]
    data = bytearray(saved(tmp_path / "x.webp", frames[0], save_all=True, append_images=frames[1:]).read_bytes())
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = b"\xff\x3f\0" * 2
    (tmp_path / "huge.webp").write_bytes(data)

    assert "16384x16384" in reason(tmp_path / "huge.webp")
