"""Reading one entry of a ZIP archive that anybody may have made.

Nothing is unpacked to disk, and nothing is read whose size was not checked before.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from napari_unet3d.engine.errors import ModelFileError

_MOST_ENTRIES: Final = 1000
_HIGHEST_RATIO: Final = 100
"""Weights and pictures hardly get smaller by compression; what gets a hundred times smaller is no model."""


def read_entry(path: Path, name: str, largest: int) -> bytes:
    """The content of the entry `name` of the archive `path`.

    Parameters
    ----------
    path
        The archive.
    name
        The entry, at the top of the archive.
    largest
        Bytes that it may have.

    Raises
    ------
    ModelFileError
        If the archive is damaged, has no such entry, an entry that climbs out of the folder, is a link, is encrypted
        or there twice, too many entries, or entries that are too large or grow too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check(path, entries)
            wanted = [entry for entry in entries if entry.filename == name]
            if not wanted:
                raise ModelFileError(f"{path} holds no {name}: it was not written by napari-unet3d")
            if wanted[0].file_size > largest:
                raise ModelFileError(
                    f"{name} in {path} says it has {wanted[0].file_size:,} bytes; at most {largest:,} are read"
                )
            with archive.open(wanted[0]) as file:
                return file.read(wanted[0].file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} is no bioimage.io package, or is damaged ({error}); copy it again") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > _MOST_ENTRIES:
        raise ModelFileError(f"{path} has {len(entries):,} entries; a package of this program has fewer than 20")
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
