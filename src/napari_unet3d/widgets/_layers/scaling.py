"""A voxel size given to layers that have none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.widgets._layers.geometry import new_axes
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.layers import Layer


def set_voxel_size(choice: ImageChoice, over: Iterable[Layer]) -> None:
    """Scale the layers of an image by the voxel size that its file tells, and layers that lie over it likewise.

    Parameters
    ----------
    choice
        With a `told_size`.
    over
        Layers that were made over the image; those with axes of their own stay as they are.
    """
    size = choice.voxel_size
    edges = dict(zip("ZYX", size.zyx, strict=True))
    for layer in choice.layers:
        _scale(layer, choice.layer_axes, edges, size.unit)
    for layer in over:
        for with_time in (True, False):
            axes = "".join(new_axes(choice, with_time=with_time))
            if layer.ndim == len(axes):
                _scale(layer, axes, edges, size.unit)
                break


def _scale(layer: Layer, axes: str, edges: dict[str, float], unit: str) -> None:
    layer.scale = np.array([edges.get(axis, 1.0) * old for axis, old in zip(axes, layer.scale, strict=True)])
    layer.units = tuple(unit if axis in edges else old for axis, old in zip(axes, layer.units, strict=True))
