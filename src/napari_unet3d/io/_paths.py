"""Names, places and the last step of writing: what a path must be, and how a result gets there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from napari_unet3d.engine.errors import FileError
from napari_unet3d.io._guard import writing
from napari_unet3d.io.ome_zarr import is_zarr

FORMATS: Final = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ome.zarr": "zarr",
    ".zarr": "zarr",
    ".npy": "npy",
}
"""Format of each suffix, longer suffixes before those they end in."""


def file_suffix(path: Path) -> str:
    """The known suffix of a file name, in lower case; empty if it has none."""
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def file_format(path: Path) -> str:
    """``nifti``, ``tiff``, ``zarr`` or ``npy``.

    Raises
    ------
    FileError
        If the suffix is not known.
    """
    suffix = file_suffix(path)
    if not suffix:
        raise FileError(f"{path} has none of the known suffixes: {', '.join(FORMATS)}")
    return FORMATS[suffix]


def check_output(
    path: str | os.PathLike[str], *, overwrite: bool = True, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """Make sure, before any work, that a result can be written.

    Parameters
    ----------
    path
        The result. Its folder is never made.
    overwrite
        Whether an older result may be replaced.
    inputs
        Files that must survive.

    Returns
    -------
    Path
        `path`, links followed.

    Raises
    ------
    FileError
        If the suffix is unknown, the folder is missing or not writable, or something that must stay is there.
    """
    given, path = Path(path), Path(path).resolve()
    is_folder_format = file_format(given) == "zarr"
    if not path.parent.is_dir():
        raise FileError(f"the folder {path.parent} does not exist; make it first, or write {given.name} elsewhere")
    for entry in inputs:
        source = Path(entry).resolve()
        if path == source or path in source.parents:
            raise FileError(f"{given} would replace the input {entry}; choose another output")
    if path.exists():
        if not overwrite:
            raise FileError(f"{given} exists already; remove it or choose another output")
        if path.is_dir() != is_folder_format:
            kind, needed = ("folder", "file") if path.is_dir() else ("file", "folder")
            raise FileError(f"{given} is a {kind}, but this format is a {needed}; choose another output")
        if is_folder_format and any(path.iterdir()) and not is_zarr(path):
            raise FileError(f"{given} is a folder with something else in it; choose another output")
        if not os.access(path, os.W_OK):
            raise FileError(f"{given} is write-protected; change its permissions or choose another output")
    probe = temporary_beside(path, "")
    with writing(given):
        probe.touch()
        probe.unlink()
    return path


def is_supported_output(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix is one that can be written."""
    return bool(file_suffix(Path(path)))


def temporary_beside(path: Path, suffix: str) -> Path:
    """A new hidden name in the same folder."""
    return path.with_name(f".unet3d-{secrets.token_hex(6)}.tmp{suffix}")


def reserve(path: Path) -> None:
    """Claim the disk space of a file with holes.

    Writing to a memory map of such a file on a full disk would end the process.
    """
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return
        while piece := file.read(2**24):  # holes read as zeros
            file.seek(-len(piece), os.SEEK_CUR)
            file.write(piece)


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name, in place of an older one of the same kind."""
    if not path.is_dir():
        temporary.replace(path)
        return
    # a folder cannot be replaced in one step: keep the old one until the new one is there
    old = temporary_beside(path, ".old")
    path.replace(old)
    try:
        temporary.replace(path)
    except BaseException:
        old.replace(path)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
