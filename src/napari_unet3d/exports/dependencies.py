"""Packages that only exporting needs: fetched when wanted, their chatter kept to themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Final

from napari_unet3d.engine.errors import ExportError

_EXTRA: Final = {
    "google": "onnx",  # protobuf
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "bioimageio": "bioimageio",
    "PIL": "bioimageio",
}
_CHATTY: Final = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "bioimageio")


def require(name: str, purpose: str) -> ModuleType:
    """The module `name`.

    Parameters
    ----------
    name
        Full name of a module, such as ``onnxruntime.quantization``.
    purpose
        What it is needed for, as the beginning of a sentence: "exporting to ONNX".

    Raises
    ------
    ExportError
        If it is not installed; the message holds the command that does.
    """
    package = name.partition(".")[0]
    try:
        with quiet_libraries():
            return import_module(name)
    except ImportError:
        extra = _EXTRA[package]
        raise ExportError(
            f'{purpose} needs the package {package}; install it with: pip install "napari-unet3d[{extra}]"'
        ) from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep warnings about the libraries' own code, and log records below errors, from the user.

    For the short moments of exporting only: the warning filters belong to all threads.
    """
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
