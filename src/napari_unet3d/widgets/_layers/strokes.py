"""What changed in the annotation since it was last looked at, found a little at a time."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import NOT_ANNOTATED
from napari_unet3d.widgets._layers.boxes import NdBox, around, chained, merged, pieces, size, union, whole
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.history_atoms import box_of_atom
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari.layers import Labels

VOXELS_AT_ONCE: Final = 1 << 22
"""Read by one `StrokeWatch.take`: a few milliseconds."""

_PIECES_AT_ONCE: Final = 4
_SMALL: Final = 1 << 16
_MOST_KNOWN: Final = 1024
_GREATEST_ID: Final = 65534


@dataclass(frozen=True, eq=False)
class Change:
    """Annotation that differs from what was handed out before.

    Parameters
    ----------
    t
        Time point.
    box
        Z Y X slices.
    labels
        A copy of the annotation there: Z Y X, the shape of `box`, uint8 or uint16.
    """

    t: int
    box: Box
    labels: NDArray[np.unsignedinteger]


class StrokeWatch:
    """Follows an annotation layer; `take` gives what changed.

    A shadow of the annotation holds what was handed out so far; it starts empty, so the first calls of `take`
    hand out everything that is painted already. Three kinds of places are compared with the shadow, each kind
    when the one before is done:

    1. where napari tells of a stroke (its ``paint`` event), and at the start everything;
    2. after any other event that may mean changed voxels (undo and redo emit ``set_data`` only), where there
       were strokes or annotation before;
    3. then everything else, for programs that write into the data without telling. This kind does not count
       as pending.

    Everything happens in `take`, on the thread that calls it, which has to be the one that owns the layer.

    Parameters
    ----------
    layer
        The annotation; see `annotation_problem`.
    choice
        Its image.
    not_annotated
        Id that means "not annotated" beside 0; it is handed out as 0.
    is_empty
        The layer was just made, so the first look may be left out.
    voxels_at_once
        Most voxels that one `take` reads.

    Raises
    ------
    DataError
        If the layer's shape is not that of the image.
    """

    def __init__(
        self,
        layer: Labels,
        choice: ImageChoice,
        *,
        not_annotated: int = NOT_ANNOTATED,
        is_empty: bool = False,
        voxels_at_once: int = VOXELS_AT_ONCE,
    ) -> None:
        self._layer = layer
        self._frame = Frame.of(layer, choice)
        self._not_annotated = not_annotated
        self._limit = voxels_at_once
        self._piece = max(1, voxels_at_once // _PIECES_AT_ONCE)
        wide = np.dtype(layer.data.dtype).itemsize > 1
        self._shadow: NDArray[np.unsignedinteger] = np.zeros(self._frame.shape, np.uint16 if wide else np.uint8)
        self._painted: set[int] = set()
        everything = list(pieces(whole(self._frame.shape), self._piece))
        self._told = deque([] if is_empty else everything)
        self._known = _Round()
        self._rest = _Round(everything)
        self._listened = (
            (layer.events.paint, self._on_paint),
            (layer.events.set_data, self._on_set_data),
            (layer.events.data, self._on_data_replaced),
        )
        for emitter, callback in self._listened:
            emitter.connect(callback)

    def close(self) -> None:
        """Stop listening to the layer."""
        for emitter, callback in self._listened:
            emitter.disconnect(callback)

    @property
    def is_pending(self) -> bool:
        """Whether another `take` may give more of the strokes, undone strokes or first annotation."""
        return bool(self._told) or self._known.is_left

    @property
    def annotated_time_points(self) -> tuple[int, ...]:
        """Time points of which some annotation was handed out; also where it was erased since."""
        return tuple(sorted(self._painted))

    def handed_out(self, t: int = 0) -> NDArray[np.unsignedinteger]:
        """Z Y X view of what was handed out at one time point, uint8 or uint16; `take` goes on changing it."""
        view = self._frame.view(self._shadow, t)
        view.flags.writeable = False
        return view

    def take(self) -> list[Change]:
        """What changed; the boxes of one time point may overlap, then with equal labels.

        Raises
        ------
        DataError
            If the layer's data was replaced by one of another shape, or holds ids the engine cannot take.
        """
        if tuple(self._layer.data.shape) != self._frame.shape:
            raise DataError(
                f"the data of {self._layer.name!r} was replaced: its shape is {tuple(self._layer.data.shape)}, "
                f"it was {self._frame.shape}; make a new annotation layer"
            )
        changed: dict[int, list[NdBox]] = defaultdict(list)
        read = 0
        for piece in self._places():
            for box in self._differences(piece):
                changed[self._frame.box_of(box)[0]].append(box)
            read += size(piece)
            if read + self._piece > self._limit:
                break
        return [self._hand_out(box) for t in sorted(changed) for box in merged(changed[t])]

    # --- where to look

    def _places(self) -> Iterator[NdBox]:
        while self._told:
            yield self._told.popleft()
        while self._known.is_left:
            yield self._known.next()
        while self._rest.is_left:
            yield self._rest.next()

    def _on_paint(self, event: Any) -> None:
        shape = self._frame.shape
        boxes = [box_of_atom(atom, shape) for atom in event.value]
        found = chained((box for box in boxes if box is not None), _SMALL)
        if len(boxes) > sum(box is not None for box in boxes):
            found = [whole(shape)]
        for box in found:
            for piece in pieces(box, self._piece):
                self._told.appendleft(piece)  # before what is left of a first look
                self._known.add(piece, self._piece)

    def _on_set_data(self, event: Any) -> None:
        self._known.restart()
        self._rest.restart()

    def _on_data_replaced(self, event: Any) -> None:
        if tuple(self._layer.data.shape) == self._frame.shape:
            self._told.extend(pieces(whole(self._frame.shape), self._piece))

    # --- what is there

    def _values(self, box: NdBox) -> NDArray[np.unsignedinteger]:
        """Label ids in a box, as they are handed out."""
        values = np.asarray(self._layer.data[box])
        if values.dtype != np.uint8 and values.size and not 0 <= int(values.min()) <= int(values.max()) <= _GREATEST_ID:
            self._told.appendleft(box)  # looked at again once it is mended
            raise DataError(
                f"{self._layer.name!r} holds ids from {values.min()} to {values.max()}; "
                f"label ids go from 0 to {_GREATEST_ID}: change them, or make a new annotation layer"
            )
        ids = values.astype(self._shadow.dtype, copy=False)
        if self._not_annotated != NOT_ANNOTATED:
            ids = np.where(ids == self._not_annotated, self._shadow.dtype.type(NOT_ANNOTATED), ids)
        return ids

    def _differences(self, piece: NdBox) -> list[NdBox]:
        """The box of what differs from the shadow, for each time point."""
        mask = self._values(piece) != self._shadow[piece]
        if not mask.any():
            return []
        if "T" not in self._frame.axes:
            return [box for box in [around(mask, piece)] if box is not None]
        time = self._frame.axes.index("T")
        found = []
        for i in range(mask.shape[time]):
            at = slice(piece[time].start + i, piece[time].start + i + 1)
            here = (slice(None),) * time + (slice(i, i + 1),)
            found.append(around(mask[here], (*piece[:time], at, *piece[time + 1 :])))
        return [box for box in found if box is not None]

    def _hand_out(self, box: NdBox) -> Change:
        values = self._values(box)
        self._shadow[box] = values
        t, spatial = self._frame.box_of(box)
        for piece in pieces(box, self._piece):
            self._known.add(piece, self._piece)
        self._painted.add(t)
        inside = tuple({"T": 0, "1": 0}.get(axis, slice(None)) for axis in self._frame.axes)
        return Change(t, spatial, np.array(self._frame.to_zyx(values[inside]), order="C"))


class _Round:
    """Boxes that are visited in turn, each once after every restart."""

    def __init__(self, boxes: Iterable[NdBox] = ()) -> None:
        self._left: deque[NdBox] = deque()
        self._done = deque(boxes)

    @property
    def is_left(self) -> bool:
        return bool(self._left)

    def next(self) -> NdBox:
        self._done.append(self._left.popleft())
        return self._done[-1]

    def restart(self) -> None:
        """Visit all again, those that wait from before first."""
        self._left.extend(self._done)
        self._done.clear()

    def add(self, box: NdBox, largest: int) -> None:
        """Visit `box` from the next restart on, as part of another one if both together are no larger."""
        for group in (self._done, self._left):
            for i, other in enumerate(group):
                both = union(box, other)
                if size(both) <= min(size(box) + size(other), largest):
                    group[i] = both
                    return
        self._done.append(box)
        # what is forgotten is still met among the rest, later
        if len(self._done) > _MOST_KNOWN:
            self._done.popleft()
