"""A piece of an image to try an exported model on: to check it, to describe it and to show it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.engine.errors import ExportError
from napari_unet3d.engine.heads import Head, class_logits
from napari_unet3d.engine.prediction_io import Predictable, check_image
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume
from napari_unet3d.exports.grey_network import sample_shape, synthetic_grey

LEAST_AGREEMENT: Final = 0.999
"""Share of the voxels that an exported model must label as the model itself does."""


def sample_grey(model: TrainedModel, image: Volume | None) -> NDArray[Any]:
    """C Z Y X grey values of a small legal size: the middle of `image`, or an invented pattern.

    Where the image is smaller, it is mirrored.

    Raises
    ------
    DataError
        If the image has not the model's channels or dimensions.
    """
    shape = sample_shape(model.recipe.network)
    if image is None:
        return synthetic_grey(model.normalization, shape)
    check_image(model, image)
    z, y, x = (_middle(size, wanted) for size, wanted in zip(image.shape, shape, strict=True))
    part = image.read((z, y, x))
    missing = [(0, wanted - size) for size, wanted in zip(part.shape[1:], shape, strict=True)]
    return np.pad(part, [(0, 0), *missing], mode="symmetric")


def scores_of(model: Predictable, grey: NDArray[Any]) -> NDArray[np.float32]:
    """Logits K Z Y X in float32 for C Z Y X grey values of a legal size, in one piece."""
    image = torch.from_numpy(model.normalization.apply(grey))[None]
    with torch.inference_mode():
        logits: NDArray[np.float32] = model.network(image)[0].numpy()
    return logits


def classes_of(logits: NDArray[np.float32], head: Head) -> NDArray[np.intp]:
    """Z Y X class indices for the K Z Y X output of a network."""
    classes: NDArray[np.intp] = class_logits(torch.from_numpy(logits), head).argmax(0).numpy()
    return classes


def check_same(model: TrainedModel, exported: Predictable, grey: NDArray[Any]) -> float:
    """Share of the voxels of C Z Y X grey values that both models label alike.

    Raises
    ------
    ExportError
        If it is below `LEAST_AGREEMENT`.
    """
    head = model.recipe.network.head
    own, other = (classes_of(scores_of(one, grey), head) for one in (model, exported))
    same = float(np.mean(own == other))
    if same < LEAST_AGREEMENT:
        raise ExportError(
            f"the exported model labels only {same:.2%} of the voxels as the model does: its grey values are too far "
            "from 0, or too close together, for the float32 of the format; train on rescaled grey values"
        )
    return same


def _middle(size: int, wanted: int) -> slice:
    start = max(0, (size - wanted) // 2)
    return slice(start, min(size, start + wanted))
