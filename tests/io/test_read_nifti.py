from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.io.files import read_volume

nib: Any = nibabel  # its type hints are too wide, or missing

XYZ = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
AFFINE = np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])


def save(path: Path, array: NDArray[Any], affine: NDArray[Any] = AFFINE, unit: str = "mm") -> Path:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


def is_memory_mapped(array: Any) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_x_y_z_becomes_c_z_y_x(tmp_path: Path, suffix: str) -> None:
    volume = read_volume(save(tmp_path / f"a{suffix}", XYZ))
    assert volume.data.shape == (1, 4, 3, 2)
    assert volume.data.dtype == np.int16
    np.testing.assert_array_equal(volume.read()[0], XYZ.transpose(2, 1, 0))
    assert volume.voxel_size == VoxelSize(4, 3, 2, "mm")
    assert volume.affine is not None
    # voxel z=1, y=2, x=0 lies at x = 10, y = 20 + 2*3, z = 30 + 4
    np.testing.assert_allclose(volume.affine @ [1, 2, 0, 1], [34, 26, 10, 1])
    assert is_memory_mapped(volume.data) == (suffix == ".nii")


def test_unknown_unit_is_millimetre_and_micron_is_kept(tmp_path: Path) -> None:
    assert read_volume(save(tmp_path / "a.nii", XYZ, unit="unknown")).voxel_size.unit == "mm"
    assert read_volume(save(tmp_path / "b.nii", XYZ, unit="micron")).voxel_size.unit == "um"


def test_oblique_affine_gives_edge_lengths(tmp_path: Path) -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 3.0, 4.0])
    volume = read_volume(save(tmp_path / "a.nii", XYZ, affine))
    assert volume.voxel_size == VoxelSize(4, 3, 2, "mm")
    assert volume.affine is not None
    # one step along stored x is 2 mm along world y
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 2, 0])


def test_slope_and_intercept_are_applied_lazily(tmp_path: Path) -> None:
    image = nib.Nifti1Image(XYZ, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "a.nii")
    stored = np.asarray(nib.load(tmp_path / "a.nii").dataobj)
    volume = read_volume(tmp_path / "a.nii")
    assert volume.data.dtype == np.float32
    assert not isinstance(volume.data, np.ndarray)
    np.testing.assert_array_equal(volume.read()[0], stored.transpose(2, 1, 0).astype(np.float32))
    part = volume.data[:, 1:3, 2, -1]
    np.testing.assert_array_equal(part, stored.transpose(2, 1, 0)[None, 1:3, 2, -1])


def test_big_endian_nifti2(tmp_path: Path) -> None:
    header = nib.Nifti2Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.Nifti2Image(XYZ, AFFINE, header).to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.data.dtype.byteorder == ">"
    part = volume.read()
    assert part.dtype == np.dtype(np.int16)
    assert part.dtype.isnative
    assert part.flags.c_contiguous
    np.testing.assert_array_equal(part[0], XYZ.transpose(2, 1, 0))


def test_rgb_has_three_channels(tmp_path: Path) -> None:
    colours = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = XYZ
    colours["B"] = 7
    save(tmp_path / "a.nii", colours)
    volume = read_volume(tmp_path / "a.nii")
    assert volume.data.shape == (3, 4, 3, 2)
    np.testing.assert_array_equal(volume.read()[1], XYZ.transpose(2, 1, 0))
    assert (volume.read()[2] == 7).all()


def test_fourth_axis_must_be_named(tmp_path: Path) -> None:
    four = np.stack([XYZ, XYZ + 100], axis=-1)
    path = save(tmp_path / "a.nii", four)
    with pytest.raises(DataError, match=r"fourth axis of length 2.*--axes XYZC"):
        read_volume(path)
    volume = read_volume(path, axes="XYZC")
    assert volume.data.shape == (2, 4, 3, 2)
    np.testing.assert_array_equal(volume.read()[1], XYZ.transpose(2, 1, 0) + 100)
    with pytest.raises(DataError, match="time axis of length 2"):
        read_volume(path, axes="XYZT")
    with pytest.raises(DataError, match="first three axes of a NIfTI file are space"):
        read_volume(path, axes="CZYX")


def test_fourth_axis_of_one_and_vectors(tmp_path: Path) -> None:
    assert read_volume(save(tmp_path / "a.nii", XYZ[..., None])).data.shape == (1, 4, 3, 2)
    vectors = np.stack([XYZ, XYZ + 100, XYZ], axis=-1)[:, :, :, None]
    volume = read_volume(save(tmp_path / "b.nii", vectors))
    assert volume.data.shape == (3, 4, 3, 2)
    assert volume.read()[1, 0, 0, 0] == 100


def test_axes_in_another_order_turn_the_affine_along(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "a.nii", XYZ), axes="ZYX")
    np.testing.assert_array_equal(volume.read()[0], XYZ)
    assert volume.voxel_size == VoxelSize(2, 3, 4, "mm")
    assert volume.affine is not None
    # stored index (1, 0, 0) lies at world x = 12: now z is the first stored axis
    np.testing.assert_allclose(volume.affine @ [1, 0, 0, 1], [30, 20, 12, 1])


def test_single_plane_is_two_dimensional_unless_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", XYZ[..., :1])
    assert read_volume(path).spatial_dims == 2
    assert read_volume(path, axes="XYZ").spatial_dims == 3
    flat = read_volume(save(tmp_path / "b.nii", XYZ[..., 0]))
    assert flat.data.shape == (1, 1, 3, 2)
    assert flat.spatial_dims == 2


def test_degenerate_affine_is_no_geometry(tmp_path: Path) -> None:
    image = nib.Nifti1Image(XYZ, None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = image.header["srow_y"] = [1, 0, 0, 0]
    image.to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.affine is None
    assert volume.voxel_size == VoxelSize()


def test_given_voxel_size_counts_and_takes_the_unit(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", XYZ)
    volume = read_volume(path, voxel_size=VoxelSize(8, 3, 1))
    assert volume.voxel_size == VoxelSize(8, 3, 1, "mm")
    assert volume.affine is not None
    np.testing.assert_allclose(volume.affine @ [1, 0, 1, 1], [38, 20, 11, 1])
    in_um = read_volume(path, voxel_size=VoxelSize(4000, 3000, 2000, "um"))
    assert in_um.affine is not None
    np.testing.assert_allclose(in_um.affine @ [1, 0, 0, 1], [34000, 20000, 10000, 1])
    assert "header" in in_um.source  # the same size in another unit
    assert "header" not in volume.source
