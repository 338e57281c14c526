"""Pictures of the six formats in every state from odd to hostile, each with what must come of it."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from PIL import Image

from tests.zoo.cases import Outcome
from tests.zoo.formats import (
    SUFFIXES,
    Tag,
    after_soi,
    bmp,
    chunk,
    deep_png,
    encoded,
    flipped,
    frame_header,
    gif,
    gif_frame,
    grey_tags,
    header,
    interlaced_png,
    jpeg_of_many_scans,
    jpeg_of_size,
    picture,
    png,
    replaced,
    rows,
    segment,
    tiff,
    webp_canvas,
    webp_of_size,
    with_bad_crc,
    with_chunk,
    with_tag,
    without_segments,
    zeros,
)

Content = Callable[..., bytes]  # called without arguments; `...` lets a lambda have defaults
Reference = Callable[..., Image.Image]


@dataclass(frozen=True)
class Specimen:
    """One file under an image's name."""

    name: str
    file: str
    content: Content
    outcome: Outcome
    words: tuple[str, ...] = ()
    """What the reason or the warning must say."""
    reference: Reference | None = None
    """The picture that it must be taken for."""
    within: float = 1e-6
    """How far the probability may lie from the reference's."""
    megabytes: int = 600
    seconds: float = 10


def used(name: str, file: str, content: Content, reference: Reference | None = None, **more: float) -> Specimen:
    return Specimen(name, file, content, "accept", (), reference, **more)  # type: ignore[arg-type]


def warned(name: str, file: str, content: Content, word: str, reference: Reference | None = None) -> Specimen:
    return Specimen(name, file, content, "warn", (word,), reference)


def unreadable(name: str, file: str, content: Content, *words: str, megabytes: int = 600) -> Specimen:
    return Specimen(name, file, content, "skip", words, megabytes=megabytes)


def specimens() -> Iterator[Specimen]:
    yield from _cut()
    yield from _lies()
    yield from _limits()
    yield from _pngs()
    yield from _pngs_of_kinds()
    yield from _jpegs()
    yield from _turned()
    yield from _gifs()
    yield from _bmps()
    yield from _tiffs()
    yield from _webps()


def _whole(kind: str) -> bytes:
    return encoded(picture(3), kind)


