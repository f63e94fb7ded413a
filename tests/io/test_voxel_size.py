"""Voxel sizes, from files of other programs, without their voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.io.voxel_size import voxel_size_of_file

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr

GREY = np.zeros((4, 6, 8), np.uint8)


def nifti(path: Path) -> None:
    picture = nib.Nifti1Image(GREY.T, np.diag([0.25, 0.5, 2, 1]))
    picture.header.set_xyzt_units("micron")
    picture.to_filename(path)


def imagej(path: Path) -> None:
    tifffile.imwrite(
        path,
        GREY,
        imagej=True,
        resolution=(4, 2),
        compression="zlib",
        metadata={"spacing": 2.0, "unit": "um", "axes": "ZYX"},
    )


def ome_tiff(path: Path) -> None:
    sizes = {f"PhysicalSize{axis}": edge for axis, edge in zip("ZYX", (2, 0.5, 0.25), strict=True)}
    tifffile.imwrite(path, GREY, ome=True, photometric="minisblack", metadata={"axes": "ZYX", **sizes})


def ome_zarr(path: Path) -> None:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    steps = [{"type": "scale", "scale": [2, 0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
    zr.open_group(path, mode="w", zarr_format=2, attributes=attributes).create_array("0", data=GREY)


CASES = [("a.nii", nifti), ("a.nii.gz", nifti), ("a.tif", imagej), ("a.ome.tif", ome_tiff), ("a.ome.zarr", ome_zarr)]


@pytest.mark.parametrize(("name", "write"), CASES)
def test_each_format(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    assert voxel_size_of_file(tmp_path / name) == VoxelSize(2, 0.5, 0.25, "um")
    assert voxel_size_of_file(str(tmp_path / name)) == VoxelSize(2, 0.5, 0.25, "um")


@pytest.mark.parametrize(("name", "write"), CASES)
def test_no_voxel_is_read(tmp_path: Path, name: str, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / name)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("voxels are read")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", refuse)
    monkeypatch.setattr(tifffile, "memmap", refuse)
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "get_unscaled", refuse)
    monkeypatch.setattr(zarr.Array, "__getitem__", refuse)
    assert voxel_size_of_file(tmp_path / name) is not None


def test_files_that_tell_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", GREY, photometric="minisblack")
    np.save(tmp_path / "a.npy", GREY)
    zr.create_array(tmp_path / "a.zarr", data=GREY)
    (tmp_path / "bad.tif").write_bytes(b"II*\0nonsense")
    (tmp_path / "bad.nii.gz").write_bytes(b"nonsense")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for path in [*tmp_path.iterdir(), tmp_path / "gone.nii", tmp_path / "gone.zarr", tmp_path]:
        assert voxel_size_of_file(path) is None
