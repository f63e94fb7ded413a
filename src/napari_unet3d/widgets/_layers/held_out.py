"""Hatching over annotation that is measured on and not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import NOT_ANNOTATED
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice
from napari_unet3d.widgets._layers.prediction import add_quietly, refresh
from napari_unet3d.widgets._layers.view import Plane

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

NAME: Final = "held out"
_COLOURS: Final = {None: "transparent", 0: "transparent", 1: "white", 2: "black"}
_PERIOD: Final = 12
_OPACITY: Final = 0.8


def plane_box(choice: ImageChoice, plane: Plane) -> Box:
    """The Z Y X box of one plane."""
    box = [slice(0, n) for n in choice.spatial_shape]
    box[plane.axis] = slice(plane.index, plane.index + 1)
    return (box[0], box[1], box[2])


class HeldOutMarks:
    """A labels layer that outlines held-out strokes and hatches them thinly, in white and black.

    The annotation itself is not touched, and most of it stays visible.

    The layer's array is mostly zeros that were never written, which take no memory. It is added with the
    first stripes, cannot be painted on, and once the user has removed it, it stays away.

    Parameters
    ----------
    viewer
        Where.
    choice
        The annotated image.
    """

    def __init__(self, viewer: ViewerModel, choice: ImageChoice) -> None:
        self._viewer = viewer
        self._choice = choice
        self._layer: Labels | None = None
        self._marked: list[tuple[int, Box]] = []

    def show(
        self, annotation: Labels, regions: Iterable[tuple[int, Box]], *, not_annotated: int = NOT_ANNOTATED
    ) -> None:
        """Hatch what is annotated in `regions`, and nothing else.

        Parameters
        ----------
        annotation
            Where the strokes are.
        regions
            Time points and Z Y X boxes that are held out; see `plane_box`.
        not_annotated
            Id of the annotation that means "not annotated" beside 0.
        """
        wanted = list(regions)
        if self._layer is None and wanted:
            self._layer = self._add()
        if self._layer is None or self._layer not in self._viewer.layers:
            return
        own, theirs = Frame.of(self._layer, self._choice), Frame.of(annotation, self._choice)
        for t, box in self._marked:
            self._layer.data[own.region(box, t)] = NOT_ANNOTATED
        for t, box in wanted:
            strokes = theirs.to_zyx(np.asarray(annotation.data[theirs.region(box, t)])[_inside(theirs)])
            marks = _hatched(~np.isin(strokes, (NOT_ANNOTATED, not_annotated)), box)
            # regions may cross: what one marked, another does not wipe
            view = own.to_zyx(self._layer.data[own.region(box, t)][_inside(own)])
            np.maximum(view, marks, out=view)
        self._marked = wanted
        refresh(self._layer)

    @property
    def layer(self) -> Labels | None:
        """The layer with the marks; None before the first and after the user took it away."""
        return self._layer if self._layer in self._viewer.layers else None

    def remove(self) -> None:
        """Take the layer away."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None
        self._marked = []

    def _add(self) -> Labels:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        layer = Labels(
            np.zeros(Frame.new(self._choice).shape, np.uint8),
            name=NAME,
            opacity=_OPACITY,
            colormap=DirectLabelColormap(color_dict=_COLOURS),
            **geometry_of(self._choice),
        )
        layer.editable = False
        added: Labels = add_quietly(self._viewer, layer)
        return added


def _inside(frame: Frame) -> tuple[Any, ...]:
    """Index that drops T and single axes of length 1."""
    return tuple(slice(None) if axis in "ZYX" else 0 for axis in frame.axes)


def _hatched(strokes: NDArray[np.bool_], box: Box) -> NDArray[np.uint8]:
    """Z Y X, the shape of `box`: 1 on the rim of the strokes, 1 and 2 along diagonals of every plane, else 0."""
    z, y, x = (np.arange(part.start, part.stop) for part in box)
    phase = ((z[:, None, None] + y[:, None] + x) % _PERIOD).astype(np.uint8)
    marks = np.where(phase < 2, phase + np.uint8(1), np.uint8(0))
    marks[_rim(strokes)] = 1
    marks[~strokes] = 0
    return marks


def _rim(strokes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels with a neighbour that is none, along the axes on which more than a few voxels lie."""
    rim = np.zeros_like(strokes)
    for axis, n in enumerate(strokes.shape):
        if n < _PERIOD:
            continue
        along = np.moveaxis(strokes, axis, 0)
        edge = np.moveaxis(rim, axis, 0)
        edge[0] = edge[-1] = True
        edge[:-1] |= ~along[1:]
        edge[1:] |= ~along[:-1]
    return rim
