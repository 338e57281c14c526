"""Files of other kinds under an image's name: none is used, and each is called what it is."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from tests.zoo.cases import CANARY
from tests.zoo.specimens import Specimen, unreadable


class _Touch:
    """Unpickled, it creates the file that the canary's variable names."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f'touch "${CANARY}"',)


def _zip(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil.jpg"))
    return buffer.getvalue()


def _npy(array: object, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=allow_pickle)
    return buffer.getvalue()


def _box(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(200)


_CONTENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero_byte": (lambda: b"", "empty"),
    "one_byte": (lambda: b"\xff", ""),
    "only_zeros": (lambda: bytes(4096), "zero"),
    "text": (lambda: b"just some text\n", ""),
    "html404": (lambda: b"\xef\xbb\xbf\n<!DOCTYPE html><title>404 Not Found</title>", "HTML"),
    "html_comment": (lambda: b"<!-- a page --><HTML><body>sign in</body></HTML>", "HTML"),
    "gitlfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "json_error": (lambda: json.dumps({"error": "quota exceeded"}).encode(), "JSON"),
    "xml": (lambda: b'<?xml version="1.0"?><annotation><object/></annotation>', "XML"),
    "xml_of_a_bucket": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "SVG"),
    "svg_of_an_entity": (
        lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "/etc/passwd">]><svg>&x;</svg>', "SVG",
    ),
    "zip": (lambda: b"PK\5\6" + bytes(18), "ZIP"),
    "docx": (lambda: _zip({"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<w/>"}), "ZIP"),
    "gzip": (lambda: gzip.compress(b"x" * 1000), "gzip"),
    "gzip_bomb": (lambda: gzip.compress(bytes(50_000_000), 1), "gzip"),
    "tar": (_tar, "tar"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(60), "7z"),
    "rar": (lambda: b"Rar!\x1a\7\1\0" + bytes(60), "RAR"),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\n1 0 obj<</Type/Catalog>>endobj\ntrailer<<>>\n%%EOF", "PDF"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "PostScript"),
    "postscript_to_a_file": (lambda: b"%!PS\n(/tmp/evil) (w) file closefile\nshowpage\n", "PostScript"),
    "heic": (lambda: _box(b"heic"), "HEIC"),
    "heif_sequence": (lambda: _box(b"msf1"), "HEIC"),
    "avif": (lambda: _box(b"avif"), "AVIF"),
    "mp4": (lambda: _box(b"isom"), "video"),
    "webm": (lambda: b"\x1a\x45\xdf\xa3" + bytes(200), "video"),
    "avi": (lambda: b"RIFF" + struct.pack("<I", 200) + b"AVI LIST" + bytes(200), "video"),
    "jpeg_2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), "JPEG 2000"),
    "jpeg_2000_codestream": (lambda: b"\xff\x4f\xff\x51" + bytes(200), "JPEG 2000"),
    "jpeg_xl": (lambda: b"\xff\x0a" + bytes(200), "JPEG XL"),
    "jpeg_xl_box": (lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200), "JPEG XL"),
    "psd": (lambda: b"8BPS\0\1" + bytes(200), "Photoshop"),
    "ico": (lambda: b"\0\0\1\0\1\0\x10\x10" + bytes(200), ""),
    "ppm": (lambda: b"P6 4 4 255\n" + bytes(48), "PPM"),
    "dds": (lambda: b"DDS \x7c\0\0\0" + bytes(200), ""),
    "exr": (lambda: b"\x76\x2f\x31\x01" + bytes(200), "EXR"),
    "raf": (lambda: b"FUJIFILMCCD-RAW 0201" + bytes(200), ""),
    "dicom": (lambda: bytes(128) + b"DICM" + bytes(200), "DICOM"),
    "nifti": (lambda: struct.pack("<i", 348) + bytes(340) + b"n+1\0", "NIfTI"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF5"),
    "matlab": (lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100), "MATLAB"),
    "npy": (lambda: _npy(np.zeros((8, 8, 3), np.uint8)), "NumPy"),
    "npy_pickle": (lambda: _npy([_Touch(), None], allow_pickle=True), "NumPy"),
    "pickle": (lambda: pickle.dumps(_Touch(), 2), ""),
    "pickle_of_text": (lambda: pickle.dumps(_Touch(), 0), ""),
    "torch_archive": (lambda: _zip({"a/data.pkl": pickle.dumps(_Touch(), 2), "a/version": b"3\n"}), "ZIP"),
    "safetensors": (lambda: struct.pack("<Q", 2) + b"{}", ""),
    "sqlite": (lambda: b"SQLite format 3\0" + bytes(200), ""),
    "elf": (lambda: b"\x7fELF\2\1\1" + bytes(200), "program"),
    "exe": (lambda: b"MZ\x90\0" + bytes(200), "program"),
    "shell_script": (f'#!/bin/sh\ntouch "${CANARY}"\n'.encode, "program"),
    "python_code": (lambda: b"import os\nos.system('false')\n", ""),
    "yaml_tag": (f'!!python/object/apply:os.system [\'touch "${CANARY}"\']\n'.encode, ""),
    "csv": (lambda: b"path,label\na.jpg,cat\n", ""),
    "escapes": (lambda: b"\x1b]0;PWNED\x07\x1b[2J" * 20, ""),
    "utf16": (lambda: "a text".encode("utf-16"), ""),
    "base64_of_a_png": (lambda: b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", "base64"),
    "data_url": (lambda: b"data:image/png;base64,iVBORw0KGgo=", "base64"),
    "lnk": (lambda: b"L\0\0\0\1\x14\2\0" + bytes(100), ""),
    "apple_double": (lambda: b"\0\5\x16\7\0\2\0\0" + bytes(100), "macOS"),
    "thumbs_db": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), ""),
}  # fmt: skip


def specimens() -> Iterator[Specimen]:
    for name, (content, word) in _CONTENTS.items():
        yield unreadable(f"{name}_as_jpg", "x.jpg", content, *([word] if word else []))
    for suffix in ("png", "gif", "bmp", "tif", "webp", "jpeg"):
        yield unreadable(f"text_as_{suffix}", f"x.{suffix}", lambda: b"no image", "not a JPEG")
