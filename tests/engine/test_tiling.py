from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_unet3d.engine.blending import BlendBand
from napari_unet3d.engine.config import Triple, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.tile_planning import LARGEST_TILE, plan_tile
from napari_unet3d.engine.tiling import Footprint, TileGrid, continued_read, whole

POINTWISE = Footprint(stride=(1, 1, 1), full_halo=(0, 0, 0), shrink=(0, 0, 0), smallest=(1, 1, 1))
SMALL_UNET = Footprint(stride=(4, 4, 4), full_halo=(9, 9, 9), shrink=(0, 0, 0), smallest=(4, 4, 4))


@dataclass(frozen=True)
class Side:
    """One axis of a grid."""

    size: int
    tile: int
    stride: int
    halo: int
    margin: int
    border: int
    smallest: int
    low: float
    length: float

    @property
    def box(self) -> slice:
        low = int(self.low * (self.size - 1))
        return slice(low, low + 1 + int(self.length * (self.size - low - 1)))


sides = st.builds(
    Side,
    size=st.integers(1, 40),
    tile=st.integers(1, 40),
    stride=st.sampled_from([1, 2, 3, 4, 8]),
    halo=st.integers(0, 20),
    margin=st.sampled_from([0, 0, 1, 2, 5]),
    border=st.integers(0, 9),
    smallest=st.integers(1, 9),
    low=st.floats(0, 1),
    length=st.floats(0, 1),
)


@st.composite
def grids(draw: st.DrawFn, overlaps: st.SearchStrategy[float]) -> TileGrid:
    z, y, x = draw(st.tuples(sides, sides, sides))
    # the smallest output of a padded network is one stride
    smallest = [side.smallest if side.margin else side.stride for side in (z, y, x)]
    footprint = Footprint(
        stride=(z.stride, y.stride, x.stride),
        full_halo=(z.halo, y.halo, x.halo),
        shrink=(2 * z.margin, 2 * y.margin, 2 * x.margin),
        smallest=(smallest[0], smallest[1], smallest[2]),
        border=tuple(0 if side.margin else side.border for side in (z, y, x)),  # type: ignore[arg-type]
    )
    return TileGrid(
        (z.size, y.size, x.size),
        footprint,
        (z.tile, y.tile, x.tile),
        overlap=draw(overlaps),
        box=(z.box, y.box, x.box) if draw(st.booleans()) else None,
    )


def _total_weight(grid: TileGrid) -> NDArray[np.float64]:
    total = np.zeros(grid.shape)
    for tile in grid.tiles():
        total[tile.kept] += tile.weights
    return total


@settings(deadline=None, max_examples=150)
@given(grid=grids(st.just(0.0)))
def test_without_overlap_every_voxel_of_the_box_is_covered_exactly_once(grid: TileGrid) -> None:
    expected = np.zeros(grid.shape)
    expected[grid.box] = 1
    assert np.array_equal(_total_weight(grid), expected)


@settings(deadline=None, max_examples=150)
@given(grid=grids(st.floats(0.01, 0.95)))
def test_with_overlap_the_weights_of_every_voxel_sum_to_one(grid: TileGrid) -> None:
    expected = np.zeros(grid.shape)
    expected[grid.box] = 1
    np.testing.assert_allclose(_total_weight(grid), expected, atol=1e-6)


@settings(deadline=None, max_examples=150)
@given(grid=grids(st.sampled_from([0.0, 0.3])))
def test_tiles_are_alike_start_on_the_stride_and_keep_their_halo(grid: TileGrid) -> None:
    for tile in grid.tiles():
        for i in range(3):
            shrink, stride = grid.footprint.shrink[i], grid.footprint.stride[i]
            read, kept, crop = tile.read[i], tile.kept[i], tile.crop[i]
            assert read.stop - read.start == grid.tile[i]
            border = grid.footprint.border[i]
            start = read.start + shrink // 2 + border  # in the volume with its border
            stop = start + grid.tile[i] - shrink
            assert start % stride == 0
            first, last = kept.start + border, kept.stop + border
            assert (crop.start, crop.stop) == (first - start, last - start)
            # a halo is dropped on each side, except where the tile ends with the untiled volume
            untiled = grid.footprint.legal_output(grid.footprint.framed(grid.shape))[i]
            assert start >= 0
            assert stop <= untiled
            assert start == 0 or first - start >= grid.halo[i]
            assert stop == untiled or stop - last >= grid.halo[i]


