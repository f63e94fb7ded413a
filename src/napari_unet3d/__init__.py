"""From a few painted slices to a whole labelled volume.

The public names below are imported on first use, so that importing the package costs nothing: it loads
neither torch nor Qt nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet3d.api import distill, evaluate, predict, suggest, train, train_events
    from napari_unet3d.engine.config import DistillConfig, PredictConfig, TrainConfig, UNet3PlusConfig, UNetConfig
    from napari_unet3d.engine.model_file import load_model
    from napari_unet3d.engine.networks.build import build_network
    from napari_unet3d.engine.networks.presets import network_config, network_presets

__all__ = [
    "DistillConfig",
    "PredictConfig",
    "TrainConfig",
    "UNet3PlusConfig",
    "UNetConfig",
    "build_network",
    "distill",
    "evaluate",
    "load_model",
    "network_config",
    "network_presets",
    "predict",
    "suggest",
    "train",
    "train_events",
]

_HOME = {
    "DistillConfig": "engine.config",
    "PredictConfig": "engine.config",
    "TrainConfig": "engine.config",
    "UNet3PlusConfig": "engine.config",
    "UNetConfig": "engine.config",
    "build_network": "engine.networks.build",
    "distill": "api",
    "evaluate": "api",
    "load_model": "engine.model_file",
    "network_config": "engine.networks.presets",
    "network_presets": "engine.networks.presets",
    "predict": "api",
    "suggest": "api",
    "train": "api",
    "train_events": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
