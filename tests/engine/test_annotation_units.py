"""Annotation as a person paints it comes apart into the slices and strokes it was painted in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from napari_unet3d.engine.annotation_units import AnnotatedUnit, find_units, unseen

SHAPE = (40, 48, 56)
Labels = NDArray[np.uint8]


def with_planes(*planes: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> Labels:
    labels = np.zeros(shape, dtype=np.uint8)
    for axis, index in planes:
        np.moveaxis(labels, axis, 0)[index] = 1 + index % 2
    return labels


def scribble(labels: Labels, axis: int, index: int, radius: float, seed: int = 0) -> None:
    """A wandering stroke of a round brush in one plane."""
    plane = np.moveaxis(labels, axis, 0)[index]
    rng = np.random.default_rng([seed, axis, index])
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    place, angle = np.array(plane.shape) / 2, rng.uniform(0, 6.28)
    for _ in range(40):
        angle += rng.normal() * 0.4
        place = np.clip(place + np.array([np.sin(angle), np.cos(angle)]), 0, np.array(plane.shape) - 1)
        plane[(rows - place[0]) ** 2 + (columns - place[1]) ** 2 <= radius**2] = 1


def ball(labels: Labels, centre: Sequence[int], radius: float) -> None:
    z, y, x = np.ogrid[: labels.shape[0], : labels.shape[1], : labels.shape[2]]
    labels[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2] = 2


def slices_of(units: Sequence[AnnotatedUnit]) -> list[tuple[int, int, int]]:
    return [(u.axis, u.start[u.axis], u.stop[u.axis]) for u in units if u.axis is not None]


def pieces_of(units: Sequence[AnnotatedUnit]) -> list[AnnotatedUnit]:
    return [unit for unit in units if unit.axis is None]


@pytest.mark.parametrize(
    "planes",
    [
        [(0, 5)],
        [(0, 10), (0, 20), (0, 30)],
        [(0, 20), (1, 24), (2, 28)],
        [(0, 10), (0, 20), (0, 30), (1, 8), (1, 20), (1, 40), (2, 3), (2, 20), (2, 50)],
        [(0, 0), (1, 47), (2, 0)],
    ],
)
def test_full_slices_are_told_apart_where_they_cross(planes: list[tuple[int, int]]) -> None:
    units = find_units(with_planes(*planes), volume=3)

    assert slices_of(units) == [(axis, index, index + 1) for axis, index in planes]
    assert not pieces_of(units)
    assert all(unit.volume == 3 for unit in units)
    assert units[0].box == (slice(planes[0][1], planes[0][1] + 1), slice(0, 48), slice(0, 56))


@pytest.mark.parametrize("radius", [0.6, 1.2, 3.0, 5.0])
@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_scribbles_belong_to_the_slice_they_were_painted_in(radius: float, axes: tuple[int, ...]) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    painted = [(axis, index) for axis in axes for index in (8, 18, 30)]
    for axis, index in painted:
        scribble(labels, axis, index, radius)

    units = find_units(labels)

    assert slices_of(units) == [(axis, index, index + 1) for axis, index in painted]
    assert not pieces_of(units)


def test_a_row_shared_by_many_slices_is_no_slice_of_its_own() -> None:
    """The row y = 20 has 14 x 45 voxels, more than any Z slice; yet the Z slices explain it all."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[::3, 19:22, 5:50] = 1
    for z in range(0, 40, 3):
        labels[z, 30:36, z : z + 6] = 2

    assert slices_of(find_units(labels)) == [(0, z, z + 1) for z in range(0, 40, 3)]


def test_neighbouring_slices_form_one_unit() -> None:
    planes = [(0, z) for z in (10, 11, 12, 20, 22, 30)]

    assert slices_of(find_units(with_planes(*planes))) == [(0, 10, 13), (0, 20, 23), (0, 30, 31)]


def test_slices_two_apart_are_separate_where_planes_lie_far_apart() -> None:
    planes = [(0, z) for z in (1, 3, 5, 6)]

    assert slices_of(find_units(with_planes(*planes), margin=(1, 8, 8))) == [(0, 1, 2), (0, 3, 4), (0, 5, 7)]


