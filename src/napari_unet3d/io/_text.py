"""Text files that are there only when complete."""

from __future__ import annotations

import os
from pathlib import Path

from napari_unet3d.engine.atomic_file import write_atomically
from napari_unet3d.engine.errors import FileError


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text, in place of an older file in one step.

    Raises
    ------
    FileError
        If the folder is missing, the path is a folder, or the disk is full; an older file is left as it was.
    """
    return write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """As `write_text`, for bytes."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileError(f"the folder {path.parent} does not exist; make it first, or write {path.name} elsewhere")
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file")
    write_atomically(path, content)
    return path
