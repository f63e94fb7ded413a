from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io.files import read_labels, read_volume, write_labels

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr

SHAPE = (4, 5, 6)
IDS = (np.arange(120).reshape(SHAPE) % 4).astype(np.uint8)
SIZE = VoxelSize(4, 3, 2, "mm")
AFFINE = np.diag([2.0, 3, 4, 1])


@pytest.fixture
def image(tmp_path: Path) -> Volume:
    nib.Nifti1Image(np.zeros(SHAPE[::-1]), AFFINE).to_filename(tmp_path / "image.nii")
    return read_volume(tmp_path / "image.nii")


def test_nifti_labels_are_turned_like_the_image(tmp_path: Path, image: Volume) -> None:
    nib.Nifti1Image(IDS.transpose(2, 1, 0).astype(np.float32), AFFINE).to_filename(tmp_path / "l.nii.gz")
    labels, warnings = read_labels(tmp_path / "l.nii.gz", image)
    np.testing.assert_array_equal(labels, IDS)
    assert labels.dtype == np.uint8
    assert warnings == []
    shifted, _ = read_labels(tmp_path / "l.nii.gz", image, zero_is_background=True)
    np.testing.assert_array_equal(shifted, IDS + 1)


def test_ids_kept_by_a_slope_are_whole_again(tmp_path: Path, image: Volume) -> None:
    stored = nib.Nifti1Image(IDS.T.astype(np.float64), AFFINE)
    stored.set_data_dtype(np.uint8)  # nibabel spreads 0..3 over 0..255 with a slope
    stored.to_filename(tmp_path / "l.nii")
    raw = nib.load(tmp_path / "l.nii").dataobj
    assert raw.slope != 1
    np.testing.assert_array_equal(read_labels(tmp_path / "l.nii", image)[0], IDS)
    halves = nib.Nifti1Image(IDS.T / 2, AFFINE)
    halves.set_data_dtype(np.uint8)
    halves.to_filename(tmp_path / "h.nii")
    with pytest.raises(DataError, match="fractional"):
        read_labels(tmp_path / "h.nii", image)


@pytest.mark.parametrize("axes", ["TYX", "CYX", "ZYX"])
def test_shape_says_what_a_stack_is(tmp_path: Path, image: Volume, axes: str) -> None:
    tifffile.imwrite(tmp_path / "l.tif", IDS, imagej=True, metadata={"axes": axes})
    np.testing.assert_array_equal(read_labels(tmp_path / "l.tif", image)[0], IDS)


def test_four_planes_stored_as_colours(tmp_path: Path, image: Volume) -> None:
    tifffile.imwrite(tmp_path / "l.tif", IDS, photometric="rgb", planarconfig="separate", extrasamples=[0])
    np.testing.assert_array_equal(read_labels(tmp_path / "l.tif", image)[0], IDS)


def test_wrong_shape_is_refused(tmp_path: Path, image: Volume) -> None:
    np.save(tmp_path / "l.npy", IDS.transpose(2, 1, 0))
    with pytest.raises(DataError, match=r"l\.npy has shape \(6, 5, 4\) but image\.nii has \(4, 5, 6\)"):
        read_labels(tmp_path / "l.npy", image)
    np.testing.assert_array_equal(read_labels(tmp_path / "l.npy", image, axes="XYZ")[0], IDS)
    np.save(tmp_path / "c.npy", np.stack([IDS, IDS]))
    with pytest.raises(DataError, match=r"\(2, 4, 5, 6\)"):
        read_labels(tmp_path / "c.npy", image)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (IDS - 1.0, "negative value -1"),
        (IDS + 0.5, "fractional value 0.5"),
        (np.where(IDS == 3, np.inf, IDS), "NaN or infinite"),
    ],
)
def test_values_are_checked(tmp_path: Path, image: Volume, values: Any, message: str) -> None:
    np.save(tmp_path / "l.npy", values)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "l.npy", image)


def test_missing_voxel_size_is_a_warning_where_it_could_be_stored(tmp_path: Path, image: Volume) -> None:
    np.save(tmp_path / "l.npy", IDS)
    assert read_labels(tmp_path / "l.npy", image)[1] == []
    tifffile.imwrite(tmp_path / "l.tif", IDS, imagej=True, metadata={"axes": "ZYX"})
    (warning,) = read_labels(tmp_path / "l.tif", image)[1]
    assert warning == "l.tif has no voxel size; that of image.nii, 4 x 3 x 2 mm, is used"
    zr.create_array(tmp_path / "l.zarr", data=IDS)
    assert len(read_labels(tmp_path / "l.zarr", image)[1]) == 1
    unsized = Volume(np.zeros((1, *SHAPE)))
    assert read_labels(tmp_path / "l.tif", unsized)[1] == []


def test_different_geometry_is_a_warning(tmp_path: Path, image: Volume) -> None:
    path = tmp_path / "l.nii"
    nib.Nifti1Image(IDS.T, np.diag([2.0, 3, 5, 1])).to_filename(path)
    assert read_labels(path, image)[1] == [
        "l.nii has voxel size 5 x 3 x 2 mm; that of image.nii, 4 x 3 x 2 mm, is used"
    ]
    moved = AFFINE.copy()
    moved[0, 3] = 1.0
    nib.Nifti1Image(IDS.T, moved).to_filename(path)
    (warning,) = read_labels(path, image)[1]
    assert "lies elsewhere in space than image.nii" in warning


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".tif", ".ome.tif", ".zarr", ".npy"])
def test_own_labels_give_no_warning(tmp_path: Path, image: Volume, suffix: str) -> None:
    write_labels(tmp_path / f"l{suffix}", IDS, image)
    labels, warnings = read_labels(tmp_path / f"l{suffix}", image)
    np.testing.assert_array_equal(labels, IDS)
    assert warnings == []


def test_same_size_in_another_unit_is_the_same(tmp_path: Path) -> None:
    in_um = Volume(np.zeros((1, *SHAPE)), VoxelSize(0.004, 0.003, 0.002, "um"))
    write_labels(tmp_path / "l.tif", IDS, Volume(np.zeros((1, *SHAPE)), VoxelSize(4, 3, 2, "nm")))
    assert read_labels(tmp_path / "l.tif", in_um)[1] == []
