"""The layer a user paints in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import NOT_ANNOTATED, LazyArray
from napari_unet3d.widgets._layers.boxes import NdBox
from napari_unet3d.widgets._layers.classes import ClassLike, apply_classes, dtype_for
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

NAME: Final = "annotation"
OWN_KEY: Final = "napari_unet3d_annotation"
"""Of the metadata of annotation layers that were made here, so that their colours may follow the classes."""

_OPACITY: Final = 0.6
_VOXELS_AT_ONCE: Final = 1 << 22


def new_annotation(
    viewer: ViewerModel,
    choice: ImageChoice,
    classes: Sequence[ClassLike],
    labels: NDArray[np.unsignedinteger] | None = None,
) -> Labels:
    """Add an annotation layer over the image, ready to paint the first structure.

    The first structure is the second class, for the first is the background; with one class it is that one.

    Parameters
    ----------
    viewer, choice, classes
        Where, over which image, in which colours.
    labels
        What is painted in it already: Z Y X, for several time points T Z Y X; not kept. By default nothing.

    Raises
    ------
    DataError
        If a class id does not fit into 16 bits, or the labels do not have the shape of the image.
    """
    from napari.layers import Labels

    data = np.zeros(Frame.new(choice).shape, dtype_for(classes))
    if labels is not None:
        data = _filled(data.dtype, labels, choice)
    layer = Labels(data, name=NAME, opacity=_OPACITY, **geometry_of(choice))
    layer.metadata[OWN_KEY] = True
    apply_classes(layer, classes)
    added: Labels = viewer.add_layer(layer)
    viewer.layers.selection.active = added
    if classes:
        added.selected_label = classes[min(1, len(classes) - 1)].id
    added.mode = "paint"
    return added


def _filled(dtype: np.dtype[Any], labels: NDArray[np.unsignedinteger], choice: ImageChoice) -> NDArray[Any]:
    """A layer's array with `labels` in it, as wide as their ids need."""
    shape = choice.spatial_shape if choice.time_points == 1 else (choice.time_points, *choice.spatial_shape)
    if labels.shape != shape:
        raise DataError(f"the labels have shape {labels.shape} but {choice.name!r} needs {shape}")
    wide = np.result_type(dtype, np.uint16 if labels.max(initial=0) > 255 else np.uint8)
    return np.array(Frame.new(choice).from_tzyx(labels.reshape(-1, *choice.spatial_shape)), wide, order="C")


def annotation_problem(layer: Labels | None, choice: ImageChoice) -> str | None:
    """Why `layer` cannot serve as the annotation of the image, and what to do; None if it can.

    Looks at shape and type only, not at the voxels.
    """
    from napari.layers import Labels

    if layer is None:
        return "no annotation layer is chosen; click New annotation layer"
    if not isinstance(layer, Labels):
        return f"{layer.name!r} is a {type(layer).__name__} layer; choose a labels layer or make a new annotation layer"
    if layer.multiscale:
        return (
            f"{layer.name!r} has several resolution levels, which napari cannot paint on; make a new annotation layer"
        )
    if np.dtype(layer.data.dtype).kind not in "biu":
        return f"{layer.name!r} holds {layer.data.dtype}; labels need whole numbers. Make a new annotation layer"
    try:
        frame = Frame.of(layer, choice)
    except DataError as error:
        return str(error)
    if frame.time_points < choice.time_points:
        return f"{layer.name!r} has no time axis but {choice.name!r} has one; make a new annotation layer"
    return None


def spatial_view(layer: Labels | NDArray[Any], choice: ImageChoice, t: int = 0) -> NDArray[Any]:
    """Z Y X labels at one time point; a view of NumPy data, a copy of data of another kind.

    Raises
    ------
    DataError
        If the shape is not that of the image.
    """
    frame = Frame.of(layer, choice)
    data = layer if isinstance(layer, np.ndarray) else layer.data
    whole = tuple(slice(0, n) for n in choice.spatial_shape)
    part = np.asarray(data[frame.region((whole[0], whole[1], whole[2]), t)])
    return frame.view(part)


