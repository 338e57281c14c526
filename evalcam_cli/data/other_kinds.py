"""What stands under an image's name when it is no image: told by its first bytes, and what to do about it."""

_CONVERT = "which is not supported; convert it to JPEG or PNG"
_AGAIN = "instead of an image; download it again"
_SIGNATURES = (  # place, bytes, what it is; the first that fits counts
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the image; run `git lfs pull`"),
    *((4, b"ftyp" + brand, f"AVIF, {_CONVERT}") for brand in (b"avi",)),
    *((4, b"ftyp" + brand, f"HEIC, {_CONVERT}") for brand in (b"hei", b"hev", b"mif", b"msf")),
    *((0, sign, "a video, not an image") for sign in (b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"OggS", b"FLV")),
    (4, b"ftyp", "a video, not an image"),
    (8, b"AVI ", "a video, not an image"),
    *((0, sign, f"JPEG 2000, {_CONVERT}") for sign in (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    *((0, sign, f"JPEG XL, {_CONVERT}") for sign in (b"\0\0\0\x0cJXL ", b"\xff\x0a")),
    (0, b"8BPS", f"a Photoshop file, {_CONVERT}"),
    (0, b"\x76\x2f\x31\x01", f"OpenEXR, {_CONVERT}"),
    *(
        (0, b"P" + digit + space, f"PPM or PGM, {_CONVERT}")
        for digit in (b"1", b"2", b"3", b"4", b"5", b"6")
        for space in (b"\n", b" ")
    ),
    (128, b"DICM", f"DICOM, {_CONVERT} (choosing the window)"),
    (344, b"n+1\0", f"NIfTI, {_CONVERT}, slice by slice"),
    (0, b"\x89HDF", "HDF5, not an image"),
    (0, b"MATLAB 5.0", "a MATLAB file, not an image"),
    (0, b"\x93NUMPY", "a NumPy array, not an image; save it as PNG"),
    (0, b"%PDF", "a PDF, not an image; export its pictures"),
    (0, b"%!PS", "PostScript, not an image; convert it to PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript, not an image; convert it to PNG"),
    *((0, sign, "a ZIP archive, not an image; unpack it") for sign in (b"PK\3\4", b"PK\5\6")),
    (0, b"\x1f\x8b", "gzip, not an image; unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive, not an image; unpack it"),
    (0, b"Rar!", "a RAR archive, not an image; unpack it"),
    (257, b"ustar", "a tar archive, not an image; unpack it"),
    *((0, sign, "a program, not an image") for sign in (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe")),
    (0, b"\0\5\x16\7", "what macOS keeps beside a file, not an image; remove it"),
)
_TEXTS = {  # how a text begins, without blanks and in small letters; of those with `<`, what is in its first 4 KB
    b"<svg": f"SVG, {_CONVERT}",
    b"<!doctype html": f"an HTML page {_AGAIN}",
    b"<html": f"an HTML page {_AGAIN}",
    b"<head": f"an HTML page {_AGAIN}",
    b"<?xml": "XML, not an image",
    b"{": f"JSON {_AGAIN}",
    b"data:image/": "base64 text of an image; decode it",
    b"ivborw0kgg": "base64 text of an image; decode it",
    b"/9j/": "base64 text of an image; decode it",
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")


def what_instead(start: bytes) -> str:
    """What a file seems to be that no decoder of the six formats took, by its first 4 KB."""
    if not start:
        return "the file is empty"
    if not start.strip(b"\0"):
        return "nothing but zero bytes; copy or download it again"
    if start.startswith(_MAGIC) and start[8:11] != b"AVI":
        return "damaged (its header makes no sense)"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kinds = [name for place, sign, name in _SIGNATURES if start.startswith(sign, place)]
    kinds += [
        name
        for sign, name in _TEXTS.items()
        if text.startswith(b"<" if sign.startswith(b"<") else sign) and sign in text
    ]
    return kinds[0] if kinds else "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"
