"""Putting overlapping tiles together within bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.tiling import Tile, TileGrid


class BlendBand:
    """Weighted sums of overlapping tiles, kept only for the rows along Z that are not final yet.

    Give the tiles of ``grid.tiles()`` in their order. Memory: classes x one tile's depth x Y x X, float32.

    Parameters
    ----------
    grid
        The tiles.
    classes
        Channels of the blocks.
    """

    def __init__(self, grid: TileGrid, classes: int) -> None:
        rows = grid.rows()
        _, y, x = grid.box
        self._y, self._x = y, x
        self._tiles_in_row = len(rows[0])
        # a plane is final when the next row of tiles begins behind it
        self._final = [*(row[0].kept[0].start for row in rows[1:]), grid.box[0].stop]
        depth = max(row[0].kept[0].stop - row[0].kept[0].start for row in rows)
        self._sums = np.zeros((classes, depth, y.stop - y.start, x.stop - x.start), np.float32)
        self._added = 0
        self.start = grid.box[0].start
        """Planes before this one are final."""

    def add(self, tile: Tile, block: NDArray[np.float32]) -> tuple[Box, NDArray[np.float32]]:
        """Add the C Z Y X values of a tile's kept part.

        Returns
        -------
        Box
            The part of the volume that became final: empty until a row of tiles is complete.
        ndarray
            C Z Y X float32 blended values of that part; the caller's own.
        """
        z, y, x = tile.kept
        inside = self._sums[
            :,
            z.start - self.start : z.stop - self.start,
            y.start - self._y.start : y.stop - self._y.start,
            x.start - self._x.start : x.stop - self._x.start,
        ]
        inside += block * tile.weights
        self._added += 1
        row, rest = divmod(self._added, self._tiles_in_row)
        end = self._final[row - 1] if rest == 0 else self.start
        count = end - self.start
        done = self._sums[:, :count].copy()
        if count:
            self._sums = np.roll(self._sums, -count, axis=1)
            self._sums[:, self._sums.shape[1] - count :] = 0
        box = (slice(self.start, end), self._y, self._x)
        self.start = end
        return box, done
