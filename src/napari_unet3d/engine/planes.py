"""Prediction of single planes while a network is being trained: for previews and for validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.patch_source import PatchSource
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.tiling import Footprint, TileGrid, continued_read

_CONTEXT_ACROSS: Final = 12
"""Voxels of context on each side of the plane; what lies further away hardly matters, and costs time."""

_SIDE: Final = 192
"""Longest in-plane side of a tile."""


def predict_plane(
    forward: Callable[[Tensor], Tensor], source: PatchSource, footprint: Footprint, axis: int, index: int
) -> Tensor:
    """Logits of one plane of a volume, from a slab around it.

    Parameters
    ----------
    forward
        B F Z Y X network input (as read from `source`) -> logits B K Z Y X.
    source
        The volume.
    footprint
        Of the network.
    axis, index
        The plane; axis 0 is Z.

    Returns
    -------
    Tensor
        K and the two axes of the plane, float32, on the CPU.
    """
    box = whole_plane(source.shape, axis, index)
    grid = TileGrid(source.shape, footprint, _tile(footprint, axis), box=box)
    result: Tensor | None = None
    for tile in grid.tiles():
        inside, positions = continued_read(tile.read, source.shape)
        values = source.read(inside)
        for dim, position in enumerate(positions):
            values = values.index_select(dim, torch.from_numpy(position).to(values.device))
        logits = forward(values.permute(3, 0, 1, 2)[None])[0][:, *tile.crop].float().cpu()
        if result is None:
            result = logits.new_empty(logits.shape[0], *(part.stop - part.start for part in box))
        result[:, *(slice(k.start - b.start, k.stop - b.start) for k, b in zip(tile.kept, box, strict=True))] = logits
    assert result is not None  # a plane has at least one voxel
    return result.squeeze(axis + 1)


def whole_plane(shape: Triple, axis: int, index: int) -> Box:
    """All voxels of a plane."""
    z, y, x = (slice(index, index + 1) if i == axis else slice(0, size) for i, size in enumerate(shape))
    return (z, y, x)


def _tile(footprint: Footprint, axis: int) -> Triple:
    """Input size of a tile: thin along `axis`; the grid rounds it to a legal size."""
    sides = [_SIDE + shrink for shrink in footprint.shrink]
    across = min(footprint.full_halo[axis], _CONTEXT_ACROSS)
    sides[axis] = 2 * across + footprint.stride[axis] + footprint.shrink[axis]
    return (sides[0], sides[1], sides[2])
