"""Opening napari on the results, in a process of its own, where there is a display."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_BINDINGS: Final = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_WITHOUT_WINDOWS: Final = ("offscreen", "minimal", "vnc")


def view_command(folder: Path) -> list[str]:
    """Arguments of the process that shows the results in `folder`."""
    return [sys.executable, "-m", "napari_unet3d.demo.view", str(folder)]


def has_display(environment: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether windows can be shown."""
    if environment.get("QT_QPA_PLATFORM", "").partition(":")[0] in _WITHOUT_WINDOWS:
        return False
    if platform in ("win32", "darwin"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def has_napari() -> bool:
    """Whether napari and a Qt binding are installed; imports neither."""
    return importlib.util.find_spec("napari") is not None and any(
        importlib.util.find_spec(name) is not None for name in _BINDINGS
    )


def _launch(command: Sequence[str]) -> None:
    subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def open_viewer(
    folder: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    launch: Callable[[Sequence[str]], None] = _launch,
) -> str:
    """Open napari on the results if there is a display.

    Parameters
    ----------
    folder
        Of the results.
    environment
        Where the display is named.
    launch
        Starts the process and returns at once.

    Returns
    -------
    str
        What happened, for the user.
    """
    command = view_command(folder)
    typed = " ".join(["python", *command[1:]])
    if not has_display(environment):
        return f"no display, so napari stays closed; on a machine with one: {typed}"
    if not has_napari():
        return f'napari or a Qt binding is missing; pip install "napari-unet3d[all]", then {typed}'
    launch(command)
    return f"napari opens on the results; to open them again: {typed}"
