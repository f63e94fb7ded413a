"""Resampling agrees with independent implementations, keeps places, and loses no painted slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn.functional import interpolate

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.resampling import (
    AxisMap,
    Resampling,
    resampled_image,
    resampled_volume,
    target_size,
)
from napari_unet3d.engine.tiling import whole
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

MM = VoxelSize(1, 1, 1, "mm")


def volume(*shape: int, size: VoxelSize = MM, affine: bool = False) -> Volume:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Volume(data[np.newaxis], size, np.diag([2.0, 1, 1, 1]) if affine else None, name="scan.nii")


# --- grey values ------------------------------------------------------------------------------------------


def test_finer_voxels_are_interpolated_as_scipy_does() -> None:
    image = volume(6, 7, 8)
    finer, _ = resampled_image(image, VoxelSize(0.5, 0.25, 1, "mm"))
    places = np.meshgrid((np.arange(12) + 0.5) / 2 - 0.5, (np.arange(28) + 0.5) / 4 - 0.5, np.arange(8), indexing="ij")
    expected = ndimage.map_coordinates(image.read()[0], places, order=1, mode="nearest")

    assert finer.shape == (12, 28, 8)
    assert np.allclose(finer.read()[0], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_larger_voxels_are_interpolated_as_pytorch_does(factor: int) -> None:
    image = volume(1, 12, 24)
    coarser, _ = resampled_image(image, VoxelSize(1, factor, factor, "mm"))
    expected = interpolate(
        torch.from_numpy(image.read()), size=(12 // factor, 24 // factor), mode="bilinear", antialias=True
    )
    assert np.allclose(coarser.read(), expected.numpy(), atol=1e-5)


@settings(max_examples=30)
@given(
    edges=st.tuples(*[st.floats(0.3, 4)] * 3),
    corner=st.tuples(*[st.integers(0, 5)] * 3),
    sides=st.tuples(*[st.integers(1, 6)] * 3),
)
def test_a_part_equals_the_part_of_the_whole(
    edges: tuple[float, float, float], corner: tuple[int, int, int], sides: tuple[int, int, int]
) -> None:
    moved, _ = resampled_image(volume(9, 10, 11), VoxelSize(*edges, "mm"))
    z, y, x = (
        slice(min(c, n - 1), min(min(c, n - 1) + s, n)) for c, s, n in zip(corner, sides, moved.shape, strict=True)
    )
    box: Box = (z, y, x)
    assert np.allclose(moved.read(box), moved.read()[(slice(None), *box)], atol=1e-5)


@settings(max_examples=30)
@given(edges=st.tuples(*[st.floats(0.2, 5)] * 3), shape=st.tuples(*[st.integers(1, 9)] * 3))
def test_constants_stay_there_and_back(edges: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    there = Resampling.between(shape, MM, VoxelSize(*edges, "mm"))
    values = np.full((1, *shape), 7.5, np.float32)
    moved = there.interpolated(lambda box: values[(slice(None), *box)], whole(there.new_shape))
    back = there.inverse.interpolated(lambda box: moved[(slice(None), *box)], whole(shape))
    assert moved.shape[1:] == there.new_shape
    assert np.allclose(back, values, atol=1e-5)


def test_values_that_are_not_finite_do_not_spread() -> None:
    data = np.ones((1, 1, 1, 8), np.float32)
    data[..., 3] = np.nan
    data[..., 6:] = np.inf
    moved, _ = resampled_image(Volume(data, MM), VoxelSize(1, 1, 0.5, "mm"))
    row = moved.read()[0, 0, 0]
    assert np.flatnonzero(np.isnan(row)).tolist() == [6, 7, 12, 13, 14, 15]  # nearer to them than to a number
    assert np.allclose(row[~np.isnan(row)], 1)


def test_wide_integers_keep_their_values() -> None:
    data = np.full((1, 2, 2, 2), 2**24 + 1, np.int32)
    moved, _ = resampled_image(Volume(data, MM), VoxelSize(2, 1, 1, "mm"))
    assert moved.read().tolist() == [[[[2**24 + 1] * 2] * 2]]


# --- places -----------------------------------------------------------------------------------------------


def test_the_corner_of_the_volume_stays_where_it_is() -> None:
    image = volume(6, 8, 8, size=VoxelSize(2, 1, 1, "mm"), affine=True)
    moved, _ = resampled_image(image, VoxelSize(1, 1, 4, "mm"))
    assert moved.affine is not None
    assert image.affine is not None
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert np.array_equal(moved.affine @ corner, image.affine @ corner)
    assert np.allclose(moved.affine[:3, :3], np.diag([1, 1, 4]))
    assert moved.voxel_size == VoxelSize(1, 1, 4, "mm")
    assert moved.shape == (12, 8, 2)


def test_targets_in_other_units_and_without_one() -> None:
    image = volume(2, 2, 2, size=VoxelSize(2, 1, 1, "um"))
    assert target_size(VoxelSize(1000, 500, 500, "nm"), image) == VoxelSize(1, 0.5, 0.5, "um")
    assert target_size(VoxelSize(1, 1, 1), image) == VoxelSize(1, 1, 1, "um")
    assert target_size(VoxelSize(2000, 1000, 1000.5, "nm"), image) is None


def test_of_a_2d_image_the_thickness_stays() -> None:
    flat = Volume(np.zeros((1, 1, 8, 8)), VoxelSize(5, 1, 1, "mm"), spatial_dims=2)
    target = target_size(VoxelSize(1, 2, 2, "mm"), flat)
    assert target == VoxelSize(5, 2, 2, "mm")
    assert resampled_image(flat, target)[0].shape == (1, 4, 4)


def test_an_image_without_a_voxel_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"scan.nii has no voxel size, .* 1 x 1 x 1 mm; give its own with --voxel-size"):
        target_size(MM, volume(2, 2, 2, size=VoxelSize()))


# --- labels -----------------------------------------------------------------------------------------------


def test_a_thin_painted_slice_is_kept_in_larger_voxels() -> None:
    labels = np.zeros((9, 4, 4), np.uint8)
    labels[4] = 2
    labels[4, :2, :2] = 1
    moved, _ = resampled_volume(AnnotatedVolume(volume(9, 4, 4), labels), VoxelSize(3, 2, 2, "mm"))
    assert moved.labels.tolist() == [[[0, 0], [0, 0]], [[1, 2], [2, 2]], [[0, 0], [0, 0]]]


def test_larger_voxels_take_what_most_annotated_ones_say() -> None:
    labels = np.array([[[0, 3, 3, 2, 0, 0, 5, 4]]], np.uint16)
    moved = Resampling.between(labels.shape, MM, VoxelSize(1, 1, 4, "mm")).labels(labels)
    assert moved.tolist() == [[[3, 4]]]  # of equally many the lowest
    assert moved.dtype == np.uint16


def test_smaller_voxels_take_the_label_they_lie_in() -> None:
    labels = np.array([[[1, 0, 2]]], np.uint8)
    resampling = Resampling.between(labels.shape, MM, VoxelSize(1, 1, 0.5, "mm"))
    assert resampling.labels(labels).tolist() == [[[1, 1, 0, 0, 2, 2]]]
    assert resampling.labels_back(resampling.labels(labels)).tolist() == labels.tolist()


@settings(max_examples=40)
@given(
    edges=st.tuples(*[st.floats(0.25, 4)] * 3),
    painted=st.lists(st.tuples(*[st.integers(0, 7)] * 3, st.integers(1, 3)), min_size=1, max_size=12),
)
def test_every_annotated_voxel_is_found_again_near_its_place(
    edges: tuple[float, float, float], painted: list[tuple[int, int, int, int]]
) -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    for z, y, x, label_id in painted:
        labels[z, y, x] = label_id
    resampling = Resampling.between(labels.shape, MM, VoxelSize(*edges, "mm"))
    moved = resampling.labels(labels)
    assert set(np.unique(moved)) <= set(np.unique(labels))
    coarse = [axis.ratio > 1 for axis in resampling.axes]
    for place in zip(*np.nonzero(labels), strict=True):
        index = tuple(
            int(axis.inverse.nearest(np.array([i]))[0]) for i, axis in zip(place, resampling.axes, strict=True)
        )
        if all(coarse) or all(axis.ratio <= 0.5 for axis in resampling.axes):
            assert moved[index] != 0
    for place in zip(*np.nonzero(moved), strict=True):
        box = resampling.cover(tuple(slice(i, i + 1) for i in place))  # type: ignore[arg-type]  # three
        assert labels[box].any()


@settings(max_examples=40)
@given(
    edges=st.tuples(*[st.floats(0.25, 4)] * 3),
    corner=st.tuples(*[st.integers(0, 9)] * 3),
    sides=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 99),
)
def test_labels_of_a_part_equal_the_part_of_the_whole(
    edges: tuple[float, float, float], corner: tuple[int, int, int], sides: tuple[int, int, int], seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (9, 7, 8)).astype(np.uint8)
    resampling = Resampling.between(labels.shape, MM, VoxelSize(*edges, "mm"))
    z, y, x = (
        slice(min(c, n - 1), min(min(c, n - 1) + s, n))
        for c, s, n in zip(corner, sides, resampling.new_shape, strict=True)
    )
    assert np.array_equal(resampling.labels(labels, (z, y, x)), resampling.labels(labels)[z, y, x])


def test_covers_of_parts_make_up_the_volume() -> None:
    axis = AxisMap(length=10, new_length=3, ratio=3.0)  # 10 voxels of 1 are nearly 3 of 3
    assert [axis.cover(slice(i, i + 1)) for i in range(3)] == [slice(0, 3), slice(3, 6), slice(6, 10)]
    assert axis.inverse.cover(slice(0, 10)) == slice(0, 3)
