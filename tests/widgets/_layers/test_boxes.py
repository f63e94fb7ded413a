from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.widgets._layers.boxes import NdBox, around, chained, merged, pieces, size, union, whole

SHAPE = (6, 7, 8)


@st.composite
def boxes(draw: st.DrawFn) -> NdBox:
    edges = [sorted(draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in SHAPE]
    return tuple(slice(first, max(stop, first + 1)) for first, stop in edges)


def covered(parts: list[NdBox]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    count = np.zeros(SHAPE, np.int64)
    for part in parts:
        count[part] += 1
    return count


@given(boxes(), st.integers(1, 400))
def test_pieces_hold_every_element_once(box: NdBox, limit: int) -> None:
    found = list(pieces(box, limit))
    assert all(size(piece) <= limit for piece in found)
    np.testing.assert_array_equal(covered(found), covered([box]))


@given(st.lists(boxes(), max_size=6))
def test_merged_boxes_hold_all_and_are_no_larger(parts: list[NdBox]) -> None:
    found = merged(parts)
    assert (covered(found)[covered(parts) > 0] > 0).all()
    assert sum(map(size, found)) <= sum(map(size, parts))


def test_crossing_slices_stay_apart() -> None:
    slices = [(slice(3, 4), slice(0, 7), slice(0, 8)), (slice(0, 6), slice(2, 3), slice(0, 8))]
    assert merged(slices) == slices
    assert merged([slices[0], slices[0]]) == [slices[0]]


def test_merging_goes_on_until_nothing_merges() -> None:
    row = [(slice(0, 1), slice(0, 1), slice(i, i + 1)) for i in (0, 2, 4, 1, 3)]
    assert merged(row) == [(slice(0, 1), slice(0, 1), slice(0, 5))]


@given(st.lists(boxes(), max_size=8), st.integers(0, 100))
def test_chained_boxes_hold_all(parts: list[NdBox], small: int) -> None:
    assert (covered(chained(parts, small))[covered(parts) > 0] > 0).all()


def test_a_long_thin_diagonal_is_not_one_box() -> None:
    stamps = [(slice(0, 1), slice(i, i + 3), slice(i, i + 3)) for i in range(300)]
    found = chained(stamps, 400)
    assert len(found) < 30
    assert sum(map(size, found)) < 300 * 45


@given(boxes(), boxes())
def test_union_holds_both(first: NdBox, second: NdBox) -> None:
    both = union(first, second)
    assert (covered([both])[covered([first, second]) > 0] == 1).all()


@given(boxes(), st.lists(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), max_size=4))
def test_around_is_the_smallest_box_of_what_is_set(box: NdBox, places: list[tuple[int, int, int]]) -> None:
    mask = np.zeros(SHAPE, bool)
    for place in places:
        mask[place] = True
    found = around(mask[box], box)
    inside = np.zeros(SHAPE, bool)
    inside[box] = mask[box]
    if not inside.any():
        assert found is None
    else:
        expected = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(inside))
        assert found == expected
    assert around(np.ones(SHAPE, bool), whole(SHAPE)) == whole(SHAPE)
