"""Maps of cells, evidence in them, and slices ranked by it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_unet3d.engine.annotation_units import find_units
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.suggest.cells import CellGrid
from napari_unet3d.engine.suggest.evidence import Evidence
from napari_unet3d.engine.suggest.ranking import RankedSlice, paintable_axes, ranked_slices

EVEN = np.ones(2)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def whole(shape: tuple[int, ...]) -> Box:
    z, y, x = (slice(0, size) for size in shape)
    return (z, y, x)


def unsure(share: NDArray[Any]) -> NDArray[np.float32]:
    """K Z Y X probabilities of two classes, undecided where `share` is 0.5."""
    return np.stack([1 - share, share]).astype(np.float32)


def gathered(
    share: NDArray[Any],
    labels: NDArray[np.uint8] | None = None,
    voxel_size: VoxelSize | None = None,
    most: int = 64,
    weights: NDArray[np.float64] = EVEN,
) -> tuple[Evidence, NDArray[np.uint8]]:
    labels = np.zeros(share.shape, np.uint8) if labels is None else labels
    z, y, x = share.shape
    evidence = Evidence(labels, CellGrid.over((z, y, x), voxel_size or VoxelSize(), most), weights)
    evidence[whole(share.shape)] = unsure(share)
    return evidence, labels


def ranked(*arguments: Any, count: int = 5, **more: Any) -> list[RankedSlice]:
    evidence, labels = gathered(*arguments, **more)
    return list(itertools.islice(ranked_slices(evidence, find_units(labels)), count))


# --- cells ------------------------------------------------------------------------------------------------


@given(shapes, st.integers(1, 4), st.data())
def test_cells_sum_what_lies_in_them(shape: tuple[int, int, int], most: int, data: st.DataObject) -> None:
    grid = CellGrid.over(shape, VoxelSize(), most)
    assert max(grid.shape) <= most
    starts = [data.draw(st.integers(0, size - 1)) for size in shape]
    z, y, x = (slice(a, data.draw(st.integers(a + 1, size))) for a, size in zip(starts, shape, strict=True))
    values = np.random.default_rng(0).integers(0, 9, shape)
    expected = np.zeros(grid.shape)
    inside = np.zeros(shape, bool)
    inside[z, y, x] = True
    for place in np.argwhere(inside):
        expected[tuple(place // grid.step)] += values[tuple(place)]
    found = np.zeros(grid.shape)
    cells, sums = grid.sums(values[z, y, x], (z, y, x))
    found[cells] = sums
    assert (found == expected).all()
    assert grid.voxels().sum() == np.prod(shape)


def test_positions_are_the_middles_of_cells() -> None:
    grid = CellGrid.over((5, 4, 3), VoxelSize(2.0, 1.0, 0.5), most=3)
    assert grid.step == (2, 2, 1)
    assert grid.edges == (4.0, 2.0, 0.5)
    assert grid.positions(0).tolist() == [2.0, 6.0, 9.0]
    assert grid.positions(2).tolist() == [0.25, 0.75, 1.25]


# --- evidence ---------------------------------------------------------------------------------------------


def test_evidence_of_voxels_that_nobody_annotated() -> None:
    share = np.zeros((2, 2, 2))
    share[0] = 0.5
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0, 0] = 1
    evidence, _ = gathered(share, labels, weights=np.array([1.0, 3.0]))
    # an undecided voxel has entropy 1 and weight (1 + 3) / 2; one of the four is annotated
    assert evidence.mass.tolist() == [[[0, 2], [2, 2]], [[0, 0], [0, 0]]]
    assert evidence.class_mass[0].tolist() == [[1.5, 0], [4.5, 0]]
    assert evidence.class_mass[1].tolist() == [[0.5, 1], [1.5, 3]]
    assert evidence.unpainted[2].tolist() == [3, 4]
    assert evidence.annotated.sum() == 1
    assert (evidence.seen == 1).all()
    assert evidence.plane_seen[0].tolist() == [4, 4]


@given(shapes, st.integers(1, 4), st.data())
def test_evidence_does_not_depend_on_the_tiles(shape: tuple[int, int, int], most: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(1)
    share, labels = rng.random(shape), rng.integers(0, 3, shape).astype(np.uint8)
    at_once, _ = gathered(share, labels, most=most)
    tiled = Evidence(labels, at_once.grid, EVEN)
    cuts = [sorted({0, data.draw(st.integers(0, size)), size}) for size in shape]
    for z, y, x in itertools.product(*(list(itertools.pairwise(cut)) for cut in cuts)):
        box = (slice(*z), slice(*y), slice(*x))
        tiled[(slice(None), *box)] = unsure(share[box])
    for name in ("mass", "seen", "annotated"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(at_once, name), rtol=1e-5)
    for axis in range(3):
        np.testing.assert_allclose(tiled.class_mass[axis], at_once.class_mass[axis], rtol=1e-5)
        np.testing.assert_allclose(at_once.class_mass[axis].sum(), at_once.mass.sum(), rtol=1e-5)
        assert (tiled.plane_seen[axis] == at_once.plane_seen[axis]).all()


# --- ranking ----------------------------------------------------------------------------------------------


def test_even_uncertainty_begins_in_the_middle_of_each_axis() -> None:
    found = ranked(np.full((9, 9, 9), 0.5), count=3)
    assert sorted((one.axis, one.index) for one in found) == [(0, 4), (1, 4), (2, 4)]
    assert [one.score for one in found] == pytest.approx([1, 1, 1])
    assert found[0].class_shares.tolist() == [0.5, 0.5]


def test_the_uncertain_slice_comes_first() -> None:
    share = np.zeros((9, 9, 9))
    share[:, 6, :] = 0.5
    share[2, 6, 8] = 0.0
    share[4, 1, 4] = 0.5
    best = ranked(share, count=1)[0]
    assert (best.axis, best.index) == (1, 6)
    assert best.centre[1] == 6


def test_half_of_an_uncertain_slice_is_painted() -> None:
    """Two equal halves are uncertain, and one is near annotation."""
    share = np.full((1, 8, 40), 0.5)
    labels = np.zeros(share.shape, np.uint8)
    labels[:, :, :4] = 1
    best = ranked(share, labels, count=2)
    assert [(one.axis, one.index) for one in best] == [(0, 0)]
    assert best[0].centre[2] > 30


def test_distances_are_physical() -> None:
    """A slice across a short axis is near to everything, however many voxels there are."""
    assert ranked(np.full((9, 9, 9), 0.5), voxel_size=VoxelSize(5.0, 1.0, 1.0), count=1)[0].axis in (1, 2)
    assert ranked(np.full((9, 9, 9), 0.5), voxel_size=VoxelSize(0.2, 1.0, 1.0), count=1)[0].axis == 0


def test_sure_of_everything_gives_what_is_far_from_annotation() -> None:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2] = labels[:, 5] = labels[:, :, 6] = 1
    found = ranked(np.zeros(labels.shape), labels, count=9)
    along_z = [one.index for one in found if one.axis == 0]
    assert along_z[0] in (8, 9)
    assert not found[0].class_shares.any()


def test_painted_slices_are_not_suggested_and_neighbours_come_late() -> None:
    labels = np.zeros((15, 15, 15), np.uint8)
    labels[7] = 2
    found = ranked(np.full(labels.shape, 0.5), labels, count=8)
    assert (0, 7) not in [(one.axis, one.index) for one in found]
    first_z = next(one.index for one in found if one.axis == 0)
    assert abs(first_z - 7) >= 4


def test_a_model_that_has_seen_one_slice_is_believed_less() -> None:
    """Unsure at the far end of X; the less it is believed, the nearer to the middle is the first slice across X."""
    share = np.full((9, 9, 30), 0.02)
    share[:, :, 22:] = 0.5

    def first_across_x(slices: int) -> int:
        labels = np.zeros(share.shape, np.uint8)
        labels[:slices] = 1
        return next(one.index for one in ranked(share, labels, count=30) if one.axis == 2)

    elsewhere, one, many = (first_across_x(slices) for slices in (0, 1, 6))
    assert 15 <= one < many <= elsewhere


def test_nothing_is_left_to_paint() -> None:
    assert ranked(np.full((4, 4, 4), 0.5), np.ones((4, 4, 4), np.uint8)) == []


def test_coarse_cells_still_give_the_very_slice() -> None:
    share = np.zeros((50, 6, 6))
    share[31] = 0.5
    evidence, _ = gathered(share, most=8)
    assert evidence.grid.step[0] == 7
    best = next(ranked_slices(evidence))
    assert (best.axis, best.index) == (0, 31)


def test_places_that_nobody_looked_at_count_like_their_neighbours() -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    evidence = Evidence(labels, CellGrid.over((8, 8, 8), VoxelSize()), EVEN)
    seen: Box = (slice(0, 8), slice(0, 2), slice(0, 8))
    share = np.zeros((8, 2, 8))
    share[6] = 0.5
    evidence[seen] = unsure(share)
    best = next(ranked_slices(evidence))
    assert (best.axis, best.index) == (0, 6)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 5, 5), [0, 1, 2]), ((1, 5, 5), [0]), ((5, 1, 5), [1]), ((1, 1, 5), [0]), ((1, 1, 1), [0])],
)
def test_slices_are_planes(shape: tuple[int, int, int], axes: list[int]) -> None:
    assert paintable_axes(shape) == axes


@settings(max_examples=30)
@given(shapes, st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_suggestions_are_unlike_worth_it_and_in_order(shape: tuple[int, int, int], most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for axis in range(3):
        labels[(slice(None),) * axis + (int(rng.integers(shape[axis])),)] = rng.integers(0, 3)
    evidence, _ = gathered(rng.random(shape), labels, VoxelSize(*rng.uniform(0.2, 3, 3)), most)
    found = list(ranked_slices(evidence, find_units(labels)))
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert len({(one.axis, one.index) for one in found}) == len(found)
    for one in found:
        assert 0 < one.score <= 1
        assert one.centre[one.axis] == one.index
        assert all(0 <= c < size for c, size in zip(one.centre, shape, strict=True))
        assert (np.take(labels, one.index, one.axis) == 0).any()
    assert bool(found) == bool((labels == 0).any())
