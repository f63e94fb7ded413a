"""Choosing the tile that covers a volume with the least work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.tiling import Footprint, Halo, tile_axis, whole

LARGEST_TILE: Final = 5_000_000
"""Voxels of the largest tile chosen on its own: about 170 a side, a few seconds on two CPU cores.

Throughput hardly depends on the tile beyond 48 a side, so larger tiles win by a smaller share of halo until
the time between two tiles, in which nobody can stop the work, becomes a nuisance.
"""

TILE_OVERHEAD: Final = 20_000
"""Cost of one more tile, in voxels of work: starting the layers, reading, writing."""

LONGEST_SIDE: Final = 1024
"""Longest side of a tile chosen on its own."""


def plan_tile(
    shape: Triple,
    footprint: Footprint,
    *,
    memory_of: Callable[[Triple], int],
    memory: int,
    halo: Halo = "auto",
    overlap: float = 0.0,
    box: Box | None = None,
    largest: int = LARGEST_TILE,
) -> Triple:
    """The tile size (Z Y X network input) that covers the volume with the least work.

    Sizes that fit are weighed by the voxels they compute, halo included, so a thin stack gets thin tiles
    and a volume a little larger than a tile gets two of about half its size.

    Parameters
    ----------
    shape, footprint, halo, overlap, box
        As for `TileGrid`.
    memory_of
        Bytes needed to predict a tile of the given input size; grows with its voxels.
    memory
        Bytes there are.
    largest
        Voxels of the largest tile to consider.

    Raises
    ------
    ConfigError
        If even the smallest tile needs more than `memory`, or the halo leaves nothing of any tile.
    """
    axes = [_choices(i, shape, footprint, halo, overlap, box or whole(shape)) for i in range(3)]
    sizes, counts, capped = (
        np.stack(np.meshgrid(*(axis[:, k] for axis in axes), indexing="ij"), -1).reshape(-1, 3) for k in range(3)
    )
    voxels = sizes.prod(1)
    # a halo that is capped costs little work: take one only where no tile with the wanted halo fits
    work = counts.prod(1) * (voxels + TILE_OVERHEAD) + capped.any(1) * 2**60
    least = int(voxels.min())
    limit = max(largest, least)
    while True:
        best = int(np.where(voxels <= limit, work, np.iinfo(np.int64).max).argmin())
        z, y, x = sizes[best].tolist()
        needed = memory_of((z, y, x))
        if needed <= memory:
            return (z, y, x)
        if voxels[best] == least:
            raise ConfigError(
                f"memory = {memory / 1e6:.0f} MB is less than the {needed / 1e6:.0f} MB that the smallest "
                f"tile {(z, y, x)} (Z Y X) needs; raise memory, or use a network with fewer filters"
            )
        # memory is nearly proportional to voxels: go straight to what should fit
        limit = max(least, min(int(voxels[best]) - 1, int(voxels[best] * memory / needed)))


def _choices(i: int, shape: Triple, footprint: Footprint, halo: Halo, overlap: float, box: Box) -> NDArray[np.int64]:
    """Rows of tile size, number of tiles along axis `i`, and whether the halo is less than the wanted one.

    For each number the smallest size that has the wanted halo, or else the largest.
    """
    smallest, stride, shrink = footprint.smallest[i], footprint.stride[i], footprint.shrink[i]
    framed = footprint.framed(shape)
    longest = min(footprint.legal_output(framed)[i], max(smallest, LONGEST_SIDE - shrink))
    choices: dict[int, tuple[int, int, bool]] = {}
    for output in range(longest - (longest - smallest) % stride, smallest - 1, -stride):
        tile = output + shrink
        dropped = footprint.auto_halo((tile, tile, tile))[i] if halo == "auto" else halo[i]
        axis = tile_axis(i, shape, footprint, tile, dropped, overlap, box)
        capped = halo == "auto" and output < framed[i] and dropped < footprint.wanted_halo[i]
        if axis.step >= 1 and not (capped and axis.count in choices):
            choices[axis.count] = (tile, axis.count, capped)
    if not choices:
        raise ConfigError(
            f"halo = {halo} (Z Y X) leaves nothing of a tile of {LONGEST_SIDE} voxels; make the halo smaller"
        )
    return np.array(list(choices.values()), dtype=np.int64)
