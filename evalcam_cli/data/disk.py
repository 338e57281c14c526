"""What lies in a data folder: names exactly as on disk, no link followed, nothing but regular files used."""

import os
import posixpath
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from evalcam_cli.errors import DataError
from evalcam_cli.text import shown

FILE, FOLDER, LINK, OTHER, HIDDEN = "file", "a folder", "a symbolic link", "not a regular file", "hidden"


def nfc(text: str) -> str:
    """The composed form of a name: what macOS, Linux and Windows agree on."""
    return unicodedata.normalize("NFC", text)


def entries(folder: Path) -> dict[str, str]:
    """Kind of everything in a folder by name, sorted by name.

    Raises:
        DataError: The folder cannot be listed: a class must not vanish for that.
    """
    found = _kinds(folder)
    return {name: found[name] for name in sorted(found)}


def _kinds(folder: Path) -> dict[str, str]:
    try:
        with os.scandir(folder) as found:
            return {entry.name: _kind(entry) for entry in found}
    except OSError as error:
        raise DataError(f"cannot list the folder {shown(folder.absolute())}: {error.strerror}") from error


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return LINK
    if entry.is_dir(follow_symlinks=False):
        return FOLDER
    return FILE if entry.is_file(follow_symlinks=False) else OTHER


def walk(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(path, kind) of everything but folders and what is in hidden ones, at any depth; paths begin with the prefix."""
    pending = [(folder, prefix)]
    while pending:
        here, start = pending.pop()
        for name, kind in entries(here).items():
            if name.startswith("."):
                yield start + name, HIDDEN
            elif kind == FOLDER:
                pending.append((here / name, f"{start}{name}/"))
            else:
                yield start + name, kind


def inside(path: str) -> str | None:
    """The path without `.` and `..`, or None when it leaves the folder it is relative to."""
    if "\0" in path or path.startswith("/") or "://" in path or _starts_elsewhere(path):
        return None
    tidy = posixpath.normpath(path)
    return None if tidy == ".." or tidy.startswith("../") else tidy


def _starts_elsewhere(path: str) -> bool:
    drive, rest = os.path.splitdrive(path)
    return bool(drive) or rest.startswith(os.sep)


class DiskIndex:
    """Finds the files that tables name; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, dict[str, str]] = {}
        self._composed: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> tuple[str, str]:
        """The path as spelled on disk and the kind of what is there; an empty kind when nothing is.

        A name that is absent stands for the one with an equal NFC form.
        """
        folder = ""
        *parents, name = path.split("/")
        for parent in parents:
            spelled, kind = self._look(folder, parent)
            if kind != FOLDER:
                return path, kind if kind == LINK else ""
            folder += spelled + "/"
        spelled, kind = self._look(folder, name)
        return folder + spelled, kind

    def _look(self, folder: str, name: str) -> tuple[str, str]:
        if folder not in self._folders:
            self._folders[folder] = _kinds(self._root / folder)
        names = self._folders[folder]
        if name in names:
            return name, names[name]
        if folder not in self._composed:
            self._composed[folder] = {nfc(other): other for other in sorted(names)}
        spelled = self._composed[folder].get(nfc(name))
        return (spelled, names[spelled]) if spelled is not None else (name, "")
