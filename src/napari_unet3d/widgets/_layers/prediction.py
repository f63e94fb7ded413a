"""Layers that show results. They lie exactly over the image and carry the names and colours of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Box
from napari_unet3d.widgets._layers.classes import ClassLike, apply_classes, dtype_for
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

PROVENANCE_KEY: Final = "napari_unet3d_provenance"
"""Of a result layer's metadata: how it came about."""

_OPACITY: Final = 0.4


def add_prediction(
    viewer: ViewerModel,
    choice: ImageChoice,
    classes: Sequence[ClassLike],
    name: str,
    *,
    data: NDArray[Any] | None = None,
    with_time: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> Labels:
    """Add a labels layer for a prediction; what is selected stays selected.

    Parameters
    ----------
    viewer, choice, classes
        Where, over which image, in which colours.
    name
        napari makes it unique.
    data
        Predicted ids: Z Y X, T Z Y X for an image over time, or the layer's own shape (``Frame.new``). Shown as
        they are, not copied, so what is written into the array later is shown after `refresh`. By default
        zeros, uint8 or uint16.
    with_time
        Whether the layer has a value for each time point.
    provenance
        Plain values that say how the prediction came about; kept in the layer's metadata.

    Raises
    ------
    DataError
        If `data` has another shape.
    """
    from napari.layers import Labels

    layer = Labels(
        _fitting(data, choice, dtype_for(classes), with_time),
        name=name,
        opacity=_OPACITY,
        **_arguments(choice, with_time, provenance),
    )
    apply_classes(layer, classes)
    return add_quietly(viewer, layer)


def add_values(
    viewer: ViewerModel,
    choice: ImageChoice,
    name: str,
    *,
    data: NDArray[np.floating[Any]] | None = None,
    colormap: str = "viridis",
    with_time: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> Image:
    """Add an image layer for probabilities or uncertainty, 0..1; what is selected stays selected.

    Parameters
    ----------
    viewer, choice, name, data, with_time, provenance
        As in `add_prediction`; by default zeros, float16.
    colormap
        A colormap of napari.

    Raises
    ------
    DataError
        If `data` has another shape.
    """
    from napari.layers import Image

    layer = Image(
        _fitting(data, choice, np.float16, with_time),
        name=name,
        colormap=colormap,
        contrast_limits=(0.0, 1.0),
        blending="additive",
        **_arguments(choice, with_time, provenance),
    )
    return add_quietly(viewer, layer)


def add_quietly(viewer: ViewerModel, layer: Layer) -> Any:
    """Add a layer and leave the selection, and with it the brush in the user's hand, as it was."""
    selected, active = set(viewer.layers.selection), viewer.layers.selection.active
    added: Any = viewer.add_layer(layer)
    viewer.layers.selection.clear()
    viewer.layers.selection.update(selected)
    viewer.layers.selection.active = active
    return added


def show_plane(
    layer: Labels | Image, choice: ImageChoice, axis: int, index: int, values: NDArray[Any], t: int = 0
) -> None:
    """Write one plane into a result layer's array, in place; call `refresh` afterwards.

    Parameters
    ----------
    layer
        Made by `add_prediction` or `add_values`.
    choice
        Its image.
    axis, index, t
        The plane: `index` along `axis` (0 = Z, 1 = Y, 2 = X) at a time point.
    values
        The plane, its axes in the order Z, Y, X.
    """
    frame = Frame.of(layer, choice, any_time=True)
    layer.data[frame.plane(axis, index, t)] = frame.from_zyx(np.expand_dims(values, axis))


def write_box(layer: Labels | Image, choice: ImageChoice, box: Box, values: NDArray[Any], t: int = 0) -> None:
    """Write a Z Y X block into a result layer's array, in place; call `refresh` afterwards.

    May be called in any thread for NumPy arrays.
    """
    frame = Frame.of(layer, choice, any_time=True)
    layer.data[frame.region(box, t)] = frame.from_zyx(values)


def refresh(layer: Layer) -> None:
    """Show what was written into a layer's array; on the thread of the window only."""
    layer.refresh(extent=False, thumbnail=False)


def _arguments(choice: ImageChoice, with_time: bool, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    arguments = geometry_of(choice, with_time=with_time)
    if provenance is not None:
        arguments["metadata"][PROVENANCE_KEY] = dict(provenance)
    return arguments


def _fitting(data: NDArray[Any] | None, choice: ImageChoice, dtype: DTypeLike, with_time: bool) -> NDArray[Any]:
    """`data` with the axes of a layer over the image; zeros without."""
    frame = Frame.new(choice, with_time=with_time)
    if data is None:
        return np.zeros(frame.shape, dtype)
    if data.shape == frame.shape:
        return data
    if data.shape == choice.spatial_shape and frame.time_points == 1:
        return frame.from_zyx(data)
    if "T" in frame.axes and data.shape == (frame.time_points, *choice.spatial_shape):
        return frame.from_tzyx(data)
    raise DataError(f"the result has shape {data.shape}; a layer over {choice.name!r} needs {frame.shape}")
