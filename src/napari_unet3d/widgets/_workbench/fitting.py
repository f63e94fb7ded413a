"""Whether a model can be applied to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel


def fit_problem(model: TrainedModel, image: ImageChoice) -> str:
    """Why the model cannot be applied to the image, with what to do; empty if it can."""
    if image.channels != model.in_channels:
        channels = "1 channel" if image.channels == 1 else f"{image.channels} channels"
        return (
            f"{image.name} has {channels}, the model needs {model.in_channels}; choose another image, or set axes and "
            "channels"
        )
    if image.spatial_dims != model.spatial_dims:
        return (
            f"{image.name} is {image.spatial_dims}D, the model was trained on {model.spatial_dims}D images; choose "
            "another image, or set its axes"
        )
    return ""