def test_long_runs_of_scribbled_slices_are_cut() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for z in range(10, 30):
        labels[z, 2 * z - 15 : 2 * z - 12, 5:40] = 1  # steep enough to lie in Z planes only

    assert slices_of(find_units(labels)) == [(0, 10, 15), (0, 15, 20), (0, 20, 25), (0, 25, 30)]


@pytest.mark.parametrize("radius", [2.5, 4.0, 7.0])
def test_blobs_are_pieces(radius: float) -> None:
    labels = np.zeros((64, 64, 64), dtype=np.uint8)
    centres = [(12, 12, 12), (12, 50, 30), (48, 20, 50)]
    for centre in centres:
        ball(labels, centre, radius)

    units = find_units(labels)

    r = int(radius)
    assert [(unit.axis, unit.start, unit.stop) for unit in units] == [
        (None, (z - r, y - r, x - r), (z + r + 1, y + r + 1, x + r + 1)) for z, y, x in centres
    ]


def test_a_dense_block_does_not_hide_slices_through_and_beside_it() -> None:
    labels = with_planes((0, 5), (0, 24))
    labels[15:33, 15:33, 15:33] = 2

    units = find_units(labels)

    assert slices_of(units) == [(0, 5, 6), (0, 24, 25)]
    assert [(unit.start, unit.stop) for unit in pieces_of(units)] == [((15, 15, 15), (33, 33, 33))]


@pytest.mark.parametrize(
    ("shape", "margin", "cells"),
    [
        ((100, 100, 100), (8, 8, 8), 3 * 3 * 3),
        ((20, 200, 200), (1, 8, 8), 5 * 5 * 5),
        ((1, 96, 96), (8, 8, 8), 9),
    ],
)
def test_a_dense_volume_is_cut_into_cells(
    shape: tuple[int, int, int], margin: tuple[int, int, int], cells: int
) -> None:
    units = find_units(np.ones(shape, dtype=np.uint8), margin)

    covered = np.zeros(shape, dtype=np.uint8)
    for unit in units:
        assert unit.axis is None
        covered[unit.box] += 1
    assert len(units) == cells
    assert (covered == 1).all()


def test_strokes_on_a_single_plane_are_pieces() -> None:
    labels = np.zeros((1, 100, 100), dtype=np.uint8)
    labels[0, 10, 10:30] = 1
    labels[0, 80, 60:90] = 2

    assert [(unit.start, unit.stop) for unit in find_units(labels)] == [
        ((0, 10, 10), (1, 11, 30)),
        ((0, 80, 60), (1, 81, 90)),
    ]


def test_no_annotation_no_units() -> None:
    assert find_units(np.zeros(SHAPE, dtype=np.uint8)) == ()


def test_looking_near_a_stroke_finds_its_slice() -> None:
    labels = with_planes((1, 20), (2, 30))
    labels[12, 5:30, 10:40] = 1

    units = find_units(labels, near=(slice(12, 13), slice(5, 30), slice(10, 40)))

    assert AnnotatedUnit(0, 0, (12, 0, 0), (13, 48, 56)) in units
    known = find_units(with_planes((1, 20), (2, 30)))
    assert slices_of(unseen(units, known, labels)) == [(0, 12, 13)]


@settings(deadline=None, max_examples=60)
@given(
    labels=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=14),
        elements=st.integers(0, 2),
    ),
    margin=st.tuples(*[st.integers(1, 6)] * 3),
    thinning=st.integers(1, 60),
)
def test_every_annotated_voxel_lies_in_a_unit_inside_the_volume(
    labels: Labels, margin: tuple[int, int, int], thinning: int
) -> None:
    labels.flat[np.arange(labels.size) % thinning != 0] = 0
    units = find_units(labels, margin)

    covered = np.zeros(labels.shape, dtype=bool)
    for unit in units:
        assert all(0 <= a < b <= n for a, b, n in zip(unit.start, unit.stop, labels.shape, strict=True))
        assert labels[unit.box].any()
        covered[unit.box] = True
    assert covered[labels != 0].all()
    assert len(set(units)) == len(units)
