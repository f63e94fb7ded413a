"""Connected pieces of classes: dropping small ones, keeping the largest.

Voxels that share a face, an edge or a corner belong to one piece. All arrays here are Z Y X.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Box

TOUCHING: Final = np.ones((3, 3, 3), dtype=bool)
"""Neighbours of a voxel of a piece, itself included."""


def remove_small_pieces(
    labels: NDArray[np.unsignedinteger],
    minimum_volume: float,
    voxel_size: VoxelSize,
    *,
    background_id: int,
    classes: Collection[int] | None = None,
) -> NDArray[np.unsignedinteger]:
    """Turn pieces that are too small into background.

    Parameters
    ----------
    labels
        Z Y X label ids.
    minimum_volume
        Volume that a piece needs to stay, in the cubed unit of `voxel_size`; at 0 all stay.
    voxel_size
        Z Y X edge lengths.
    background_id
        Never cleaned itself.
    classes
        Ids to clean; None for all but 0 and the background.

    Returns
    -------
    ndarray
        A new array of the same type; only voxels of `classes` differ.

    Raises
    ------
    ConfigError
        If the volume is negative or not finite, or `classes` holds the background or 0.
    """
    if not (math.isfinite(minimum_volume) and minimum_volume >= 0):
        raise ConfigError(f"minimum volume = {minimum_volume:g}; give a number of at least 0")
    # a volume that is a whole number of voxels must not fail by rounding
    least = minimum_volume / voxel_size.volume * (1 - 1e-9)
    return _without(labels, background_id, classes, lambda sizes: sizes < least)


def keep_largest_piece(
    labels: NDArray[np.unsignedinteger], *, background_id: int, classes: Collection[int] | None = None
) -> NDArray[np.unsignedinteger]:
    """Turn all but the largest piece of each class into background; of equal ones the first in Z Y X order stays.

    Parameters
    ----------
    labels, background_id, classes
        As for `remove_small_pieces`.

    Returns
    -------
    ndarray
        A new array of the same type.

    Raises
    ------
    ConfigError
        If `classes` holds the background or 0.
    """
    return _without(labels, background_id, classes, lambda sizes: np.arange(len(sizes)) != sizes.argmax())


def cleanable_ids(
    labels: NDArray[np.unsignedinteger], background_id: int, classes: Collection[int] | None = None
) -> tuple[int, ...]:
    """Ascending ids that are in `labels` and may be cleaned: `classes`, or all but 0 (not annotated) and background.

    Raises
    ------
    ConfigError
        If `classes` holds the background or 0.
    """
    untouchable = {0, background_id}
    if classes is not None and untouchable & set(classes):
        raise ConfigError(f"classes {sorted(classes)} hold 0 or the background {background_id}; give structures only")
    present = {int(label_id) for label_id in np.unique(labels)}
    return tuple(sorted((present if classes is None else present & set(classes)) - untouchable))


def boxes_of(
    labels: NDArray[np.unsignedinteger], label_ids: Collection[int], margin: int = 0
) -> Iterator[tuple[int, Box]]:
    """Each of some ids that are there, with the box around its voxels, wider by `margin` where the volume goes on."""
    boxes: list[Any] = ndimage.find_objects(labels, max(label_ids, default=0))
    for label_id in label_ids:
        if boxes[label_id - 1] is not None:
            z, y, x = (
                slice(max(part.start - margin, 0), min(part.stop + margin, size))
                for part, size in zip(boxes[label_id - 1], labels.shape, strict=True)
            )
            yield label_id, (z, y, x)


def _without(
    labels: NDArray[np.unsignedinteger],
    background_id: int,
    classes: Collection[int] | None,
    is_unwanted: Callable[[NDArray[np.intp]], NDArray[np.bool_]],
) -> NDArray[np.unsignedinteger]:
    """Labels with some pieces turned into background; `is_unwanted` judges all pieces of a class by their sizes."""
    cleaned = labels.copy()
    for label_id, box in boxes_of(labels, cleanable_ids(labels, background_id, classes)):
        pieces, count = ndimage.label(labels[box] == label_id, TOUCHING)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        drop = np.concatenate([[False], is_unwanted(sizes)])
        cleaned[box][drop[pieces]] = background_id
    return cleaned
