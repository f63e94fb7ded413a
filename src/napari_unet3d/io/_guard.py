"""One place where the exceptions and the chatter of file libraries end."""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from napari_unet3d.engine.errors import FileError, UNet3dError

_CHATTY: Final = ("tifffile", "nibabel.global")
_DAMAGE: Final = (
    "failed to read",
    "invalid page offset",
    "invalid value offset",
    "metadata invalid or corrupted",
    "Missing data are zeroed",
)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what the file libraries warn and log to themselves; gives the list of what they logged.

    For opening and closing files only: the warning filters belong to all threads, so blocks that are read or
    written meanwhile must not change them.
    """
    logged: list[str] = []

    def drop(record: logging.LogRecord) -> bool:
        logged.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in _CHATTY]
    # a filter of our own, not `disabled`: two threads may be in here at once
    for logger in loggers:
        logger.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield logged
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a library raises while it reads into an error for the user.

    Raises
    ------
    FileError
        If the file cannot be opened or decoded; one line that names the file.
    """
    try:
        yield
    except UNet3dError:
        raise
    except PermissionError as error:
        raise FileError(f"{path} may not be read: permission denied; change its permissions") from error
    except MemoryError as error:
        raise FileError(
            f"{path} does not fit into memory; save it as .zarr, or uncompressed, so that it is read in parts"
        ) from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise FileError(
            f"{path} cannot be read ({_first_line(error)}); it is damaged, incomplete or of another format: "
            "save it again in the format of its suffix"
        ) from error


def check_complete(path: Path, logged: Iterable[str]) -> None:
    """Refuse a file of which a library read, as its log shows, only a part.

    Raises
    ------
    FileError
        If a part is missing.
    """
    if any(sign in message for message in logged for sign in _DAMAGE):
        raise FileError(f"{path} is damaged or incomplete: a part of it is missing; copy or save it again")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a library raises while it writes into an error for the user.

    Raises
    ------
    FileError
        If the disk is full or the file system refuses; one line that names the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise FileError(f"no space left on the disk of {path}; free some or write elsewhere") from error
        raise FileError(f"{path} cannot be written ({_first_line(error)}); write elsewhere") from error


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    lines = text.strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
