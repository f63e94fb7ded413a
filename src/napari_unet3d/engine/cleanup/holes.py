"""Holes: background that structures enclose."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.cleanup.pieces import cleanable_ids
from napari_unet3d.engine.errors import ConfigError


def fill_holes(
    labels: NDArray[np.unsignedinteger],
    voxel_size: VoxelSize,
    *,
    background_id: int,
    classes: Collection[int] | None = None,
    largest_volume: float | None = None,
) -> NDArray[np.unsignedinteger]:
    """Fill holes with the class around them.

    A hole is a piece of background (voxels that share faces) that neither touches the border of the volume nor an id
    that is not filled. It becomes the class that it shares most faces with, the lowest of several. In a single plane
    the border is that of the plane.

    Parameters
    ----------
    labels
        Z Y X label ids.
    voxel_size
        Z Y X edge lengths; faces count by their area.
    background_id
        What holes are made of.
    classes
        Ids that may be filled; None for all but 0 and the background.
    largest_volume
        Larger holes stay, in the cubed unit of `voxel_size`; None fills all.

    Returns
    -------
    ndarray
        A new array of the same type; only voxels of the background differ.

    Raises
    ------
    ConfigError
        If the volume is negative or NaN, or `classes` holds the background or 0.
    """
    if largest_volume is not None and not largest_volume >= 0:
        raise ConfigError(f"largest hole = {largest_volume:g}; give a volume of at least 0")
    filled = labels.copy()
    ids = cleanable_ids(labels, background_id, classes)
    holes, count = ndimage.label(labels == background_id)
    if not count or not ids:
        return filled
    area = _shared_faces(labels, holes, count, ids, background_id, voxel_size)
    sizes = np.bincount(holes.ravel(), minlength=count + 1) * voxel_size.volume
    most = math.inf if largest_volume is None else largest_volume * (1 + 1e-9)
    is_hole = (area[:, -1] == 0) & (area[:, :-1].sum(axis=1) > 0) & (sizes <= most)
    is_hole[0] = False
    new_ids = np.where(is_hole, np.array(ids)[area[:, :-1].argmax(axis=1)], background_id).astype(labels.dtype)
    inside = is_hole[holes]
    filled[inside] = new_ids[holes[inside]]
    return filled


def _shared_faces(
    labels: NDArray[np.unsignedinteger],
    holes: NDArray[np.int32],
    count: int,
    ids: tuple[int, ...],
    background_id: int,
    voxel_size: VoxelSize,
) -> NDArray[np.float64]:
    """Area that each piece of background (row) shares with each of `ids`, and with all else, border included (last).

    Row 0 stands for what is no background.
    """
    other = len(ids)
    table = np.full(int(labels.max()) + 1, other, np.intp)
    table[list(ids)] = np.arange(other)
    area = np.zeros((count + 1, other + 1))
    for axis, size in enumerate(labels.shape):
        if size == 1:
            continue
        face = voxel_size.volume / voxel_size.zyx[axis]
        near, far = np.moveaxis(holes, axis, 0), np.moveaxis(labels, axis, 0)
        for pieces, beside in ((near[:-1], far[1:]), (near[1:], far[:-1])):
            where = (pieces > 0) & (beside != background_id)
            pairs = pieces[where].astype(np.intp) * (other + 1) + table[beside[where]]
            area += face * np.bincount(pairs, minlength=area.size).reshape(area.shape)
        for end in (near[0], near[-1]):
            area[np.unique(end), other] += face
    return area
