"""IoU of probabilities at many thresholds: what the argmax does not tell about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

THRESHOLDS: Final = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
""".5, .55 ... .95; a voxel is of a class at a threshold if its probability is above it."""


def threshold_counts(
    probabilities: NDArray[Any],
    truth_ids: NDArray[np.integer],
    label_ids: Sequence[int],
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Voxel counts from which `threshold_iou` follows; those of several blocks may be added.

    Parameters
    ----------
    probabilities
        K channels in front of the spatial axes, 0..1.
    truth_ids
        Label ids on the spatial axes.
    label_ids
        Label id of each of the K channels.
    where
        Voxels to count, of the shape of `truth_ids`; None for all.

    Returns
    -------
    NDArray[int64]
        K x 2 x (T + 1): for each class, of the voxels that are not of it and of those that are, the number at which
        exactly the first 0 to T of the T `THRESHOLDS` are exceeded.
    """
    counted = np.ones(truth_ids.shape, dtype=bool) if where is None else where
    truth = truth_ids[counted]
    # compared in the precision of the probabilities: .55 as float32 does not exceed .55
    thresholds = np.asarray(THRESHOLDS, dtype=probabilities.dtype)
    bins = len(THRESHOLDS) + 1
    counts = np.empty((len(label_ids), 2, bins), dtype=np.int64)
    for entry, label_id, channel in zip(counts, label_ids, probabilities, strict=True):
        exceeded = np.searchsorted(thresholds, channel[counted], side="left")
        entry[...] = np.bincount((truth == label_id) * bins + exceeded, minlength=2 * bins).reshape(2, bins)
    return counts


def threshold_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class at each threshold, averaged over the thresholds.

    Parameters
    ----------
    counts
        K x 2 x (T + 1), from `threshold_counts`.

    Returns
    -------
    NDArray[float64]
        K values in 0..1. A threshold at which a class is in neither truth nor prediction does not count; NaN where
        none counts.
    """
    # voxels that exceed a threshold are those in all bins behind it
    above = counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]  # K 2 T
    hits, wrong = above[:, 1], above[:, 0]
    union = counts[:, 1].sum(-1, keepdims=True) + wrong
    values = np.divide(hits, union, out=np.zeros(union.shape), where=union > 0)
    defined = np.count_nonzero(union, axis=1)
    mean: NDArray[np.float64] = np.full(len(counts), np.nan)
    np.divide(values.sum(1), defined, out=mean, where=defined > 0)
    return mean
