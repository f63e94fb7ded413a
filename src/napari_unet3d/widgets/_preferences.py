"""What the user set in napari's preferences. napari 0.9 and later keep it in a file of its own for each plugin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_PLUGIN: Final = "napari-unet3d"


@dataclass(frozen=True)
class Preferences:
    """The page "U-Net 3D" of napari's preferences; the defaults where there is none."""

    device: str = "auto"
    """Where networks run."""
    preview_rate: float = 2.0
    """Most live previews a second while training."""
    autosave_folder: str = ""
    """Where strokes, models and recipes are kept; empty: the user's data folder."""


def preferences() -> Preferences:
    """What is set now."""
    settings = _settings()
    if settings is None:
        return Preferences()
    return Preferences(
        device=str(settings.compute.device),
        preview_rate=float(settings.compute.preview_rate),
        autosave_folder=str(settings.autosave.folder),
    )


def follow_device(changed: Callable[[Any], None]) -> None:
    """Call a method, which is held weakly, when the user prefers another device."""
    settings = _settings()
    if settings is not None:
        settings.compute.events.device.connect(changed)


def _settings() -> Any:
    """Napari's settings of this plugin; None before napari 0.9 and where the plugin is switched off."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return None
    try:
        return get_plugin_settings(_PLUGIN)
    except KeyError:
        return None