def test_tiles_of_a_row_by_hand() -> None:
    grid = TileGrid((1, 1, 10), POINTWISE, (1, 1, 6), halo=(0, 0, 1))
    spans = [(t.read[2], t.kept[2], t.crop[2]) for t in grid.tiles()]
    assert spans == [
        (slice(0, 6), slice(0, 5), slice(0, 5)),
        (slice(4, 10), slice(5, 10), slice(1, 6)),
    ]


def test_overlap_by_hand_is_a_linear_ramp() -> None:
    grid = TileGrid((1, 1, 6), POINTWISE, (1, 1, 4), overlap=0.5)
    left, right = (t.weights.ravel() for t in grid.tiles())
    np.testing.assert_allclose(left, [1, 1, 0.75, 0.25])
    np.testing.assert_allclose(right, [0.25, 0.75, 1, 1])


def test_valid_tiles_read_their_margin_from_outside_of_the_volume() -> None:
    valid = Footprint(stride=(1, 1, 2), full_halo=(0, 0, 0), shrink=(0, 0, 6), smallest=(1, 1, 2))
    grid = TileGrid((1, 1, 7), valid, (1, 1, 10))
    assert [(t.read[2], t.kept[2]) for t in grid.tiles()] == [
        (slice(-3, 7), slice(0, 4)),
        (slice(1, 11), slice(4, 7)),
    ]


def test_a_small_volume_gets_one_tile_of_the_next_legal_size() -> None:
    grid = TileGrid((3, 9, 20), SMALL_UNET, (128, 128, 128))
    assert grid.tile == (4, 12, 20)
    assert len(grid) == 1


def test_a_network_that_pads_with_zeros_gets_a_border() -> None:
    framed = replace(SMALL_UNET, border=(0, 4, 7))
    grid = TileGrid((4, 9, 20), framed, (128, 128, 128))
    assert grid.tile == (4, 20, 36)  # 9 + 2 * 4 and 20 + 2 * 7, rounded up to the stride
    (tile,) = grid.tiles()
    assert tile.read == (slice(0, 4), slice(-4, 16), slice(-7, 29))
    assert tile.kept == whole((4, 9, 20))
    assert tile.crop == (slice(0, 4), slice(4, 13), slice(7, 27))


def test_tiles_nearest_to_the_plane_come_first() -> None:
    grid = TileGrid((40, 8, 8), POINTWISE, (8, 8, 8))
    assert [t.kept[0].start for t in grid.tiles(start_at=(0, 17))] == [16, 8, 24, 0, 32]


def test_a_halo_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"halo = \(8, 8, 8\) leaves nothing of tile = \(16, 16, 16\)"):
        TileGrid((64, 64, 64), SMALL_UNET, (16, 16, 16), halo=(8, 8, 8))


@given(
    size=st.integers(1, 12),
    before=st.integers(0, 30),
    after=st.integers(0, 30),
)
def test_repeating_is_that_of_numpy(size: int, before: int, after: int) -> None:
    line = np.arange(size)
    read = (slice(0, 1), slice(0, 1), slice(-before, size + after))
    box, (_, _, x) = continued_read(read, (1, 1, size))
    assert np.array_equal(line[box[2]][x], np.pad(line, (before, after), mode="edge"))


def test_repeating_reads_no_more_than_is_needed() -> None:
    read = (slice(-3, 5), slice(2, 4), slice(0, 1))
    box, (z, _, _) = continued_read(read, (100, 100, 1))
    assert box == (slice(0, 5), slice(2, 4), slice(0, 1))
    assert z.tolist() == [0, 0, 0, 0, 1, 2, 3, 4]


# --- planning -----------------------------------------------------------------------------------------------


