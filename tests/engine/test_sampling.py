"""Patches lie around annotated voxels, follow the slices' axis and show the classes evenly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_unet3d.engine import sampling
from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.patch_shapes import patch_shapes
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.sampling import Patch, PatchSampler

SHAPE = (40, 48, 56)
Labels = NDArray[np.uint8]


def with_planes(*planes: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> Labels:
    labels = np.zeros(shape, dtype=np.uint8)
    for axis, index in planes:
        plane = np.moveaxis(labels, axis, 0)[index]
        plane[...] = 1
        plane[5:10, 5:10] = 2
    return labels


def seen_by(patch: Patch, labels: Labels, border: tuple[int, int, int] = (0, 0, 0)) -> Labels:
    """Labels inside the patch, without its border."""
    z, y, x = (
        slice(max(start + b, 0), max(start + n - b, 0))
        for start, n, b in zip(patch.start, patch.size, border, strict=True)
    )
    return labels[z, y, x]


def slabs(thickness: int, side: int, stride: Triple = (1, 1, 1)) -> dict[int | None, Triple]:
    return patch_shapes((thickness, thickness, thickness), thickness * side * side, stride, SHAPE)


# --- drawing ----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    voxels=st.lists(st.tuples(*[st.floats(0, 0.999)] * 3), min_size=1, max_size=12),
    slab=st.tuples(st.integers(1, 9), st.integers(4, 24)),
    border=st.tuples(*[st.integers(0, 3)] * 3),
    seed=st.integers(0, 99),
)
def test_patches_show_the_drawn_class_and_stay_in_the_volume_where_they_can(
    shape: tuple[int, int, int],
    voxels: list[tuple[float, float, float]],
    slab: tuple[int, int],
    border: tuple[int, int, int],
    seed: int,
) -> None:
    labels = np.zeros(shape, dtype=np.uint8)
    for i, place in enumerate(voxels):
        labels[tuple(int(p * n) for p, n in zip(place, shape, strict=True))] = 1 + i % 3
    # room for the border, as a network without padding asks for
    size = (slab[0] + 6, slab[1] + 6, slab[1] + 6)
    shapes = dict.fromkeys((0, 1, 2, None), size)
    sampler = PatchSampler([labels], (1, 2, 3), shapes=shapes, border=border)
    rng = np.random.default_rng(seed)

    for patch in (sampler.draw(rng) for _ in range(10)):
        assert patch.label_id in seen_by(patch, labels, border)
        assert patch.size == shapes[patch.axis]
        for start, centre, n, extent, edge in zip(patch.start, patch.centre, patch.size, shape, border, strict=True):
            assert start == centre - (n - 1) / 2
            if n <= extent + 2 * edge:
                assert start >= -edge
                assert start + n <= extent + edge
            else:
                assert start <= -edge
                assert start + n >= extent + edge


def test_a_slice_lies_anywhere_in_its_slab_but_at_the_border() -> None:
    sampler = PatchSampler([with_planes((0, 20))], (1, 2), shapes=slabs(8, 16))
    rng = np.random.default_rng(0)

    places = Counter(20 - sampler.draw(rng).start[0] for _ in range(300))

    assert set(places) == {1, 2, 3, 4, 5, 6}
    assert min(places.values()) > 25  # 50 expected


def test_patches_are_spread_in_the_plane() -> None:
    labels = np.zeros((20, 100, 100), dtype=np.uint8)
    labels[10, 48:52, 48:52] = 1
    sampler = PatchSampler([labels], (1,), shapes=slabs(8, 32))
    rng = np.random.default_rng(0)

    starts = np.array([sampler.draw(rng).start for _ in range(400)])

    # the voxel is 48 to 51 and lies 4 to 27 voxels into the patch
    assert starts[:, 1:].min() == 48 - 27
    assert starts[:, 1:].max() == 51 - 4
    assert np.abs(starts[:, 1:].mean(axis=0) - 34).max() < 1.5


def test_classes_are_drawn_half_evenly_half_by_their_voxels() -> None:
    labels = np.zeros((20, 50, 50), dtype=np.uint8)
    labels[10] = 1
    labels[10, :5, :10] = 7
    labels[10, 10:20, :10] = 3
    sampler = PatchSampler([labels], (1, 3, 7), shapes=slabs(8, 16))
    rng = np.random.default_rng(0)

    drawn = Counter(sampler.draw(rng).label_id for _ in range(4000))

    for label_id, voxels in ((1, 2350), (3, 100), (7, 50)):
        assert drawn[label_id] / 4000 == pytest.approx(0.5 / 3 + 0.5 * voxels / 2500, abs=0.03)


def test_a_class_seen_on_one_axis_only_is_drawn_as_often() -> None:
    labels = with_planes(*[(0, z) for z in range(2, 40, 4)])
    labels[:, 20] = 3
    labels[2::4, 20] = 1  # the crossings
    sampler = PatchSampler([labels], (1, 2, 3), shapes=slabs(8, 16))
    rng = np.random.default_rng(0)

    patches = [sampler.draw(rng) for _ in range(1500)]

    assert sampler.shares == {0: 10 / 11, 1: 1 / 11}
    share = np.mean([patch.axis == 1 for patch in patches])
    assert 0.17 < share < 0.28  # a sixth for the class itself, and a little for its voxels and the crossings


def test_orientations_follow_the_number_and_size_of_slices() -> None:
    sampler = PatchSampler([with_planes((0, 5), (0, 15), (0, 30), (2, 30))], (1, 2), shapes=slabs(8, 16))
    rng = np.random.default_rng(0)

    share = np.mean([sampler.draw(rng).axis == 0 for _ in range(2000)])

    by_voxels = 3 * 48 * 56 / (3 * 48 * 56 + 40 * 48)
    assert share == pytest.approx((0.75 + by_voxels) / 2, abs=0.03)


def test_a_small_stroke_is_drawn_beside_large_slices() -> None:
    labels = with_planes((0, 5), (0, 15))
    labels[30, 20:24, 20:24] = 1
    sampler = PatchSampler([labels], (1,), shapes=slabs(6, 16))
    rng = np.random.default_rng(0)

    share = np.mean([sampler.draw(rng).start[0] > 20 for _ in range(1000)])

    assert share > 1 / 8  # one unit of three, half of the time; by voxels it would be 1 in 330


def test_a_batch_has_one_size_and_mixes_volumes() -> None:
    volumes = [with_planes((0, 5), (1, 15)), with_planes((0, 8), (1, 30), shape=(20, 64, 64))]
    sampler = PatchSampler(volumes, (1, 2), shapes=slabs(8, 16))
    rng = np.random.default_rng(0)

    batches = [sampler.draw_batch(rng, 6) for _ in range(40)]

    assert all(len(batch) == 6 for batch in batches)
    assert all(len({(patch.size, patch.axis) for patch in batch}) == 1 for batch in batches)
    assert {batch[0].axis for batch in batches} == {0, 1}
    assert any(len({patch.volume for patch in batch}) == 2 for batch in batches)


def test_blobs_get_cubes() -> None:
    labels = np.zeros((64, 64, 64), dtype=np.uint8)
    labels[20:32, 20:32, 20:32] = 1
    labels[40:52, 40:52, 20:32] = 2
    sampler = PatchSampler([labels], (1, 2), shapes=slabs(8, 64, (4, 4, 4)))

    patch = sampler.draw(np.random.default_rng(0))

    assert (patch.axis, patch.size) == (None, (32, 32, 32))


def test_the_same_generator_draws_the_same_patches() -> None:
    labels = with_planes((0, 5), (1, 15), (2, 50))
    one, other = (PatchSampler([labels.copy()], (1, 2), shapes=slabs(8, 16)) for _ in range(2))

    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    first = [one.draw_batch(rng, 3) for _ in range(20)]

    assert [other.draw_batch(same, 3) for _ in range(20)] == first
    assert len({patch.centre for batch in first for patch in batch}) > 20


def test_ids_that_are_no_class_are_not_drawn() -> None:
    labels = with_planes((0, 5), (0, 20))
    labels[20] = 9
    sampler = PatchSampler([labels], (1, 2), shapes=slabs(2, 16))
    rng = np.random.default_rng(0)

    assert all(sampler.draw(rng).start[0] <= 5 for _ in range(50))


def test_without_annotation_drawing_says_what_to_do() -> None:
    sampler = PatchSampler([np.zeros(SHAPE, dtype=np.uint8)], (1, 2), shapes=slabs(8, 16))

    assert sampler.shares == {}
    with pytest.raises(DataError, match="paint at least two classes"):
        sampler.draw(np.random.default_rng(0))


def test_of_too_many_voxels_an_even_selection_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_VOXELS", 500)
    labels = with_planes((0, 5), (0, 25))
    sampler = PatchSampler([labels.copy()], (1, 2), shapes=slabs(2, 8))
    rng = np.random.default_rng(0)

    drawn = Counter(sampler.draw(rng).label_id for _ in range(1000))
    assert drawn[2] > 200  # all classes stay, with their true counts
    centres = np.array([sampler.draw(rng).centre for _ in range(1000)])
    assert np.ptp(centres, axis=0).min() >= 20

    box = (slice(15, 16), slice(0, 48), slice(0, 56))
    sampler.update_box(0, box, labels[5:6])
    assert 15 - sampler.draw(rng).start[0] in (0, 1)


# --- new strokes ------------------------------------------------------------------------------------------


def boxed(*sides: tuple[int, int]) -> Box:
    z, y, x = (slice(*side) for side in sides)
    return (z, y, x)


def share_of_draws(sampler: PatchSampler, count: int = 600) -> dict[tuple[object, int], float]:
    rng = np.random.default_rng(0)
    drawn = Counter((patch.axis, patch.label_id) for patch in (sampler.draw(rng) for _ in range(count)))
    return {key: number / count for key, number in drawn.items()}


@pytest.mark.parametrize(
    "box",
    [
        boxed((30, 31), (0, 48), (0, 56)),  # a new slice
        boxed((5, 6), (20, 30), (20, 30)),  # a correction on a painted slice
        boxed((6, 7), (20, 30), (20, 30)),  # a stroke beside a painted slice
        boxed((0, 40), (40, 41), (3, 50)),  # a slice on another axis
        boxed((14, 24), (14, 24), (14, 24)),  # a blob
    ],
)
def test_updating_a_box_equals_starting_anew(box: Box) -> None:
    labels = with_planes((0, 5), (1, 20))
    sampler = PatchSampler([labels.copy()], (1, 2), shapes=slabs(6, 12))
    labels[box] = 2
    anew = PatchSampler([labels.copy()], (1, 2), shapes=slabs(6, 12))

    sampler.update_box(0, box, labels[box])

    assert np.array_equal(sampler.labels[0], labels)
    assert sampler.shares == anew.shares
    first = sampler.draw(np.random.default_rng(1))
    assert first.label_id == 2
    inside = tuple(
        slice(max(s.start - b, 0), max(s.start - b, 0) + n)
        for s, b, n in zip(box, first.start, first.size, strict=True)
    )
    assert all(s.start < n for s, n in zip(inside, first.size, strict=True))
    ours, theirs = share_of_draws(sampler), share_of_draws(anew)
    assert ours.keys() == theirs.keys()
    for key, share in theirs.items():
        assert ours[key] == pytest.approx(share, abs=0.08)


def test_each_new_stroke_is_in_the_next_batch_once() -> None:
    labels = with_planes(*[(0, z) for z in range(2, 40, 4)])
    sampler = PatchSampler([labels], (1, 2), shapes=slabs(2, 8))
    rng = np.random.default_rng(0)
    for y in (12, 30):
        sampler.update_box(0, boxed((5, 37), (y, y + 1), (10, 50)), np.full((32, 1, 40), 2, dtype=np.uint8))

    first, second = sampler.draw_batch(rng, 4), sampler.draw_batch(rng, 4)

    assert [patch.axis for patch in first + second] == [1] * 8
    assert first[0].start[1] in (11, 12)
    assert second[0].start[1] in (29, 30)
    assert {sampler.draw(rng).axis for _ in range(30)} == {0, 1}


def test_an_erased_slice_is_drawn_no_more() -> None:
    sampler = PatchSampler([with_planes((0, 5), (0, 30))], (1, 2), shapes=slabs(4, 12))
    rng = np.random.default_rng(0)

    sampler.update_box(0, boxed((30, 31), (0, 48), (0, 56)), np.zeros((1, 48, 56), dtype=np.uint8))
    assert all(sampler.draw(rng).start[0] <= 5 for _ in range(100))

    sampler.update(0, with_planes((2, 30)))
    assert {sampler.draw(rng).axis for _ in range(20)} == {2}


@settings(max_examples=30)
@given(
    boxes=st.lists(
        st.tuples(*[st.tuples(st.integers(0, 15), st.integers(1, 8)) for _ in range(3)], st.integers(0, 2)),
        min_size=1,
        max_size=6,
    )
)
def test_after_any_strokes_exactly_the_annotated_voxels_can_be_drawn(
    boxes: list[tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]],
) -> None:
    labels = np.zeros((16, 16, 16), dtype=np.uint8)
    sampler = PatchSampler([labels.copy()], (1, 2), shapes=slabs(1, 1))
    for *sides, label_id in boxes:
        box = boxed(*((start, min(start + length, 16)) for start, length in sides))
        labels[box] = label_id
        sampler.update_box(0, box, labels[box])

    # patches of one voxel: where they lie is what was drawn
    rng = np.random.default_rng(0)
    for _ in range(30 if labels.any() else 0):
        patch = sampler.draw(rng)
        assert labels[patch.start] == patch.label_id
    volume = sampler._volumes[0]
    stored = np.unique(np.concatenate([v for row in volume.voxels.values() for v in row] or [np.zeros(0, int)]))
    assert np.array_equal(stored, np.flatnonzero(labels))