def _cut() -> Iterator[Specimen]:
    """Each format cut off at several places."""
    for kind, suffix in SUFFIXES.items():
        for share in (2, 25, 50, 90):
            yield unreadable(
                f"{suffix}_cut_at_{share}",
                f"x.{suffix}",
                lambda k=kind, s=share: _whole(k)[: len(_whole(k)) * s // 100],
            )
    yield unreadable("jpg_progressive_cut", "x.jpg", lambda: encoded(kind="JPEG", progressive=True)[:-600], "truncated")
    yield used("png_without_iend", "x.png", lambda: _whole("PNG")[:-12], lambda: picture(3))
    yield used("png_and_garbage", "x.png", lambda: _whole("PNG") + bytes(range(256)), lambda: picture(3))
    yield used("jpg_and_zip", "x.jpg", lambda: _whole("JPEG") + b"PK\5\6" + bytes(18))
    yield unreadable("garbage_and_jpg", "x.jpg", lambda: b"\r\n" + _whole("JPEG"))


def _lies() -> Iterator[Specimen]:
    """Each format with a declared size that is not that of its data."""
    sizes = {"larger": (200, 150), "huge": (65535, 65535), "none": (0, 72), "sliver": (16000, 1)}
    word = {"larger": "", "huge": "data.max_pixels", "none": "", "sliver": "100:1"}
    for name, (width, height) in sizes.items():
        head = header(width, height)
        yield unreadable(f"png_{name}", "x.png", lambda h=head: _whole("PNG")[:8] + h + _whole("PNG")[33:], word[name])
        yield unreadable(
            f"bmp_{name}",
            "x.bmp",
            lambda w=width, h=height: replaced(_whole("BMP"), 18, struct.pack("<ii", w, h)),
            word[name],
        )
        yield unreadable(
            f"tif_{name}",
            "x.tif",
            lambda w=width, h=height: tiff(grey_tags(w, h, counts=(6912,)), bytes(6912)),
            word[name],
        )
        if name in ("huge", "sliver"):
            yield unreadable(
                f"jpg_{name}", "x.jpg", lambda w=width, h=height: jpeg_of_size(_whole("JPEG"), w, h), word[name]
            )
            yield unreadable(
                f"gif_{name}", "x.gif", lambda w=width, h=height: gif(gif_frame(), width=w, height=h), word[name]
            )
            yield unreadable(
                f"gif_frame_{name}",
                "x.gif",
                lambda w=width, h=height: gif(replaced(gif_frame(), 5, struct.pack("<HH", w, h))),
                word[name],
            )
    yield unreadable("jpg_no_width", "x.jpg", lambda: jpeg_of_size(_whole("JPEG"), 0, 72))
    yield unreadable("jpg_no_height", "x.jpg", lambda: jpeg_of_size(_whole("JPEG"), 96, 0))
    yield unreadable("gif_no_size", "x.gif", lambda: gif(width=0, height=0))
    yield unreadable("webp_larger", "x.webp", lambda: webp_of_size(_whole("WEBP"), 2000, 1500))
    yield unreadable("webp_huge", "x.webp", lambda: webp_of_size(_whole("WEBP"), 16383, 16383))
    yield unreadable("webp_none", "x.webp", lambda: webp_of_size(_whole("WEBP"), 0, 0))
    yield unreadable(
        "webp_canvas_huge", "x.webp", lambda: webp_canvas(_animation("WEBP"), 16384, 16384), "data.max_pixels"
    )
    yield unreadable(
        "bmp_min_int", "x.bmp", lambda: replaced(_whole("BMP"), 18, struct.pack("<ii", -(2**31), 2**31 - 1))
    )


def _limits() -> Iterator[Specimen]:
    """At and beyond the limits of pixels and aspect."""
    yield used(
        "one_pixel", "x.png", lambda: encoded(Image.new("RGB", (1, 1), "red")), lambda: Image.new("RGB", (8, 8), "red")
    )
    yield unreadable("wide_50000x1", "x.png", lambda: encoded(Image.new("RGB", (50000, 1))), "100:1")
    yield used("limit_aspect", "x.png", lambda: encoded(Image.new("RGB", (3000, 30))))
    yield unreadable("beyond_aspect", "x.png", lambda: encoded(Image.new("RGB", (3030, 30))), "100:1")
    yield used("limit_pixels", "x.png", lambda: png(header(10000, 10000), zeros(30000, 10000)), megabytes=1100)
    yield used(
        "limit_pixels_rgba", "x.png", lambda: png(header(10000, 10000, colour=6), zeros(40000, 10000)), megabytes=1400
    )
    yield Specimen(
        "limit_pixels_deep", "x.png", lambda: png(header(10000, 10000, bits=16, colour=0), zeros(20000, 10000)), "warn",
        ("8 bits",), megabytes=1100,
    )  # fmt: skip
    yield unreadable(
        "beyond_pixels", "x.png", lambda: png(header(10001, 10000, colour=0), zeros(10001, 10000)), "data.max_pixels"
    )
    yield unreadable(
        "bomb_header_only", "x.png", lambda: png(header(50000, 50000), chunk(b"IDAT", bytes(1000))), "data.max_pixels"
    )
    yield unreadable(
        "bomb_169mp", "x.png", lambda: png(header(13000, 13000, colour=0), zeros(13000, 13000)), "data.max_pixels"
    )
    yield unreadable("jpg_scan_bomb", "x.jpg", lambda: jpeg_of_many_scans(9992, 10000, 1000), "scans")
    yield used("jpg_10mb_comments", "x.jpg", lambda: after_soi(_whole("JPEG"), *[segment(0xFE, b"c" * 65000)] * 160))


def _pngs() -> Iterator[Specimen]:
    """PNG: checksums, order and content of chunks."""
    palette = partial(encoded, picture(3).convert("P"), transparency=bytes(range(256)))
    for kind in (b"IHDR", b"PLTE", b"tRNS"):
        yield unreadable(f"png_bad_crc_{kind.decode()}", "x.png", lambda k=kind: with_bad_crc(palette(), k))
    text = chunk(b"tEXt", b"Comment\0hello")
    yield unreadable("png_bad_crc_tEXt", "x.png", lambda: with_bad_crc(with_chunk(_whole("PNG"), text), b"tEXt"))
    yield used("png_bad_crc_IDAT", "x.png", lambda: with_bad_crc(_whole("PNG"), b"IDAT"), lambda: picture(3))
    yield unreadable("png_bit_flipped", "x.png", lambda: flipped(_whole("PNG"), len(_whole("PNG")) // 2))
    yield used("png_bad_crc_IEND", "x.png", lambda: with_bad_crc(_whole("PNG"), b"IEND"), lambda: picture(3))
    yield unreadable("png_bad_ihdr", "x.png", lambda: flipped(_whole("PNG"), 20))
    yield unreadable("png_no_idat", "x.png", lambda: png(_whole("PNG")[8:33]))
    yield unreadable("png_no_ihdr", "x.png", lambda: _whole("PNG")[:8] + _whole("PNG")[33:])
    yield unreadable("png_header_twice_huge", "x.png", lambda: with_chunk(_whole("PNG"), header(60000, 60000)))
    yield unreadable(
        "png_chunk_of_2_gb", "x.png", lambda: with_chunk(_whole("PNG"), chunk(b"tEXt", b"a", length=0x7FFFFFFF))
    )
    odd = header(16, 16, rest=b"\1\0\0")
    yield used("png_odd_compression", "x.png", lambda: png(odd, zeros(48, 16)), lambda: Image.new("RGB", (16, 16)))
    yield unreadable("png_odd_interlace", "x.png", lambda: png(header(16, 16, rest=b"\0\0\7"), zeros(48, 16)))
    yield unreadable("png_odd_depth", "x.png", lambda: png(header(16, 16, bits=3), zeros(48, 16)))
    yield unreadable("png_odd_colour", "x.png", lambda: png(header(16, 16, colour=5), zeros(48, 16)))
    yield unreadable(
        "png_odd_row_filter",
        "x.png",
        lambda: png(header(16, 16), chunk(b"IDAT", zlib.compress((b"\x77" + bytes(48)) * 16))),
    )
    yield unreadable("png_no_palette", "x.png", lambda: png(header(16, 16, colour=3), zeros(16, 16)))
    yield unreadable("png_data_too_short", "x.png", lambda: png(header(16, 16), zeros(48, 9)))
    yield used(
        "png_data_too_long", "x.png", lambda: png(header(16, 16), zeros(48, 90)), lambda: Image.new("RGB", (16, 16))
    )
    yield unreadable("png_no_zlib", "x.png", lambda: png(header(16, 16), chunk(b"IDAT", b"no zlib at all")))
    yield unreadable("png_text_bomb", "x.png", lambda: with_chunk(_whole("PNG"), chunk(b"zTXt", b"k\0\0" + _bomb())))
    yield unreadable(
        "png_utf8_text_bomb", "x.png", lambda: with_chunk(_whole("PNG"), chunk(b"iTXt", b"k\0\1\0\0\0" + _bomb()))
    )
    yield unreadable("png_profile_bomb", "x.png", lambda: with_chunk(_whole("PNG"), chunk(b"iCCP", b"k\0\0" + _bomb())))
    yield unreadable(
        "png_many_texts",
        "x.png",
        lambda: with_chunk(_whole("PNG"), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6))) * 100),
    )
    yield used(
        "png_private_chunk",
        "x.png",
        lambda: with_chunk(_whole("PNG"), chunk(b"prVt", b"\x1b]0;PWN\7")),
        lambda: picture(3),
    )


