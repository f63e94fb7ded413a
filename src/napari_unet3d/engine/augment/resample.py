"""One resampling of image and labels to a training patch.

Sources keep their channels last (Z Y X C), so that all channels of a voxel are one row of memory. Each voxel
of a patch is then a weighted sum of eight rows, which `embedding_bag` computes in one pass without
intermediate results. `grid_sample` would need channels first, and a float32 copy of a float16 source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from napari_unet3d.engine.augment.warp import Warp
from napari_unet3d.engine.volume import NOT_ANNOTATED


def sample(source: Tensor, labels: Tensor, centre: Sequence[float], warp: Warp) -> tuple[Tensor, Tensor]:
    """A training patch and its labels, resampled once.

    The image is interpolated trilinearly, its outermost voxels repeated outside; a label is that of the nearest voxel,
    and not annotated outside. A grid-aligned warp copies voxels without interpolation.

    Parameters
    ----------
    source
        Z Y X C, float16, bfloat16 or float32, contiguous.
    labels
        Z Y X, any integer dtype, on the device of `source`; 0 = not annotated.
    centre
        Z Y X source voxel of index ``size // 2`` of the patch; may lie outside.
    warp
        Size and geometry.

    Returns
    -------
    patch : Tensor
        C Z Y X, dtype of `source`, channels last in memory (a batch of one is contiguous in
        ``torch.channels_last_3d``); never shares memory with `source`.
    patch_labels : Tensor
        Z Y X, dtype of `labels`.
    """
    if warp.is_grid_aligned:
        return _copy(source, labels, warp.start(centre), warp)
    positions = warp.coordinates(centre, source.device)
    return _interpolate(source, positions).movedim(-1, 0), _nearest(labels, positions)


def _copy(source: Tensor, labels: Tensor, start: tuple[int, int, int], warp: Warp) -> tuple[Tensor, Tensor]:
    """The box of `warp.size` from `start`, the outermost voxels repeated outside of the source, then flipped."""
    patch, patch_labels = source, labels
    across_border: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
    for axis, (first, count) in enumerate(zip(start, warp.size, strict=True)):
        wanted = np.arange(first, first + count)
        held = wanted.clip(0, source.shape[axis] - 1)
        lowest, highest = int(held.min()), int(held.max())
        patch = patch.narrow(axis, lowest, highest - lowest + 1)
        patch_labels = patch_labels.narrow(axis, lowest, highest - lowest + 1)
        if (held != wanted).any():
            across_border.append((axis, held - lowest, np.flatnonzero(held != wanted)))
    for axis, held, beyond in across_border:
        indices = torch.as_tensor(held, device=source.device)
        patch, patch_labels = patch.index_select(axis, indices), patch_labels.index_select(axis, indices)
        outside = torch.as_tensor(beyond, device=source.device)
        patch_labels = patch_labels.index_fill(axis, outside, NOT_ANNOTATED)
    flipped = [axis for axis, flip in enumerate(warp.flips) if flip]
    # flip copies, also where there is nothing to flip, what the lines above may only look at
    return patch.flip(flipped).movedim(-1, 0), patch_labels.flip(flipped)


def _interpolate(source: Tensor, positions: Tensor) -> Tensor:
    """Trilinear values at positions (Z Y X 3): Z Y X C."""
    *lengths, channels = source.shape
    base = torch.zeros(positions.shape[:3], dtype=torch.int64, device=source.device)
    corners = [0]
    weights: list[Tensor] = []
    for axis, length in enumerate(lengths):
        inside = positions[..., axis].clamp(0, length - 1)
        lower = inside.floor().clamp(max=max(length - 2, 0))
        upper_weight = inside - lower
        base = base * length + lower.long()
        # the next voxel along this axis; itself where there is only one
        stride = int(np.prod(lengths[axis + 1 :])) if length > 1 else 0
        pair = (1 - upper_weight, upper_weight)
        weights = [w * side for w in weights for side in pair] if weights else list(pair)
        corners = [corner + step for corner in corners for step in (0, stride)]
    rows = source.reshape(-1, channels)
    index_type = torch.int32 if len(rows) < 2**31 else torch.int64
    steps = torch.tensor(corners, dtype=index_type, device=source.device)
    indices = base.to(index_type).reshape(-1, 1) + steps
    values = embedding_bag(
        indices,
        rows,
        per_sample_weights=torch.stack(weights, dim=-1).reshape(-1, 8).to(source.dtype),
        mode="sum",
    )
    return values.reshape(*positions.shape[:3], channels)


def _nearest(labels: Tensor, positions: Tensor) -> Tensor:
    """Labels of the voxels that hold the positions (Z Y X 3): Z Y X, 0 outside."""
    base = torch.zeros(positions.shape[:3], dtype=torch.int64, device=labels.device)
    inside = torch.ones(positions.shape[:3], dtype=torch.bool, device=labels.device)
    for axis, length in enumerate(labels.shape):
        nearest = (positions[..., axis] + 0.5).floor()
        within = nearest.clamp(0, length - 1)
        inside &= nearest == within
        base = base * length + within.long()
    return labels.reshape(-1)[base.reshape(-1)].reshape(base.shape) * inside
