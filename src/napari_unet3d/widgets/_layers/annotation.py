"""The layer a user paints in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import NOT_ANNOTATED
from napari_unet3d.widgets._layers.axes import data_shape
from napari_unet3d.widgets._layers.boxes import NdBox
from napari_unet3d.widgets._layers.classes import ClassLike, apply_classes, dtype_for
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

NAME: Final = "annotation"
_OPACITY: Final = 0.6
_VOXELS_AT_ONCE: Final = 1 << 22


def new_annotation(viewer: ViewerModel, choice: ImageChoice, classes: Sequence[ClassLike]) -> Labels:
    """Add an empty annotation layer over the image, ready to paint the first structure.

    The first structure is the second class, for the first is the background; with one class it is that one.

    Raises
    ------
    DataError
        If a class id does not fit into 16 bits.
    """
    from napari.layers import Labels

    layer = Labels(
        np.zeros(Frame.new(choice).shape, dtype_for(classes)), name=NAME, opacity=_OPACITY, **geometry_of(choice)
    )
    apply_classes(layer, classes)
    added: Labels = viewer.add_layer(layer)
    viewer.layers.selection.active = added
    if classes:
        added.selected_label = classes[min(1, len(classes) - 1)].id
    added.mode = "paint"
    return added


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


def label_ids(layer: Labels) -> tuple[int, ...]:
    """Ids that occur in the layer, ascending, 0 among them. Reads everything: for a worker."""
    ids = {int(i) for block in _blocks(layer) for i in np.unique(block)}
    return tuple(sorted(ids))


def has_no_zeros(layer: Labels) -> bool:
    """Whether no voxel is 0, so that another id may mean "not annotated". Ends at the first zero."""
    return all(bool(block.all()) for block in _blocks(layer))


def annotated_time_points(layer: Labels, choice: ImageChoice) -> tuple[int, ...]:
    """Time points with at least one voxel that is not 0. Reads everything: for a worker."""
    return tuple(t for t in range(choice.time_points) if spatial_view(layer, choice, t).any())


def complete_slice(
    layer: Labels, choice: ImageChoice, axis: int, index: int, t: int = 0, *, background_id: int = 1
) -> int:
    """Paint what is 0 in one plane with the background, as one action that napari's undo takes back.

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

    Returns
    -------
    int
        How many voxels were painted.
    """
    region = Frame.of(layer, choice).plane(axis, index, t)
    empty = np.asarray(layer.data[region]) == NOT_ANNOTATED
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
    wanted &= (present != values) if overwrite else (present == NOT_ANNOTATED)
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


def _blocks(layer: Labels) -> Any:
    """The layer's data piece by piece, so that nothing is held whole."""
    shape = data_shape(layer)
    planes = max(1, _VOXELS_AT_ONCE // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], planes):
        yield np.asarray(layer.data[start : start + planes])