@cache
def _bomb() -> bytes:
    return zlib.compress(b"A" * 200_000_000, 1)


def _pngs_of_kinds() -> Iterator[Specimen]:
    """PNG: depths, colours and transparency, each with the picture that is meant."""
    base = picture(3)
    for mode in ("L", "1", "P"):
        yield used(
            f"png_mode_{mode}",
            "x.png",
            lambda m=mode: encoded(base.convert(m)),
            lambda m=mode: base.convert(m).convert("RGB"),
        )
    yield used("png_interlaced", "x.png", lambda: interlaced_png(base), lambda: base)
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    alpha = Image.fromarray(np.tile(ramp, (72, 1)))
    veiled = base.copy()
    veiled.putalpha(alpha)
    yield used("png_rgba", "x.png", lambda: encoded(veiled), lambda: _over_white(veiled), within=1e-3)
    grey = Image.merge("LA", (base.convert("L"), alpha))
    yield used("png_grey_alpha", "x.png", lambda: encoded(grey), lambda: _over_white(grey.convert("RGBA")), within=1e-3)
    hidden = encoded(base.convert("P"), transparency=bytes(range(256)))
    yield used(
        "png_palette_alpha", "x.png", lambda: hidden, lambda: _over_white(Image.open(io.BytesIO(hidden))), within=1e-3
    )
    deep = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    shallow = Image.fromarray(((deep.astype(int) + 128) // 257).astype(np.uint8))
    yield warned("png_grey16", "x.png", lambda: deep_png(deep, 0), "8 bits", lambda: shallow.convert("RGB"))
    wide = np.stack([deep, deep[::-1], deep.T], axis=-1)
    colours = Image.fromarray(np.asarray((wide >> 8), np.uint8))
    yield warned("png_rgb16", "x.png", lambda: deep_png(wide, 2), "8 bits", lambda: colours)
    see_through = np.concatenate([wide, np.full((64, 64, 1), 65535, np.uint16)], axis=-1)
    yield warned("png_rgba16", "x.png", lambda: deep_png(see_through, 6), "8 bits", lambda: colours)
    for bits in (1, 2, 4):
        yield used(
            f"png_grey_{bits}_bits",
            "x.png",
            lambda b=bits: png(header(16, 16, bits=b, colour=0), rows([b"\xf0" * (2 * b)] * 16)),
        )
    dark = png(header(16, 16, colour=3), chunk(b"PLTE", b"\xff\0\0"), rows([b"\0\7" * 8] * 16))
    yield used("png_palette_index_beyond", "x.png", lambda: dark)
    yield warned("png_animated", "x.png", lambda: _animation("PNG"), "first", lambda: picture(0))
    yield used("png_as_jpg", "x.jpg", lambda: _whole("PNG"), lambda: base)
    yield used("icc_garbage_png", "x.png", lambda: encoded(base, icc_profile=b"not a profile" * 50), lambda: base)


def _over_white(veiled: Image.Image) -> Image.Image:
    """As the definition says: alpha times colour and the rest white."""
    pixels = np.asarray(veiled.convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    return Image.fromarray(np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))


def _animation(kind: str) -> bytes:
    more = {"lossless": True} if kind == "WEBP" else {}
    return encoded(picture(0), kind, save_all=True, append_images=[picture(1).copy(), picture(2).copy()], **more)


def _decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _jpegs() -> Iterator[Specimen]:
    """JPEG: kinds of coding, colours and segments."""
    base, same = partial(_whole, "JPEG"), partial(_decoded, _whole("JPEG"))
    yield used("jpg_bit_flipped", "x.jpg", lambda: flipped(base(), len(base()) // 2))
    yield used("jpg_as_png", "x.png", base, same)
    yield used("jpg_upper_ext", "x.JPG", base, same)
    yield used(
        "jpg_progressive",
        "x.jpg",
        lambda: encoded(kind="JPEG", progressive=True),
        lambda: _decoded(encoded(kind="JPEG", progressive=True)),
    )
    yield used("jpg_restarts", "x.jpg", lambda: encoded(picture(3), "JPEG", restart_marker_blocks=2), same)
    yield used("jpg_grey", "x.jpg", lambda: encoded(picture(3).convert("L"), "JPEG"))
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    adobe = b"Adobe\0\x64\0\0\0\0\0"
    bright = partial(Image.new, "RGB", (32, 32), "red")
    yield used("jpg_cmyk_adobe", "x.jpg", lambda: encoded(red, "JPEG", quality=95), bright, within=1e-2)
    yield used(
        "jpg_cmyk", "x.jpg", lambda: without_segments(encoded(red, "JPEG", quality=95), 0xEE), bright, within=1e-2
    )
    yield used(
        "jpg_adobe_again",
        "x.jpg",
        lambda: after_soi(without_segments(encoded(red, "JPEG", quality=95), 0xEE), segment(0xEE, adobe)),
        bright,
        within=1e-2,
    )
    yield unreadable("jpg_12_bits", "x.jpg", lambda: replaced(base(), frame_header(base()) + 4, b"\x0c"))
    yield unreadable("jpg_lossless", "x.jpg", lambda: replaced(base(), frame_header(base()), b"\xff\xc3"))
    yield unreadable("jpg_hierarchical", "x.jpg", lambda: replaced(base(), frame_header(base()), b"\xff\xc5"))
    yield unreadable("jpg_five_channels", "x.jpg", lambda: replaced(base(), frame_header(base()) + 9, b"\5"))
    yield unreadable("jpg_no_tables", "x.jpg", lambda: without_segments(base(), 0xDB))
    yield unreadable("jpg_no_scan", "x.jpg", lambda: base()[: base().index(b"\xff\xda")] + b"\xff\xd9")
    yield unreadable("jpg_only_ends", "x.jpg", lambda: b"\xff\xd8\xff\xd9")
    yield used("jpg_short_segment", "x.jpg", lambda: after_soi(base(), b"\xff\xe1\0\0"), same)
    yield used("jpg_without_jfif", "x.jpg", lambda: without_segments(base(), 0xE0), same)
    wild = segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(range(200)))
    yield used("jpg_exif_garbage", "x.jpg", lambda: after_soi(base(), wild), same)
    loop = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    yield used("jpg_exif_loop", "x.jpg", lambda: after_soi(base(), segment(0xE1, loop)), same)
    yield used("jpg_icc_garbage", "x.jpg", lambda: encoded(picture(3), "JPEG", icc_profile=b"not a profile" * 50), same)
    yield used("jpg_mpf_garbage", "x.jpg", lambda: after_soi(base(), segment(0xE2, b"MPF\0II*\0" + b"\xff" * 60)), same)
    yield used(
        "jpg_photoshop_garbage",
        "x.jpg",
        lambda: after_soi(base(), segment(0xED, b"Photoshop 3.0\0" + b"8BIM\xff" * 9)),
        same,
    )


def _turned() -> Iterator[Specimen]:
    """Orientations, and metadata that must not reach an output."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    for value, turn in turns.items():
        stored = picture(3).transpose(turn)
        yield used(
            f"exif_orient_{value}", "x.png", lambda s=stored, v=value: encoded(s, exif=_exif(v)), lambda: picture(3)
        )
    for kind in ("JPEG", "WEBP", "TIFF"):
        yield used(
            f"exif_orient_{SUFFIXES[kind]}",
            f"x.{SUFFIXES[kind]}",
            lambda k=kind: encoded(picture(3).rotate(90, expand=True), k, exif=_exif(6), quality=95),
            lambda: picture(3),
            within=2e-2,
        )
    yield used("exif_orient_9", "x.png", lambda: encoded(picture(3), exif=_exif(9)), lambda: picture(3))
    private = _exif(1)
    private[0x10E], private[0x13B] = "<script>alert(1)</script>\x1b]0;PWN\x07", "Jane Doe"
    private.get_ifd(0x8825)[1] = "N"
    yield used("exif_private", "x.jpg", lambda: encoded(picture(3), "JPEG", exif=private))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def _gifs() -> Iterator[Specimen]:
    """GIF: frames, codes and extensions."""
    black = partial(Image.new, "RGB", (16, 16))
    yield used("gif_plain", "x.gif", lambda: gif(gif_frame()), black)
    yield unreadable("gif_of_no_frames", "x.gif", gif)
    yield unreadable("gif_of_comments_only", "x.gif", lambda: gif(b"!\xfe\5hello\0"))
    yield warned("gif_animated", "x.gif", lambda: _animation("GIF"), "first")
    yield warned("gif_of_20000_frames", "x.gif", lambda: gif(*[gif_frame(2, 2)] * 20000), "first", black)
    yield unreadable("gif_code_size_13", "x.gif", lambda: gif(replaced(gif_frame(), 10, b"\x0d")))
    yield unreadable("gif_codes_cut", "x.gif", lambda: gif(gif_frame()[:60] + b"\0"))
    yield unreadable("gif_endless_comment", "x.gif", lambda: gif(b"!\xfe" + (b"\xff" + b"c" * 255) * 2000))
    yield unreadable("gif_frame_of_nothing", "x.gif", lambda: gif(replaced(gif_frame(), 5, bytes(4))))
    yield used("gif_without_palette", "x.gif", lambda: gif(gif_frame(), flags=0))
    yield used(
        "gif_transparent",
        "x.gif",
        lambda: gif(b"!\xf9\4\1\0\0\0\0" + gif_frame()),
        lambda: Image.new("RGB", (16, 16), "white"),
    )


def _bmps() -> Iterator[Specimen]:
    """BMP: depths, directions and compression."""
    for mode in ("1", "L", "P", "RGB"):
        yield used(
            f"bmp_mode_{mode}",
            "x.bmp",
            lambda m=mode: encoded(picture(3).convert(m), "BMP"),
            lambda m=mode: picture(3).convert(m).convert("RGB"),
        )
    yield used(
        "bmp_top_down", "x.bmp", lambda: bmp(np.asarray(picture(3))[..., ::-1].tobytes(), 96, -72), lambda: picture(3)
    )
    yield unreadable("bmp_7_bits", "x.bmp", lambda: bmp(bytes(768), bits=7))
    yield unreadable("bmp_compression_9", "x.bmp", lambda: bmp(bytes(768), compression=9))
    yield unreadable("bmp_header_of_3_bytes", "x.bmp", lambda: bmp(bytes(768), header_size=3))
    yield unreadable("bmp_data_beyond_the_file", "x.bmp", lambda: bmp(bytes(768), offset=10**9))
    yield unreadable("bmp_palette_of_billions", "x.bmp", lambda: bmp(bytes(256), bits=8, colours=2**31))
    palette = bytes(range(256)) * 4
    yield used("bmp_runs", "x.bmp", lambda: bmp(b"\x10\x07\0\0" * 16 + b"\0\1", bits=8, compression=1, palette=palette))
    yield unreadable("bmp_runs_cut", "x.bmp", lambda: bmp(b"\x10\x07\0\0" * 5, bits=8, compression=1, palette=palette))
    yield used("bmp_flipped_pixel", "x.bmp", lambda: flipped(_whole("BMP"), 9000))


def _tiffs() -> Iterator[Specimen]:
    """TIFF: directories, strips, tiles, depths and compression."""
    grey = picture(3).convert("L")
    data = grey.tobytes()
    same = partial(grey.convert, "RGB")
    plain = grey_tags(96, 72)
    yield used("tif_big_endian", "x.tif", lambda: tiff(plain, data, order=">"), same)
    strips = grey_tags(16, 10000, offsets=[8 + 16 * row for row in range(10000)])
    yield unreadable("tif_of_10000_strips_thin", "x.tif", lambda: tiff(strips, bytes(160000)), "100:1")
    many = grey_tags(160, 10000, offsets=[8 + 160 * row for row in range(10000)])
    yield used("tif_of_10000_strips", "x.tif", lambda: tiff(many, bytes(1600000)))
    yield used("tif_chain_to_itself", "x.tif", lambda: tiff(plain, data, following=8 + len(data)), same)
    yield warned("tif_endless_chain", "x.tif", lambda: _two_directories(plain, data), "first", same)
    yield warned("tif_next_beyond_the_file", "x.tif", lambda: tiff(plain, data, following=10**9), "first", same)
    yield warned("tif_pages", "x.tif", lambda: _animation("TIFF"), "first", lambda: picture(0))
    yield unreadable("tif_strips_beyond_the_file", "x.tif", lambda: tiff(grey_tags(96, 72, offsets=(10**9,)), data))
    yield unreadable("tif_no_directory", "x.tif", lambda: b"II*\0\0\0\0\0")
    yield unreadable("tif_directory_beyond_the_file", "x.tif", lambda: b"II*\0\xff\xff\xff\x7f")
    yield unreadable("tif_of_65535_tags", "x.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(600))
    yield unreadable("tif_no_strips", "x.tif", lambda: tiff([tag for tag in plain if tag[0] not in (273, 279)], data))
    yield unreadable("tif_100_channels", "x.tif", lambda: tiff(with_tag(plain, 277, 3, 100), data))
    yield unreadable("tif_odd_photometric", "x.tif", lambda: tiff(with_tag(plain, 262, 3, 999), data))
    yield unreadable("tif_odd_compression", "x.tif", lambda: tiff(with_tag(plain, 259, 3, 12345), data))
    for name, side in {"nothing": 0, "billions": 2**31, "the_picture_and_more": 10**6}.items():
        tiles = [*(tag for tag in plain if tag[0] not in (273, 278, 279)), (322, 4, (side,)), (323, 4, (side,))]
        tiles += [(324, 4, (8,)), (325, 4, (6912,))]
        yield unreadable(f"tif_tiles_of_{name}", "x.tif", lambda t=tiles: tiff(t, data))
    yield used("tif_resolution_over_0", "x.tif", lambda: tiff([*plain, (282, 5, (1, 0))], data), same)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield used(
            f"tif_{name}", "x.tif", lambda c=name: encoded(picture(3), "TIFF", compression=c), lambda: picture(3)
        )
        yield unreadable(
            f"tif_{name}_cut", "x.tif", lambda c=name: _blanked(encoded(picture(3), "TIFF", compression=c))
        )
    yield used(
        "tif_group4",
        "x.tif",
        lambda: encoded(picture(3).convert("1"), "TIFF", compression="group4"),
        lambda: picture(3).convert("1").convert("RGB"),
    )
    yield used(
        "tif_jpeg",
        "x.tif",
        lambda: encoded(picture(3), "TIFF", compression="jpeg", quality=95),
        lambda: picture(3),
        within=2e-2,
    )
    yield used(
        "tif_cmyk",
        "x.tif",
        lambda: encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "TIFF"),
        lambda: Image.new("RGB", (32, 32), "red"),
        within=1e-2,
    )
    deep = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    shallow = Image.fromarray(((deep.astype(int) + 128) // 257).astype(np.uint8)).convert("RGB")
    for order, name in (("<", "little"), (">", "big")):
        yield warned(
            f"tif_grey16_{name}",
            "x.tif",
            lambda o=order: tiff(grey_tags(64, 64, bits=16), deep.astype(f"{o}u2").tobytes(), order=o),
            "8 bits",
            lambda: shallow,
        )
    yield warned(
        "tif_rgb16",
        "x.tif",
        lambda: _deep_colour_tiff(np.stack([deep] * 3, axis=-1)),
        "8 bits",
        lambda: Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB"),
    )
    yield unreadable(
        "tif_int32",
        "x.tif",
        lambda: encoded(Image.fromarray(np.arange(1024, dtype=np.int32).reshape(32, 32)), "TIFF"),
        "32-bit",
    )
    floats = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    yield used(
        "tif_float",
        "x.tif",
        lambda: encoded(Image.fromarray(floats), "TIFF"),
        lambda: Image.fromarray(np.rint(floats * 255).astype(np.uint8)).convert("RGB"),
    )
    for value in (np.nan, np.inf, -np.inf):
        wrong = floats.copy()
        wrong[3, 3] = value
        yield unreadable(f"tif_float_{value}", "x.tif", lambda w=wrong: encoded(Image.fromarray(w), "TIFF"), "NaN")
    yield unreadable(
        "tif_float_hounsfield",
        "x.tif",
        lambda: encoded(Image.fromarray(floats * 2000 - 1000), "TIFF"),
        "expected 0 to 1",
    )


def _two_directories(tags: Sequence[Tag], data: bytes) -> bytes:
    """A TIFF whose directory leads to a second one, and that back to the first."""
    first = tiff(tags, data)
    start, end = 8 + len(data), 8 + len(data) + 2 + 12 * len(tags)
    linked = replaced(first, end, struct.pack("<I", len(first)))
    return linked + first[start:end] + struct.pack("<I", start)


def _blanked(data: bytes) -> bytes:
    """A compressed TIFF whose data is overwritten from the middle on with bytes that no compression ends in."""
    return data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2)


def _deep_colour_tiff(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> bytes:
    height, width, _ = pixels.shape
    tags = with_tag(with_tag(grey_tags(width, height, counts=(width * height * 6,)), 258, 3, 16, 16, 16), 262, 3, 2)
    return tiff(with_tag(tags, 277, 3, 3), pixels.astype("<u2").tobytes())


def _webps() -> Iterator[Specimen]:
    """WebP: codings, alpha, animation."""
    yield used("webp_lossless", "x.webp", lambda: encoded(picture(3), "WEBP", lossless=True), lambda: picture(3))
    yield warned("webp_animated", "x.webp", lambda: _animation("WEBP"), "first", lambda: picture(0))
    veiled = picture(3).copy()
    veiled.putalpha(Image.new("L", veiled.size, 128))
    yield used(
        "webp_alpha", "x.webp", lambda: encoded(veiled, "WEBP", lossless=True), lambda: _over_white(veiled), within=1e-3
    )
    yield unreadable("webp_riff_of_nothing", "x.webp", lambda: b"RIFF\0\0\0\0WEBP")
    yield unreadable("webp_other_riff", "x.webp", lambda: b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28))
    yield unreadable("webp_chunk_of_4_gb", "x.webp", lambda: replaced(_whole("WEBP"), 16, b"\xfe\xff\xff\xff"))
    yield unreadable("webp_frame_missing", "x.webp", lambda: _animation("WEBP")[:60])
