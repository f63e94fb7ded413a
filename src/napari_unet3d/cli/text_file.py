"""Small text results: there when complete, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from napari_unet3d.engine.atomic_file import write_atomically
from napari_unet3d.engine.errors import FileError


def check_text_output(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Make sure, before any work, that a text can be written.

    Raises
    ------
    FileError
        If the folder is missing or not writable, or the path is a folder or one of the inputs.
    """
    if not path.parent.is_dir():
        raise FileError(f"the folder {path.parent} does not exist; make it first, or write {path.name} elsewhere")
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file")
    if path.resolve() in {source.resolve() for source in inputs}:
        raise FileError(f"{path} would replace an input; choose another output")
    try:  # permission bits say little on network and read-only file systems
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror}); free some space or write elsewhere") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; see `write_atomically`."""
    write_atomically(path, text.encode())
