"""Reading entries of a ZIP archive that anybody may have made.

Nothing is unpacked to disk, and nothing is read whose size was not checked before.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from napari_unet3d.engine.errors import ModelFileError

_MOST_ENTRIES: Final = 5000
_HIGHEST_RATIO: Final = 100
"""Weights and pictures hardly get smaller by compression; what gets a hundred times smaller is no model."""


class SafeZip:
    """The entries of an open archive, looked over.

    Parameters
    ----------
    path
        Of the archive, for messages.
    archive
        The archive.

    Raises
    ------
    ModelFileError
        If an entry climbs out of the folder, is a link, is encrypted, grows too much or is there twice, or there are
        too many.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        entries = archive.infolist()
        _check(path, entries)
        self._path = path
        self._archive = archive
        self._entries = {entry.filename: entry for entry in entries}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all entries, with ``/`` between folders."""
        return tuple(self._entries)

    def read(self, name: str, largest: int) -> bytes:
        """The content of an entry that has at most `largest` bytes.

        Raises
        ------
        ModelFileError
            If there is none of that name, or it is larger.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ModelFileError(f"{self._path} holds no {name}: it was not written by napari-unet3d, or is damaged")
        if entry.file_size > largest:
            raise ModelFileError(
                f"{name} in {self._path} says it has {entry.file_size:,} bytes; at most {largest:,} are read"
            )
        with self._archive.open(entry) as file:
            return file.read(entry.file_size)


@contextmanager
def opened_zip(path: Path) -> Iterator[SafeZip]:
    """An archive for reading; the troubles of `zipfile` are told in one line.

    Raises
    ------
    ModelFileError
        If it is missing, damaged, or not to be trusted (see `SafeZip`).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield SafeZip(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise ModelFileError(f"{path} is no exported model, or is damaged ({line}); copy it again") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > _MOST_ENTRIES:
        raise ModelFileError(f"{path} has {len(entries):,} entries; an exported model has at most {_MOST_ENTRIES:,}")
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise ModelFileError(f"{path} holds two entries of the same name; it is not to be trusted")
    for entry in entries:
        # orig_filename: zipfile cuts names at a NUL and changes separators
        trouble = _trouble(entry.orig_filename, entry)
        if trouble:
            raise ModelFileError(f"{path} holds the entry {entry.orig_filename!r:.100}, which {trouble}; it is refused")


def _trouble(name: str, entry: zipfile.ZipInfo) -> str | None:
    """What is wrong with an entry, if anything."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in name:
        return "climbs out of its folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.file_size > _HIGHEST_RATIO * max(entry.compress_size, 1024):
        return f"would grow from {entry.compress_size:,} to {entry.file_size:,} bytes"
    return None
