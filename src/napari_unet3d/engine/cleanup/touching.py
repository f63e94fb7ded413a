"""Touching objects told apart and numbered."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.segmentation import watershed

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.cleanup.pieces import TOUCHING, boxes_of, cleanable_ids
from napari_unet3d.engine.errors import ConfigError

_UINT16_MOST: Final = 65535


class Objects(NamedTuple):
    """Numbered objects.

    `numbers` is Z Y X, uint16 (uint32 with more than 65535 objects): 0 = no object. `class_ids[n]` is the label id of
    object n, with 0 for number 0.
    """

    numbers: NDArray[np.unsignedinteger]
    class_ids: NDArray[np.unsignedinteger]


def split_touching_objects(
    labels: NDArray[np.unsignedinteger],
    separation: float,
    voxel_size: VoxelSize,
    *,
    background_id: int,
    classes: Collection[int] | None = None,
) -> Objects:
    """Number the objects of each class, cutting pieces at their waists.

    The distance of each voxel to the outside of its class has a peak in the middle of each round object. Peaks of one
    piece that are nearer to each other than `separation` count as one, the highest. From the peaks that are left, a
    watershed of the distance floods the piece (Beucher & Meyer 1993), and its ridges are the cuts. Long or branched
    objects need a `separation` of about their length, else they are cut, too. The border of the volume is no outside:
    objects cut by it go on there.

    Parameters
    ----------
    labels
        Z Y X label ids.
    separation
        Least distance between the middles of two objects, in the unit of `voxel_size`: about the diameter of a small
        object. At 0 every peak counts; infinite numbers the pieces as they are.
    voxel_size
        Z Y X edge lengths.
    background_id
        No object.
    classes
        Ids of which to number objects; None for all but 0 and the background.

    Returns
    -------
    Objects
        Numbered from 1, class after class; all 0 where there is none.

    Raises
    ------
    ConfigError
        If `separation` is negative or NaN, or `classes` holds the background or 0.
    """
    if not separation >= 0:
        raise ConfigError(f"separation = {separation:g}; give a distance of at least 0")
    numbers = np.zeros(labels.shape, np.uint32)
    class_ids = [0]
    for label_id, box in boxes_of(labels, cleanable_ids(labels, background_id, classes), margin=1):
        mask = labels[box] == label_id
        pieces, count = ndimage.label(mask, TOUCHING)
        if not (math.isinf(separation) or mask.all()):
            pieces, count = _cut(mask, pieces, separation, voxel_size)
        numbers[box][mask] = pieces[mask] + (len(class_ids) - 1)
        class_ids += [label_id] * count
    small = len(class_ids) - 1 <= _UINT16_MOST
    return Objects(numbers.astype(np.uint16) if small else numbers, np.array(class_ids, labels.dtype))


def _cut(
    mask: NDArray[np.bool_], pieces: NDArray[np.int32], separation: float, voxel_size: VoxelSize
) -> tuple[NDArray[np.int32], int]:
    """Pieces of a class cut into objects, and their number. Some voxel must lie outside of the mask."""
    distance = np.asarray(ndimage.distance_transform_edt(mask, voxel_size.zyx))
    peaks = _peaks(distance, mask)
    at = tuple(peaks.T)
    kept = _apart(peaks * np.array(voxel_size.zyx), distance[at], pieces[at], separation)
    # in Z Y X order, so that numbers do not depend on heights that differ by rounding
    chosen = peaks[np.sort(kept)]
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(chosen.T)] = np.arange(1, len(chosen) + 1)
    # scikit-image gives no types for it
    objects = watershed(-distance, markers, connectivity=TOUCHING, mask=mask)
    return objects, len(chosen)


def _peaks(distance: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Z Y X of one voxel for each local maximum of the distance, in Z Y X order; a plateau gives its middle one."""
    tops = mask & (distance == ndimage.maximum_filter(distance, footprint=TOUCHING))
    plateaus, _ = ndimage.label(tops, TOUCHING)
    flat = np.flatnonzero(plateaus)
    order = flat[np.argsort(plateaus.ravel()[flat], kind="stable")]
    sizes = np.bincount(plateaus.ravel())[1:]
    middles = np.cumsum(sizes) - sizes + sizes // 2
    return np.stack(np.unravel_index(np.sort(order[middles]), distance.shape), axis=1)


def _apart(
    places: NDArray[np.float64], heights: NDArray[np.float64], pieces: NDArray[np.int32], separation: float
) -> list[int]:
    """Peaks taken from the highest down, without those nearer than `separation` to one taken in the same piece."""
    tree = KDTree(places)
    dropped = np.zeros(len(places), bool)
    kept = []
    for one in np.argsort(-heights, kind="stable"):
        if dropped[one]:
            continue
        kept.append(int(one))
        near = np.array(tree.query_ball_point(places[one], separation * (1 - 1e-9)))
        dropped[near[pieces[near] == pieces[one]]] = True
    return kept
