"""Predicting on the grid a model works at, with results on the grid of the image.

The volume is done in blocks of the image's grid, so that memory does not grow with it. For each block the probabilities
around it are predicted, interpolated back, and become labels there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.prediction_io import Predictable, PredictionOutputs, write_scores, written_ids
from napari_unet3d.engine.progress import Box, Event, Finished, Inbox, Predicted, Started
from napari_unet3d.engine.resampling import Resampling, resampled_image, target_size
from napari_unet3d.engine.volume import Volume

BLOCK_BYTES: Final = 256_000_000
"""Most bytes of the probabilities of a block, on either grid."""

Run = Callable[..., Generator[Event, None, None]]
"""Predicts an image as it is: image, outputs, inbox, start_at, box."""


def working_size(model: Predictable, image: Volume) -> VoxelSize | None:
    """The voxel size, in the image's unit, that an image is brought to for a model; None where it stays as it is.

    Raises
    ------
    DataError
        If the model works at a length but the image's voxels have none.
    """
    if model.recipe.train.normalize.voxel_size is None:
        return None
    return target_size(model.voxel_size, image)


def run_resampled(
    run: Run,
    model: Predictable,
    image: Volume,
    target: VoxelSize,
    outputs: PredictionOutputs,
    *,
    background_as_zero: bool,
    box: Box,
    inbox: Inbox | None = None,
    start_at: tuple[int, int] | None = None,
) -> Generator[Event, None, None]:
    """Predict on another grid; yields the events of `Predictor.run`, boxes and planes counted on the image's grid.

    Parameters
    ----------
    run
        Predicts on the other grid.
    model, image, outputs, inbox, start_at, box
        As of `Predictor` and its `run`.
    target
        Voxel size of the other grid, in the image's unit.
    background_as_zero
        Whether 0 is written instead of the background's id.
    """
    moved, resampling = resampled_image(image, target)
    classes = len(model.label_ids)
    ids = written_ids(model, background_as_zero)
    blocks = _blocks(box, resampling, classes)
    if start_at is not None:
        axis, index = start_at
        blocks.sort(key=lambda block: not block[axis].start <= index < block[axis].stop)
    begun = time.monotonic()
    progress = Predicted(0, len(blocks), None, box)
    for number, block in enumerate(blocks):
        needed = resampling.inverse.needed(block)
        part = _Part(classes, needed)
        inside = None if start_at is None else _start(start_at, resampling)
        for event in run(moved, PredictionOutputs(probabilities=part), inbox, inside, needed):
            if isinstance(event, Finished):
                if event.reason == "stopped":
                    yield event
                    return
            elif isinstance(event, Predicted):
                total = len(blocks) * event.total
                done = number * event.total + event.done
                progress = replace(event, done=done, total=total, seconds_left=_left(begun, done, total))
                if event.done < event.total:
                    yield replace(progress, box=_empty(block))
            elif not isinstance(event, Started) or number == 0:
                yield event
        scores = resampling.inverse.interpolated(part.read, block)
        write_scores(outputs, block, torch.from_numpy(scores), ids, model.recipe.network.head)
        yield replace(progress, box=block)
    yield Finished("done", step=progress.done, seconds=time.monotonic() - begun)


class _Part:
    """Probabilities of a box of a volume, indexed in voxels of the whole volume."""

    def __init__(self, classes: int, box: Box) -> None:
        self._box = box
        self._values = np.empty((classes, *(part.stop - part.start for part in box)), np.float32)

    def __setitem__(self, index: Any, value: Any, /) -> None:
        self._values[(slice(None), *self._inside(index[-3:]))] = value

    def read(self, box: Box) -> NDArray[Any]:
        """C Z Y X values."""
        values: NDArray[Any] = self._values[(slice(None), *self._inside(box))]
        return values

    def _inside(self, box: Box) -> Box:
        z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, self._box, strict=True))
        return (z, y, x)


def _blocks(box: Box, resampling: Resampling, classes: int) -> list[Box]:
    """A box of the image's grid, halved along its longest axis until the parts are small enough on both grids."""
    here = [part.stop - part.start for part in box]
    there = [part.stop - part.start for part in resampling.inverse.needed(box)]
    longest = max(range(3), key=lambda i: here[i])
    if 4 * classes * max(math.prod(here), math.prod(there)) <= BLOCK_BYTES or here[longest] == 1:
        return [box]
    middle = box[longest].start + here[longest] // 2
    halves = (slice(box[longest].start, middle), slice(middle, box[longest].stop))
    parts: list[Box] = []
    for half in halves:
        z, y, x = (half if i == longest else side for i, side in enumerate(box))
        parts += _blocks((z, y, x), resampling, classes)
    return parts


def _start(start_at: tuple[int, int], resampling: Resampling) -> tuple[int, int]:
    axis, index = start_at
    return axis, int(resampling.axes[axis].inverse.nearest(np.array([index]))[0])


def _empty(box: Box) -> Box:
    z, y, x = (slice(part.start, part.start) for part in box)
    return (z, y, x)


def _left(begun: float, done: int, total: int) -> float:
    return (time.monotonic() - begun) / done * (total - done)
