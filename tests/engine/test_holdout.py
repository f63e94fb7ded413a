"""Held-out slices are never trained on, stay the same, and are scored away from training annotation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.annotation_units import AnnotatedUnit
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.holdout import MIN_UNITS_TO_HOLD_OUT, HoldOut, margin_for

SHAPE = (40, 48, 56)
MARGIN = (4, 4, 4)
Labels = NDArray[np.uint8]


def with_planes(*planes: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> Labels:
    """Fully painted slices: class 1, and class 2 in a block in the middle of the volume."""
    truth = np.ones(shape, dtype=np.uint8)
    truth[tuple(slice(n // 4, 3 * n // 4) for n in shape)] = 2
    labels = np.zeros(shape, dtype=np.uint8)
    for axis, index in planes:
        np.moveaxis(labels, axis, 0)[index] = np.moveaxis(truth, axis, 0)[index]
    return labels


def choose(*labels: Labels, fraction: float = 0.2, seed: int = 0) -> HoldOut:
    return HoldOut.choose(labels, fraction, np.random.default_rng(seed), MARGIN)


AXIAL = [(0, z) for z in (3, 9, 15, 21, 27, 33)]
ALL_AXES = [(axis, index) for axis in range(3) for index in (8, 20, 32)]


@pytest.mark.parametrize("seed", range(5))
def test_one_of_six_axial_slices_is_held_out_whole(seed: int) -> None:
    labels = with_planes(*AXIAL)
    held = choose(labels, seed=seed)

    ((volume, axis, index),) = held.slices
    assert (volume, axis) == (0, 0)
    training, validation = held.training_labels(0), held.validation_labels(0)
    assert not training[index].any()
    assert np.array_equal(validation[index], labels[index])
    assert np.array_equal(training + validation, labels)


def test_the_margin_around_a_crossing_is_neither_trained_nor_scored() -> None:
    labels = with_planes((0, 20), (1, 30))
    held = HoldOut((labels,), 0.2, MARGIN, units=(AnnotatedUnit(0, 0, (20, 0, 0), (21, 48, 56)),))

    training, validation = held.training_labels(0), held.validation_labels(0)
    assert not training[20].any()
    assert np.array_equal(np.delete(training[:, 30], 20, 0), np.delete(labels[:, 30], 20, 0))
    assert not validation[20, 26:35].any()  # 4 rows at each side of row 30
    assert np.array_equal(validation[20, :26], labels[20, :26])
    assert np.array_equal(validation[20, 35:], labels[20, 35:])
    assert not validation[:20].any()
    assert not validation[21:].any()


def test_a_stroke_in_the_next_slice_hides_only_what_is_near_it() -> None:
    labels = with_planes((0, 20))
    held = HoldOut((labels,), 0.2, MARGIN, units=(AnnotatedUnit(0, 0, (20, 0, 0), (21, 48, 56)),))
    labels[21, 10, 10] = 1
    labels[23, 40, 40] = 1  # three planes away: as far as most of the volume is from some slice

    left_out = (labels[20] != 0) & (held.validation_labels(0)[20] == 0)
    assert left_out[6:15, 6:15].all()
    assert left_out.sum() == 9 * 9


@settings(max_examples=40)
@given(
    planes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 23)), min_size=5, max_size=14, unique=True),
    keep=st.integers(1, 7),
    seed=st.integers(0, 99),
    fraction=st.sampled_from([0.1, 0.2, 0.5, 0.9]),
)
def test_no_held_out_voxel_is_trained_and_none_is_scored_near_training(
    planes: list[tuple[int, int]], keep: int, seed: int, fraction: float
) -> None:
    labels = with_planes(*planes, shape=(24, 24, 24))
    labels[np.random.default_rng(seed).integers(0, keep, labels.shape) > 0] = 0
    held = choose(labels, fraction=fraction, seed=seed)
    training, validation = held.training_labels(0), held.validation_labels(0)

    in_units = np.zeros(labels.shape, dtype=bool)
    for unit in held.units:
        in_units[unit.box] = True
        assert validation[unit.box].any()
    assert np.array_equal(training, np.where(in_units, 0, labels))
    scored = validation != 0
    assert np.array_equal(validation[scored], labels[scored])
    assert not (scored & ~in_units).any()
    assert len(held.units) <= held.due
    # next door across the slices, within the margin in the plane: whatever the unit's axis, at least 2 voxels
    near = ndimage.binary_dilation(training != 0, np.ones((5, 5, 5), dtype=bool))
    assert not (scored & near).any()
    for label_id in (1, 2):
        assert np.sum(training == label_id) >= np.sum(labels == label_id) / 4


@pytest.mark.parametrize("count", range(5))
def test_few_slices_are_all_trained_on_and_it_is_said(count: int) -> None:
    labels = with_planes(*AXIAL[:count])
    held = choose(labels)

    assert held.units == ()
    assert np.array_equal(held.training_labels(0), labels)
    assert not held.validation_labels(0).any()
    assert held.explain().startswith(f"{count} annotated slice")
    assert f"from {MIN_UNITS_TO_HOLD_OUT} on, one in 5 is held out" in held.explain()


def test_nothing_is_held_out_without_validation() -> None:
    held = choose(with_planes(*AXIAL), fraction=0.0)

    assert held.units == ()
    assert "validation = 0" in held.explain()


def test_the_held_out_slices_are_named() -> None:
    held = choose(with_planes(*AXIAL))

    assert f"1 held out (z {held.slices[0][2]}; one in 5 of later ones)" in held.explain()
    assert "trained without them" in held.explain()
    assert "\n" not in held.explain()


@pytest.mark.parametrize(("units", "expected"), [(5, 1), (7, 1), (8, 2), (10, 2), (12, 2), (13, 3), (15, 3), (20, 4)])
def test_one_in_five_is_held_out(units: int, expected: int) -> None:
    labels = with_planes(*[(0, 4 * i + 1) for i in range(units)], shape=(81, 16, 16))

    assert len(choose(labels).units) == expected


def test_axes_and_volumes_take_turns() -> None:
    held = choose(with_planes(*ALL_AXES), with_planes(*AXIAL), fraction=0.27)

    assert held.due == 4
    assert {(volume, axis) for volume, axis, _ in held.slices} == {(0, 0), (0, 1), (0, 2), (1, 0)}


@pytest.mark.parametrize("seed", range(8))
def test_the_only_slice_with_a_class_is_never_held_out(seed: int) -> None:
    labels = with_planes(*AXIAL)
    labels[9, :5] = 3

    held = choose(labels, fraction=0.5, seed=seed)

    assert len(held.units) == 3
    assert (held.training_labels(0) == 3).any()


@pytest.mark.parametrize("seed", range(8))
def test_slices_that_show_a_structure_come_first(seed: int) -> None:
    labels = with_planes(*[(0, z) for z in (1, 5, 12, 18, 24, 34, 38)])  # class 2 is in planes 10 to 29

    assert choose(labels, seed=seed).slices[0][2] in (12, 18, 24)


@pytest.mark.parametrize("seed", range(8))
def test_slices_between_others_come_before_those_at_the_ends(seed: int) -> None:
    # class 2 lies within z 10..29: all five slices show it
    one = choose(with_planes(*((0, z) for z in (11, 15, 19, 23, 27))), seed=seed)
    assert {index for _, _, index in one.slices} < {15, 19, 23}

    all_between = choose(with_planes(*((0, z) for z in (11, 15, 19, 23, 27))), seed=seed, fraction=0.6)
    assert {15, 19, 23} == {index for _, _, index in all_between.slices}


def test_each_of_five_slices_with_a_class_of_its_own_is_needed() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for label_id, (_, z) in enumerate(AXIAL[:5], start=1):
        labels[z] = label_id
    held = choose(labels)

    assert held.units == ()
    assert "needed for training" in held.explain()


def test_neighbouring_slices_are_held_out_together() -> None:
    labels = with_planes(*[(0, z) for z in range(40) if z % 8 < 3])
    held = choose(labels)

    assert held.count == 5
    first = held.slices[0][2]
    assert held.slices == ((0, 0, first), (0, 0, first + 1), (0, 0, first + 2))
    assert first % 8 == 0


def test_cells_of_a_dense_volume_are_held_out() -> None:
    labels = with_planes(*[(0, z) for z in range(40)])
    held = choose(labels)

    assert held.count == 2 * 3 * 3
    assert held.slices == ()
    assert len(held.units) == 4
    assert held.validation_labels(0).any()
    assert "4 pieces" in held.explain()


def test_the_same_generator_gives_the_same_choice() -> None:
    labels = with_planes(*ALL_AXES)

    assert choose(labels, seed=3).units == choose(labels.copy(), seed=3).units
    assert len({choose(labels, seed=seed).units for seed in range(20)}) > 1


def test_the_choice_stays_and_later_slices_join_at_one_in_five() -> None:
    labels = with_planes(*[(0, 4 * i) for i in range(5)], shape=(121, 16, 16))
    truth = with_planes(*[(0, z) for z in range(121)], shape=(121, 16, 16))
    held = choose(labels)
    first = held.units
    joined = []
    for i in range(5, 30):
        labels[4 * i] = truth[4 * i]
        before = held.units
        held = held.extended([(0, (slice(4 * i, 4 * i + 1), slice(0, 16), slice(0, 16)))])
        assert held.units[: len(before)] == before
        joined.append(len(held.units) - len(before))

    assert held.units[:1] == first
    assert [sum(joined[i : i + 5]) for i in range(0, 25, 5)] == [1] * 5
    assert held.count == 30


def test_the_fifth_slice_is_the_first_that_can_be_held_out_later() -> None:
    labels = with_planes(*AXIAL[:4])
    held = choose(labels)
    labels[AXIAL[4][1]] = with_planes(AXIAL[4])[AXIAL[4][1]]

    held = held.extended()

    assert held.slices == ((0, 0, AXIAL[4][1]),)  # the other four have been trained on


def test_new_strokes_on_and_beside_slices_keep_their_side() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for _, z in AXIAL:
        labels[z, 5:20, 5:20] = 1
        labels[z, 10:15, 10:15] = 2
    held = choose(labels)
    index = held.slices[0][2]
    trained = next(z for _, z in AXIAL if z != index)

    for z in (index, trained, trained + 1, trained + 2):
        labels[z, 30:40, 30:40] = 2
        held = held.extended([(0, (slice(z, z + 1), slice(30, 40), slice(30, 40)))])

    assert held.slices == ((0, 0, index),)
    assert held.count == 6
    assert (held.validation_labels(0)[index, 30:40, 30:40] == 2).all()
    assert not held.training_labels(0)[index].any()
    assert (held.training_labels(0)[trained : trained + 3, 30:40, 30:40] == 2).all()


def test_looking_near_the_change_decides_as_looking_everywhere() -> None:
    labels = with_planes(*ALL_AXES)
    held = choose(labels)
    for box in (
        (slice(14, 15), slice(5, 30), slice(10, 40)),
        (slice(5, 25), slice(26, 27), slice(10, 40)),
        (slice(2, 3), slice(0, 48), slice(0, 56)),
    ):
        labels[box] = 2
        near, everywhere = held.extended([(0, box)]), held.extended()
        assert (near.units, near.count) == (everywhere.units, everywhere.count)
        assert near.count == held.count + 1
        held = near


def test_the_state_survives_json() -> None:
    labels = (with_planes(*ALL_AXES), with_planes(*[(0, z) for z in range(40)]))
    held = choose(*labels)

    again = HoldOut.from_state(json.loads(json.dumps(held.to_state())), labels)

    assert again.to_state() == held.to_state()
    assert again.units == held.units
    assert again.extended().units == held.units


def test_training_labels_of_a_box_are_a_part_of_all() -> None:
    held = choose(with_planes(*ALL_AXES), fraction=0.5)
    box = (slice(5, 30), slice(10, 40), slice(0, 33))

    assert np.array_equal(held.training_labels(0, box), held.training_labels(0)[box])


def test_the_margin_is_equally_long_along_every_axis() -> None:
    assert margin_for(VoxelSize(47.5, 4.6, 4.6, "nm")) == (1, 8, 8)
    assert margin_for(VoxelSize(2, 1, 1, "um")) == (4, 8, 8)


# --- volumes held out whole -------------------------------------------------------------------------------


def whole_second(*planes: tuple[int, int]) -> tuple[Labels, Labels, HoldOut]:
    first, second = with_planes(*AXIAL), with_planes(*planes)
    held = HoldOut.choose((first, second), 0.0, np.random.default_rng(0), MARGIN, volumes=(1,))
    return first, second, held


def test_a_volume_held_out_whole_is_scored_whole_and_not_trained_on() -> None:
    first, second, held = whole_second((0, 5), (1, 20), (2, 30))

    assert held.whole_volumes == (1,)
    assert np.array_equal(held.training_labels(0), first)
    assert not held.training_labels(1).any()
    assert not held.validation_labels(0).any()
    assert np.array_equal(held.validation_labels(1), second)
    assert held.slices == ((1, 0, 5), (1, 1, 20), (1, 2, 30))
    assert held.explain() == (
        "1 of 2 volumes is held out: the score shown is measured on 3 slices there, for the model trained without "
        "them, which is the model you get"
    )


def test_strokes_in_a_volume_held_out_whole_stay_held_out() -> None:
    _, second, held = whole_second((0, 5))
    second[20] = 1
    later = held.extended([(1, (slice(20, 21), slice(0, 48), slice(0, 56)))])

    assert later.units == held.units
    assert not later.training_labels(1).any()
    assert later.slices == ((1, 0, 5), (1, 0, 20))


def test_of_a_dense_volume_an_even_selection_of_planes_is_measured() -> None:
    dense = np.ones(SHAPE, np.uint8)
    held = HoldOut.choose((with_planes(*AXIAL), dense), 0.0, np.random.default_rng(0), MARGIN, volumes=(1,))

    indices = [index for volume, axis, index in held.slices if (volume, axis) == (1, 0)]
    assert len(indices) == len(held.slices) == 24
    assert (indices[0], indices[-1]) == (0, SHAPE[0] - 1)
    assert set(np.diff(indices)) == {1, 2}


def test_slices_can_be_held_out_beside_a_whole_volume() -> None:
    labels = (with_planes(*AXIAL), with_planes((0, 5)))
    held = HoldOut.choose(labels, 0.2, np.random.default_rng(0), MARGIN, volumes=(1,))
    assert len([unit for unit in held.units if unit.volume == 0]) == held.due == 1


def test_a_choice_with_a_whole_volume_survives_its_file() -> None:
    first, second, held = whole_second((0, 5), (1, 20))
    again = HoldOut.from_state(json.loads(json.dumps(held.to_state())), (first, second))

    assert again.slices == held.slices
    assert again.is_of_these_labels
    second[30] = 2
    assert again.is_of_these_labels  # whatever is painted there is measured on
    assert not HoldOut.from_state(held.to_state(), (first,)).is_of_these_labels  # one is missing
    first[38] = 2
    assert not again.is_of_these_labels
