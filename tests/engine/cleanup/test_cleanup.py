"""Small results worked out by hand, properties, and scikit-image's own answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as skimage_label
from skimage.morphology import ball

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.cleanup.holes import fill_holes
from napari_unet3d.engine.cleanup.pieces import keep_largest_piece, remove_small_pieces
from napari_unet3d.engine.cleanup.run import CleanUpConfig, clean_up
from napari_unet3d.engine.cleanup.touching import split_touching_objects
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Finished, Inbox, Preparing, Stop

CUBIC = VoxelSize()
FLAT = VoxelSize(4.0, 1.0, 1.0, "um")

label_volumes = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(1, 3))


def plane(*rows: str) -> NDArray[np.uint8]:
    """One Z plane, a digit for each voxel."""
    return np.array([[[int(letter) for letter in row] for row in rows]], np.uint8)


# --- pieces -----------------------------------------------------------------------------------------------


def test_pieces_below_a_physical_volume_go() -> None:
    labels = plane("2211133", "1111133", "2111111")
    # voxels of 4 um3: the pieces have 8, 4 and 16 um3
    assert (remove_small_pieces(labels, 8.0, FLAT, background_id=1) == plane("2211133", "1111133", "1111111")).all()
    assert (remove_small_pieces(labels, 8.1, FLAT, background_id=1) == plane("1111133", "1111133", "1111111")).all()
    only_three = remove_small_pieces(labels, 99.0, FLAT, background_id=1, classes=[3])
    assert (only_three == plane("2211111", "1111111", "2111111")).all()


def test_voxels_that_share_a_corner_are_one_piece() -> None:
    labels = np.ones((3, 3, 3), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 2
    assert (remove_small_pieces(labels, 2.0, CUBIC, background_id=1) == labels).all()


def test_whole_numbers_of_voxels_do_not_fail_by_rounding() -> None:
    labels = plane("222111")
    tenth = VoxelSize(0.1, 0.1, 0.1)
    assert (remove_small_pieces(labels, 0.003, tenth, background_id=1) == labels).all()


def test_ids_beyond_a_byte_and_a_background_of_zero() -> None:
    labels = np.array([[[0, 700, 0, 700, 700]]], np.uint16)
    cleaned = remove_small_pieces(labels, 2.0, CUBIC, background_id=0)
    assert cleaned.dtype == np.uint16
    assert cleaned.tolist() == [[[0, 0, 0, 700, 700]]]


def test_only_the_largest_piece_of_each_class_stays() -> None:
    labels = plane("2212213", "1111111", "3331212")
    assert (keep_largest_piece(labels, background_id=1) == plane("2211111", "1111111", "3331111")).all()


def test_not_annotated_voxels_are_left_alone() -> None:
    labels = plane("0010200")
    assert (remove_small_pieces(labels, 9.0, CUBIC, background_id=1) == plane("0010100")).all()


@given(label_volumes, st.integers(0, 12))
def test_what_is_left_are_the_pieces_that_are_large_enough(labels: NDArray[np.uint8], least: int) -> None:
    before = labels.copy()
    cleaned = remove_small_pieces(labels, float(least), CUBIC, background_id=1)
    assert (labels == before).all()
    assert ((cleaned == labels) | (cleaned == 1)).all()
    for label_id in (2, 3):
        pieces = skimage_label(labels == label_id, connectivity=3)
        sizes = np.bincount(pieces.ravel())
        expected = (pieces > 0) & (sizes[pieces] >= least)
        assert ((cleaned == label_id) == expected).all()


@given(label_volumes)
def test_the_largest_piece_is_one_piece_of_the_greatest_size(labels: NDArray[np.uint8]) -> None:
    cleaned = keep_largest_piece(labels, background_id=1)
    for label_id in (2, 3):
        sizes = np.bincount(skimage_label(labels == label_id, connectivity=3).ravel())[1:]
        kept = cleaned == label_id
        assert kept.sum() == (sizes.max() if sizes.size else 0)
        assert skimage_label(kept, connectivity=3).max() <= 1
        assert not (kept & (labels != label_id)).any()


# --- holes ------------------------------------------------------------------------------------------------


def test_holes_of_a_plane() -> None:
    labels = plane(
        "1222211",
        "1211211",
        "1222211",
        "1111131",
        "1111313",
        "1111131",
    )
    expected = plane(
        "1222211",
        "1222211",
        "1222211",
        "1111131",
        "1111333",
        "1111131",
    )
    assert (fill_holes(labels, CUBIC, background_id=1) == expected).all()
    small = fill_holes(labels, CUBIC, background_id=1, largest_volume=1.0)
    assert small[0, 1].tolist() == labels[0, 1].tolist()
    assert small[0, 4, 5] == 3


def test_a_tunnel_is_no_hole_in_three_dimensions_but_in_each_plane_it_is() -> None:
    labels = np.full((3, 3, 3), 2, np.uint8)
    labels[:, 1, 1] = 1
    assert (fill_holes(labels, CUBIC, background_id=1) == labels).all()
    assert (fill_holes(labels[1:2], CUBIC, background_id=1) == 2).all()
    labels[[0, 2], 1, 1] = 2
    assert (fill_holes(labels, CUBIC, background_id=1) == 2).all()


def test_a_hole_between_two_classes_goes_to_the_one_with_more_area() -> None:
    labels = np.full((3, 3, 3), 2, np.uint8)
    labels[1, 1, 1] = 1
    labels[1, 1, 0] = labels[1, 1, 2] = labels[1, 0, 1] = 3
    assert fill_holes(labels, CUBIC, background_id=1)[1, 1, 1] == 2  # three faces each: the lower id
    # faces across Z have 1 x 1 = 1 um2 and those across Y and X 4 um2: class 3 has 12, class 2 only 6
    assert fill_holes(labels, FLAT, background_id=1)[1, 1, 1] == 3


def test_a_hole_beside_what_may_not_be_filled_stays() -> None:
    labels = plane("12221", "12131", "12221")
    assert (fill_holes(labels, CUBIC, background_id=1, classes=[2]) == labels).all()
    assert fill_holes(labels, CUBIC, background_id=1)[0, 1, 2] == 2
    labels = plane("12221", "12101", "12221")
    assert (fill_holes(labels, CUBIC, background_id=1) == labels).all()


@given(label_volumes.map(lambda labels: np.minimum(labels, 2)))
def test_holes_of_one_class_are_those_that_scipy_fills(labels: NDArray[np.uint8]) -> None:
    wide = [axis for axis, size in enumerate(labels.shape) if size > 1]
    flat = labels.squeeze(tuple(axis for axis in range(3) if axis not in wide))
    expected = ndimage.binary_fill_holes(flat == 2) if wide else flat == 2
    filled = fill_holes(labels, CUBIC, background_id=1)
    assert ((filled == 2).reshape(flat.shape) == expected).all()


# --- touching objects -------------------------------------------------------------------------------------


def two_balls(gap: int, radius: int = 6) -> NDArray[np.uint8]:
    """Two balls of class 2 whose middles are `gap` voxels apart along X."""
    side = 2 * radius + 1
    labels = np.ones((side + 2, side + 2, side + gap + 2), np.uint8)
    for start in (1, 1 + gap):
        labels[1:-1, 1:-1, start : start + side][ball(radius) > 0] = 2
    return labels


def test_two_touching_balls_are_cut_in_the_middle() -> None:
    labels = two_balls(gap=10)
    objects = split_touching_objects(labels, 8.0, CUBIC, background_id=1)
    assert objects.numbers.dtype == np.uint16
    assert objects.class_ids.tolist() == [0, 2, 2]
    assert ((objects.numbers > 0) == (labels == 2)).all()
    middle = 1 + 6 + 5
    assert set(np.unique(objects.numbers[..., :middle])) == {0, 1}
    assert set(np.unique(objects.numbers[..., middle + 1 :])) == {0, 2}


def test_separation_joins_them_and_is_a_length() -> None:
    labels = two_balls(gap=10)
    assert len(split_touching_objects(labels, 10.5, CUBIC, background_id=1).class_ids) == 2
    doubled = VoxelSize(2.0, 2.0, 2.0, "um")
    assert len(split_touching_objects(labels, 10.5, doubled, background_id=1).class_ids) == 3
    assert len(split_touching_objects(labels, math.inf, CUBIC, background_id=1).class_ids) == 2


def test_flat_voxels_change_where_the_middles_are() -> None:
    """The same two balls on a grid with every third plane only."""
    labels = two_balls(gap=10)[1::3]
    objects = split_touching_objects(labels, 8.0, VoxelSize(3.0, 1.0, 1.0), background_id=1)
    assert objects.class_ids.tolist() == [0, 2, 2]
    left = objects.numbers[..., : 1 + 6 + 4]
    assert set(np.unique(left)) == {0, 1}


def test_near_objects_that_do_not_touch_stay_two() -> None:
    labels = plane("22122", "22122")
    objects = split_touching_objects(labels, 99.0, CUBIC, background_id=1)
    assert objects.numbers.tolist() == plane("11022", "11022").tolist()


def test_classes_are_numbered_one_after_the_other() -> None:
    objects = split_touching_objects(plane("3310220", "0000110"), 99.0, CUBIC, background_id=1)
    assert objects.class_ids.tolist() == [0, 2, 3]
    assert objects.numbers.tolist() == plane("2200110", "0000000").tolist()


def test_a_volume_that_is_one_object_and_one_without_any() -> None:
    full = split_touching_objects(np.full((2, 3, 3), 2, np.uint8), 1.0, CUBIC, background_id=1)
    assert full.class_ids.tolist() == [0, 2]
    assert (full.numbers == 1).all()
    empty = split_touching_objects(np.ones((2, 3, 3), np.uint8), 1.0, CUBIC, background_id=1)
    assert empty.class_ids.tolist() == [0]
    assert not empty.numbers.any()


def test_many_objects_get_more_bits() -> None:
    labels = np.ones((2, 400, 400), np.uint8)
    labels[0, ::2, ::2] = labels[0, 1::2, 1::2] = 2  # corners touch within a plane: one piece
    apart = np.ones((1, 600, 600), np.uint8)
    apart[0, ::2, ::2] = 2
    assert split_touching_objects(labels, math.inf, CUBIC, background_id=1).numbers.dtype == np.uint16
    objects = split_touching_objects(apart, math.inf, CUBIC, background_id=1)
    assert objects.numbers.dtype == np.uint32
    assert objects.numbers.max() == 90_000 == len(objects.class_ids) - 1


@settings(max_examples=50)
@given(label_volumes, st.sampled_from([0.0, 1.5, 3.0, math.inf]))
def test_objects_cover_their_class_and_are_connected(labels: NDArray[np.uint8], separation: float) -> None:
    numbers, class_ids = split_touching_objects(labels, separation, FLAT, background_id=1)
    assert ((numbers > 0) == (labels > 1)).all()
    assert (class_ids[numbers] == np.where(labels > 1, labels, 0)).all()
    assert sorted(np.unique(numbers[numbers > 0])) == list(range(1, len(class_ids)))
    for number in range(1, len(class_ids)):
        assert skimage_label(numbers == number, connectivity=3).max() == 1
    if math.isinf(separation):
        pieces = sum(skimage_label(labels == label_id, connectivity=3).max() for label_id in (2, 3))
        assert len(class_ids) - 1 == pieces


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda labels: remove_small_pieces(labels, -1.0, CUBIC, background_id=1), "minimum volume = -1"),
        (lambda labels: remove_small_pieces(labels, math.nan, CUBIC, background_id=1), "at least 0"),
        (lambda labels: keep_largest_piece(labels, background_id=1, classes=[1, 2]), "background 1"),
        (lambda labels: keep_largest_piece(labels, background_id=1, classes=[0]), "hold 0"),
        (lambda labels: fill_holes(labels, CUBIC, background_id=1, largest_volume=math.nan), "largest hole"),
        (lambda labels: split_touching_objects(labels, -2.0, CUBIC, background_id=1), "separation = -2"),
    ],
)
def test_settings_that_make_no_sense(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(plane("122"))


# --- all in one -------------------------------------------------------------------------------------------


def finish(work: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            return events, end.value


LABELS = plane("2221133", "2121111", "2221121")


def test_holes_then_pieces() -> None:
    config = CleanUpConfig(fill_holes=True, keep_largest=True, minimum_volume=3.0)
    events, cleaned = finish(clean_up(LABELS, CUBIC, config, background_id=1))
    assert (cleaned == plane("2221111", "2221111", "2221111")).all()
    stages = [(event.stage, event.fraction) for event in events if isinstance(event, Preparing)]
    assert stages == [
        ("filling holes", 0.0),
        ("pieces of class 2", pytest.approx(1 / 3)),
        ("pieces of class 3", pytest.approx(2 / 3)),
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "done"


def test_nothing_to_do_gives_a_copy() -> None:
    events, cleaned = finish(clean_up(LABELS, CUBIC, CleanUpConfig(), background_id=1))
    assert (cleaned == LABELS).all()
    assert cleaned is not LABELS
    assert [event.reason for event in events] == ["done"]


def test_stop_between_two_classes() -> None:
    inbox = Inbox()
    work = clean_up(LABELS, CUBIC, CleanUpConfig(keep_largest=True), background_id=1, inbox=inbox)
    next(work)
    inbox.put(Stop())
    events, cleaned = finish(work)
    assert cleaned is None
    assert [event.reason for event in events] == ["stopped"]