def is_own(layer: Labels | None) -> bool:
    """Whether the layer was made by `new_annotation`; others keep the colours and names that the user gave them."""
    return layer is not None and bool(layer.metadata.get(OWN_KEY, False))


def label_ids(data: LazyArray) -> tuple[int, ...]:
    """Ids that occur in the data of a layer, ascending, 0 among them. Reads everything: for a worker."""
    ids = {int(i) for block in _blocks(data) for i in np.unique(block)}
    return tuple(sorted(ids))


def annotated_time_points(layer: Labels, choice: ImageChoice) -> tuple[int, ...]:
    """Time points with at least one voxel that is not 0. Reads everything: for a worker."""
    return tuple(t for t in range(choice.time_points) if spatial_view(layer, choice, t).any())


def complete_slice(
    layer: Labels,
    choice: ImageChoice,
    axis: int,
    index: int,
    t: int = 0,
    *,
    background_id: int = 1,
    not_annotated: int = NOT_ANNOTATED,
) -> int:
    """Paint what is not annotated in one plane with the background, as one action that napari's undo takes back.

    Parameters
    ----------
    layer
        The annotation.
    choice
        Its image.
    axis, index, t
        The plane: `index` along `axis` (0 = Z, 1 = Y, 2 = X) at a time point.
    background_id
        What to paint.
    not_annotated
        Id that means "not annotated" beside 0.

    Returns
    -------
    int
        How many voxels were painted.
    """
    region = Frame.of(layer, choice).plane(axis, index, t)
    empty = np.isin(np.asarray(layer.data[region]), (NOT_ANNOTATED, not_annotated))
    return _paint(layer, region, empty, background_id)


def copy_slice(
    labels: NDArray[Any],
    layer: Labels,
    choice: ImageChoice,
    axis: int,
    index: int,
    t: int = 0,
    *,
    overwrite: bool = False,
    not_annotated: int = NOT_ANNOTATED,
) -> int:
    """Copy a predicted plane into the annotation, as one action that napari's undo takes back.

    Parameters
    ----------
    labels
        Label ids of the plane, its two axes in the order Z, Y, X; 0 is copied nowhere.
    layer
        The annotation.
    choice
        Its image.
    axis, index, t
        As in `complete_slice`.
    overwrite
        Also where the user has painted; by default their strokes stay.
    not_annotated
        Id of the annotation that means "not annotated" beside 0.

    Returns
    -------
    int
        How many voxels were painted.

    Raises
    ------
    DataError
        If the plane has another shape, or an id does not fit into the layer.
    """
    frame = Frame.of(layer, choice)
    region = frame.plane(axis, index, t)
    plane = np.expand_dims(labels, axis)
    needed = tuple(1 if i == axis else n for i, n in enumerate(choice.spatial_shape))
    if plane.shape != needed:
        raise DataError(f"the predicted slice has shape {labels.shape}; the annotation needs {needed} (Z Y X)")
    limit = np.iinfo(layer.data.dtype).max
    if labels.size and int(labels.max()) > limit:
        raise DataError(f"the prediction holds id {labels.max()}; {layer.name!r} holds ids up to {limit}")
    values = frame.from_zyx(plane)
    present = np.asarray(layer.data[region])
    wanted = values != NOT_ANNOTATED
    wanted &= (present != values) if overwrite else np.isin(present, (NOT_ANNOTATED, not_annotated))
    return _paint(layer, region, wanted, values[wanted])


def _paint(layer: Labels, region: NdBox, where: NDArray[np.bool_], value: int | NDArray[Any]) -> int:
    """Set the voxels of a region marked by `where`; one entry in the layer's history, none for none."""
    found = np.nonzero(where)
    if not found[0].size:
        return 0
    # the history keeps the indices, so they are kept short
    layer.data_setitem(
        tuple((at + part.start).astype(np.int32) for at, part in zip(found, region, strict=True)),
        value,
    )
    return int(found[0].size)


def _blocks(data: LazyArray) -> Any:
    """The data piece by piece, so that nothing is held whole."""
    shape = tuple(data.shape)
    planes = max(1, _VOXELS_AT_ONCE // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], planes):
        yield np.asarray(data[start : start + planes])
