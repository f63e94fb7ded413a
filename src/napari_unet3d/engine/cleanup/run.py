"""Several clean-ups one after the other, as a generator of progress events."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.cleanup.holes import fill_holes
from napari_unet3d.engine.cleanup.pieces import cleanable_ids, keep_largest_piece, remove_small_pieces
from napari_unet3d.engine.config import Config
from napari_unet3d.engine.progress import Event, Finished, Inbox, Preparing, Stop

_Labels: TypeAlias = NDArray[np.unsignedinteger]


class CleanUpConfig(Config):
    """How predicted labels are tidied; holes are filled first, then pieces judged."""

    fill_holes: bool = False
    """Fill background that structures enclose."""
    largest_hole: Annotated[float, Field(gt=0)] | None = None
    """Larger holes stay, in cubed units of the voxel size. Empty: all are filled."""
    keep_largest: bool = False
    """Keep only the largest piece of each structure."""
    minimum_volume: Annotated[float, Field(ge=0)] = 0.0
    """Pieces below this volume become background, in cubed units of the voxel size."""


def clean_up(
    labels: NDArray[np.unsignedinteger],
    voxel_size: VoxelSize,
    config: CleanUpConfig,
    *,
    background_id: int,
    classes: Collection[int] | None = None,
    inbox: Inbox | None = None,
) -> Generator[Event, None, NDArray[np.unsignedinteger] | None]:
    """Tidy predicted labels.

    Parameters
    ----------
    labels
        Z Y X label ids; never changed.
    voxel_size
        Z Y X edge lengths.
    config
        What to do.
    background_id
        What is removed becomes this id; never cleaned itself.
    classes
        Ids to clean; None for all but 0 and the background.
    inbox
        Heeds `Stop` between two classes.

    Yields
    ------
    Event
        `Preparing` before each part of the work, at the end `Finished` ("done" or "stopped").

    Returns
    -------
    ndarray or None
        A new array of the same type; None after `Stop`.

    Raises
    ------
    ConfigError
        If `classes` holds the background or 0.
    """
    began = time.monotonic()
    ids = cleanable_ids(labels, background_id, classes)
    cleaned = labels.copy()
    parts = _parts(ids, voxel_size, config, background_id)
    for done, (stage, work) in enumerate(parts):
        if inbox is not None and any(isinstance(command, Stop) for command in inbox.drain()):
            yield Finished("stopped", done, time.monotonic() - began)
            return None
        yield Preparing(stage, done / len(parts))
        cleaned = work(cleaned)
    yield Finished("done", len(parts), time.monotonic() - began)
    return cleaned


def _parts(
    ids: tuple[int, ...], voxel_size: VoxelSize, config: CleanUpConfig, background_id: int
) -> list[tuple[str, Callable[[_Labels], _Labels]]]:
    """What to do, in order, with a name for each part: holes of all classes at once, pieces class by class."""

    def filled(labels: _Labels) -> _Labels:
        return fill_holes(
            labels, voxel_size, background_id=background_id, classes=ids, largest_volume=config.largest_hole
        )

    def of_class(label_id: int) -> Callable[[_Labels], _Labels]:
        def judged(labels: _Labels) -> _Labels:
            if config.keep_largest:
                labels = keep_largest_piece(labels, background_id=background_id, classes=[label_id])
            if config.minimum_volume > 0:
                labels = remove_small_pieces(
                    labels, config.minimum_volume, voxel_size, background_id=background_id, classes=[label_id]
                )
            return labels

        return judged

    parts: list[tuple[str, Callable[[_Labels], _Labels]]] = []
    if config.fill_holes:
        parts.append(("filling holes", filled))
    if config.keep_largest or config.minimum_volume > 0:
        parts += [(f"pieces of class {label_id}", of_class(label_id)) for label_id in ids]
    return parts
