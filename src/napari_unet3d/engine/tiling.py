"""How a volume is cut into tiles, and how their predictions are put together again.

Along one axis, for a network whose output is as large as its input (`shrink` = 0)::

    volume     |::0                                       size::|  with a border; far end padded to a legal size
    tile 0       |============================:::::::|             kept part =, halo :
    tile 1                         |:::::::===================|
    starts       0                 s * k                           multiples of the network's total stride s

    overlap = 0  |============================|===============|    the cut lies in the middle of what both see
    overlap > 0  |=====================.                           weights fall and rise linearly where
                                   .========================|    neighbours overlap, and sum to 1

and for a network with valid padding, which returns `shrink` voxels less than it reads::

    read    :::::|============================|:::::               context, the edge repeated outside of the volume
    kept         |============================|

*Untiled* means one tile that holds the whole volume with a border around it, padded at the far end to the next
size the network can take. Tiling changes nothing as long as the halo covers what the network sees: tiles start on
multiples of the total stride, so that poolings fall on the same voxels, and a tile at the border ends where the
untiled volume would end, so that the network's own padding is met in the same place. All tiles of a grid have the
same size.

Outside of the volume the outermost voxels are repeated: next to zeros, or to a mirror image (as in Ronneberger et al.
2015, figure 2), these look like structures that end or bend there (figures in docs/decisions/border.md). The border
keeps the zeros away with which a network pads its convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.config import NetworkConfig, Triple
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.tile_axis import TileAxis, TileSpan, round_up

LARGEST_HALO: Final = 16
"""Largest halo chosen on its own, in voxels."""

BORDER: Final = 4
"""Voxels by which a volume is continued on every side for a network that pads with zeros."""

Halo: TypeAlias = tuple[int, int, int] | Literal["auto"]
T = TypeVar("T")


@dataclass(frozen=True)
class Footprint:
    """What tiling needs to know of a network; all Z Y X, in voxels."""

    stride: Triple
    """Total stride: tiles start on multiples of it."""
    full_halo: tuple[int, int, int]
    """Halo that makes tiling exact: how far an output voxel sees; with valid padding usually 0."""
    shrink: tuple[int, int, int]
    """Input size minus output size; 0 with same padding."""
    smallest: Triple
    """Output size of the smallest legal input; legal output sizes are this plus multiples of `stride`."""
    border: tuple[int, int, int] = (0, 0, 0)
    """Voxels by which the volume is continued on each side; 0 with valid padding."""

    @classmethod
    def of(cls, network: NetworkConfig) -> Footprint:
        """The footprint of a configured network."""
        facts = describe(network)
        smallest_input = facts.legal_shape((1, 1, 1))
        smallest = facts.output_shape(smallest_input)
        stride = facts.total_stride

        def halo(i: int) -> int:
            axis = facts.geometry[i]
            # with valid padding only the fixed features in front are padded
            return round_up(axis.feature_radius, stride[i]) if axis.valid else axis.context

        def border(i: int) -> int:
            axis = facts.geometry[i]
            return 0 if axis.valid else min(BORDER, axis.context)

        return cls(
            stride=stride,
            full_halo=_map3(halo),
            shrink=_map3(lambda i: smallest_input[i] - smallest[i]),
            smallest=smallest,
            border=_map3(border),
        )

    def framed(self, shape: Sequence[int]) -> Triple:
        """Size (Z Y X) of a volume with its border."""
        return _map3(lambda i: shape[i] + 2 * self.border[i])

    def within_frame(self, box: Box) -> Box:
        """Where a box of the volume lies in the volume with its border."""
        return _map3(lambda i: slice(box[i].start + self.border[i], box[i].stop + self.border[i]))

    def legal_output(self, shape: Sequence[int]) -> Triple:
        """Smallest output size (Z Y X) the network can give that holds `shape`."""
        return _map3(lambda i: self.smallest[i] + round_up(max(0, shape[i] - self.smallest[i]), self.stride[i]))

    def legal_tile(self, tile: Sequence[int], shape: Sequence[int]) -> Triple:
        """Input size (Z Y X) to use when `tile` is asked for.

        Legal, no larger than an untiled `shape` with its border, and else large enough to keep one stride.
        """
        untiled = self.legal_output(self.framed(shape))
        output = self.legal_output(_map3(lambda i: max(self.stride[i], tile[i] - self.shrink[i])))
        return _map3(lambda i: min(output[i], untiled[i]) + self.shrink[i])

    def auto_halo(self, tile: Sequence[int]) -> tuple[int, int, int]:
        """The full halo, but no more than `LARGEST_HALO` and a third of the tile (Z Y X input size).

        What lies at the edge of the theoretical receptive field hardly matters to a prediction (Luo et al. 2016,
        "Understanding the effective receptive field"; figures in docs/decisions/halo.md), while a halo of a third
        already computes 27 voxels for each one kept inside a large volume.
        """
        output = _map3(lambda i: tile[i] - self.shrink[i])
        room = _map3(lambda i: max(0, (output[i] - self.stride[i]) // 2))
        return _map3(lambda i: min(self.wanted_halo[i], output[i] // 3, room[i]))

    @property
    def wanted_halo(self) -> tuple[int, int, int]:
        """The halo that a large enough tile gets on its own (Z Y X)."""
        return _map3(lambda i: min(self.full_halo[i], LARGEST_HALO))


@dataclass(frozen=True, eq=False)
class Tile:
    """One block of work."""

    read: tuple[slice, slice, slice]
    """Z Y X input of the network in voxels of the volume; may start below 0 and end beyond the volume."""
    kept: Box
    """Z Y X part of the volume that this tile decides, or shares in where tiles overlap."""
    crop: Box
    """Where `kept` lies in the output of the network."""
    ramps: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    """Weights along Z, Y and X over `kept`; all ones without overlap."""

    @property
    def weights(self) -> NDArray[np.float32]:
        """Z Y X float32 weights over `kept`, in 0..1; those of all tiles sum to 1 in every voxel."""
        z, y, x = self.ramps
        return z[:, None, None] * y[:, None] * x


class TileGrid:
    """The tiles that cover a volume, or a box of it.

    Parameters
    ----------
    shape
        Z Y X of the volume.
    footprint
        Of the network.
    tile
        Z Y X input size of the network; made legal, and cut down to the size of an untiled volume.
    halo
        Z Y X voxels dropped on each side of the output, except at the border of the volume. ``"auto"``: see
        `Footprint.auto_halo`.
    overlap
        Share of a tile's kept part that neighbours share and blend, in 0..1 (1 excluded).
    box
        Part of the volume to cover; None covers it all.

    Raises
    ------
    ConfigError
        If the halo leaves nothing of the tile.
    """

    def __init__(
        self,
        shape: Triple,
        footprint: Footprint,
        tile: Triple,
        halo: Halo = "auto",
        overlap: float = 0.0,
        box: Box | None = None,
    ) -> None:
        self.shape = shape
        self.footprint = footprint
        self.tile = footprint.legal_tile(tile, shape)
        self.halo = footprint.auto_halo(self.tile) if halo == "auto" else halo
        self.box = box or whole(shape)
        axes = [tile_axis(i, shape, footprint, self.tile[i], self.halo[i], overlap, self.box) for i in range(3)]
        if any(axis.step < 1 for axis in axes):
            raise ConfigError(
                f"halo = {self.halo} leaves nothing of tile = {self.tile} (Z Y X, total stride "
                f"{footprint.stride}); make the tile larger or the halo smaller"
            )
        self._spans = [axis.spans() for axis in axes]

    def __len__(self) -> int:
        return len(self._spans[0]) * len(self._spans[1]) * len(self._spans[2])

    def rows(self) -> list[list[Tile]]:
        """The tiles grouped by their place along Z, in order."""
        z_spans, y_spans, x_spans = self._spans
        footprint = self.footprint
        return [[_tile((z, y, x), footprint) for y in y_spans for x in x_spans] for z in z_spans]

    def tiles(self, start_at: tuple[int, int] | None = None) -> list[Tile]:
        """All tiles, in Z Y X order or those nearest to a plane first.

        Parameters
        ----------
        start_at
            Axis (0 = Z) and index of the plane that should be done first.
        """
        tiles = [tile for row in self.rows() for tile in row]
        if start_at is not None:
            axis, index = start_at
            tiles.sort(key=lambda t: max(t.kept[axis].start - index, index - t.kept[axis].stop + 1, 0))
        return tiles


def whole(shape: Triple) -> Box:
    """The box that is the whole volume of Z Y X size `shape`."""
    return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))


def tile_axis(i: int, shape: Triple, footprint: Footprint, tile: int, halo: int, overlap: float, box: Box) -> TileAxis:
    """The layout along axis `i` with its border, for a tile of that input size and a halo of that width there."""
    framed = footprint.within_frame(box)[i]
    return TileAxis(
        size=footprint.framed(shape)[i],
        low=framed.start,
        high=framed.stop,
        output=tile - footprint.shrink[i],
        shrink=footprint.shrink[i],
        stride=footprint.stride[i],
        halo=halo,
        overlap=overlap,
    )


def _tile(spans: tuple[TileSpan, TileSpan, TileSpan], footprint: Footprint) -> Tile:
    """Spans lie in the volume with its border, the tile in the volume."""

    def moved(part: slice, i: int) -> slice:
        return slice(part.start - footprint.border[i], part.stop - footprint.border[i])

    return Tile(
        read=_map3(lambda i: moved(spans[i].read, i)),
        kept=_map3(lambda i: moved(spans[i].kept, i)),
        crop=_map3(lambda i: slice(spans[i].offset, spans[i].offset + len(spans[i].ramp))),
        ramps=_map3(lambda i: spans[i].ramp),
    )


def continued_read(read: Sequence[slice], shape: Triple) -> tuple[Box, tuple[NDArray[np.intp], ...]]:
    """What of a volume must be read to fill a box that may reach outside of it.

    Parameters
    ----------
    read
        Z Y X slices; may start below 0 and end beyond `shape`.
    shape
        Z Y X of the volume.

    Returns
    -------
    Box
        The part to read, inside the volume.
    tuple
        For Z, Y and X the indices into that part which give the box, the outermost voxels repeated outside.
    """
    insides, indices = [], []
    for part, size in zip(read, shape, strict=True):
        place = np.arange(part.start, part.stop).clip(0, size - 1)
        low = int(place.min())
        insides.append(slice(low, int(place.max()) + 1))
        indices.append(place - low)
    z, y, x = insides
    return (z, y, x), tuple(indices)


def _map3(function: Callable[[int], T]) -> tuple[T, T, T]:
    return (function(0), function(1), function(2))
