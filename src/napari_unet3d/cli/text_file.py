"""Small text results: there when complete, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

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
        raise _refusal(path, error) from None


def write_text(path: Path, text: str) -> None:
    """Write a text, atomically: an older file stays until the new one is complete.

    Raises
    ------
    FileError
        If it cannot be written, for example because the disk is full.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise _refusal(path, error) from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _refusal(path: Path, error: OSError) -> FileError:
    return FileError(f"{path} cannot be written ({error.strerror}); free some space or write elsewhere")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
