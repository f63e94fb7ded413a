"""Files that appear complete, in place of an older one, or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from napari_unet3d.engine.errors import FileError


def check_writable(path: Path) -> None:
    """Make sure, before any work, that a file can be written there.

    Raises
    ------
    FileError
        If `path` is a folder, or its folder does not exist or cannot be written to.
    """
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileError(f"the folder {path.parent} does not exist; make it first or give another --out")
    try:  # permission bits say little on network and read-only file systems
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileError(
            f"the folder {path.parent} cannot be written to ({error.strerror}); give another --out"
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file; an older one stays until the new one is complete.

    Raises
    ------
    FileError
        If it cannot be written, for example because the disk is full.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{path} cannot be written ({reason}); free some space or write elsewhere") from None
    finally:
        if temporary is not None:
            with suppress(OSError):  # gone where it became the file
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