def _plan(shape: Triple, footprint: Footprint, memory: int = 10**12, box: Box | None = None) -> TileGrid:
    """The planned grid, at 100 bytes a voxel."""
    tile = plan_tile(shape, footprint, memory_of=lambda zyx: 100 * math.prod(zyx), memory=memory, box=box)
    return TileGrid(shape, footprint, tile, box=box)


def test_thin_stacks_get_thin_tiles() -> None:
    grid = _plan((20, 512, 512), SMALL_UNET)
    assert grid.tile[0] == 20
    assert len(grid) <= 4


def test_a_volume_a_little_too_large_for_one_tile_gets_two_of_half_its_size() -> None:
    grid = _plan((160, 160, 210), SMALL_UNET)
    assert grid.tile == (160, 160, 116)  # (210 + 2 * 9) / 2, on a multiple of 4
    assert len(grid) == 2


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 3000)] * 3),
    memory=st.integers(10_000, 10**10),
)
def test_planned_tiles_respect_memory_and_size(shape: Triple, memory: int) -> None:
    voxels = np.prod(_plan(shape, SMALL_UNET, memory).tile)
    assert 100 * voxels <= memory
    assert voxels <= LARGEST_TILE


@pytest.mark.parametrize("shape", [(160, 232, 160), (300, 1024, 1024), (20, 512, 512)])
def test_planned_tiles_have_the_wanted_halo_wherever_they_are_cut(shape: Triple) -> None:
    footprint = Footprint(stride=(4, 4, 4), full_halo=(42, 42, 42), shrink=(0, 0, 0), smallest=(4, 4, 4))
    tile = plan_tile(shape, footprint, memory_of=lambda zyx: math.prod(zyx), memory=10**9)
    grid = TileGrid(shape, footprint, tile)

    assert footprint.wanted_halo == (16, 16, 16)
    for size, extent, halo in zip(grid.tile, shape, grid.halo, strict=True):
        assert size >= extent or halo == 16


def test_memory_below_the_smallest_tile_is_refused() -> None:
    with pytest.raises(ConfigError, match="memory = 0 MB is less than"):
        _plan((50, 50, 50), SMALL_UNET, memory=6000)


def test_a_plane_is_planned_as_a_slab_with_its_halo() -> None:
    grid = _plan((100, 100, 100), SMALL_UNET, box=(slice(50, 51), slice(0, 100), slice(0, 100)))
    assert grid.halo[0] == 9
    assert grid.tile[0] <= 30
    assert len(grid) == 1


def test_footprints_of_configured_networks() -> None:
    padded = Footprint.of(UNetConfig(levels=3, kernel=3, strides=2))
    assert padded.stride == padded.smallest == (4, 4, 4)
    assert padded.shrink == (0, 0, 0)
    assert padded.full_halo == describe(UNetConfig(levels=3, kernel=3, strides=2)).context
    valid = Footprint.of(UNetConfig(levels=4, kernel=3, strides=2, padding="valid"))
    assert valid.shrink == (88, 88, 88)  # Çiçek 2016: 132 -> 44, 116 -> 28
    assert valid.full_halo == (0, 0, 0)
    assert valid.legal_tile((132, 132, 116), (500, 500, 500)) == (132, 132, 116)


# --- blending -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(grid=grids(st.floats(0.01, 0.95)))
def test_the_band_gives_every_voxel_once_and_the_same_as_the_whole_volume(grid: TileGrid) -> None:
    values = np.random.default_rng(0).random((2, *grid.shape), dtype=np.float32)
    result = np.full((2, *grid.shape), np.nan, np.float32)
    band = BlendBand(grid, 2)
    for tile in grid.tiles():
        box, block = band.add(tile, values[(slice(None), *tile.kept)])
        assert np.isnan(result[(slice(None), *box)]).all()
        result[(slice(None), *box)] = block
    np.testing.assert_allclose(result[(slice(None), *grid.box)], values[(slice(None), *grid.box)], atol=1e-6)


def test_the_whole_box() -> None:
    box: Box = whole((2, 3, 4))
    assert np.zeros((2, 3, 4))[box].shape == (2, 3, 4)
