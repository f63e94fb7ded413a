"""Exported labels, read back with the libraries of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io import label_blocks
from napari_unet3d.io._stored import TimeAxis
from napari_unet3d.io.files import read_volume
from napari_unet3d.io.label_export import export_labels
from napari_unet3d.io.nifti import nifti_label_names, nifti_seconds

# the type hints of these are too wide, or missing
nib: Any = nibabel
zr: Any = zarr
da: Any = dask.array

SHAPE = (5, 6, 7)
LABELS = (np.arange(5 * 6 * 7).reshape(SHAPE) % 4).astype(np.uint8)
SIZE = VoxelSize(0.5, 0.25, 0.125, "um")
NAMES = {1: "background", 2: "cell, <big> & µ"}


def image(shape: tuple[int, int, int] = SHAPE) -> Volume:
    return Volume(np.zeros((1, *shape), np.float32), SIZE)


def ome(path: Path) -> Any:
    with tifffile.TiffFile(path) as file:
        assert file.ome_metadata is not None
        return tifffile.xml2dict(file.ome_metadata)["OME"]


def values(path: Path) -> Any:
    if ".nii" in path.name:
        return np.asarray(nib.load(path).dataobj).T
    return zr.open(path, mode="r")["0"][:] if path.suffix == ".zarr" else tifffile.imread(path)


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif", ".nii.gz", ".nii", ".ome.zarr"])
@pytest.mark.parametrize("lazily", [False, True])
def test_background_as_zero_in_slabs(
    tmp_path: Path, suffix: str, lazily: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_blocks, "_SLAB_VOXELS", 2 * 6 * 7)
    path = tmp_path / f"a{suffix}"
    labels: Any = da.from_array(LABELS.astype(np.int64)) if lazily else LABELS
    assert export_labels(labels, path, image(), classes=NAMES, background_as_zero=True) == path
    assert values(path).dtype == np.uint8
    np.testing.assert_array_equal(values(path), np.where(LABELS == 1, 0, LABELS))
    assert LABELS.max() == 3  # the input is as it was
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_background_is_the_lowest_class_else_one(tmp_path: Path) -> None:
    export_labels(LABELS, tmp_path / "a.nii", image(), classes={3: "c", 2: "b"}, background_as_zero=True)
    np.testing.assert_array_equal(values(tmp_path / "a.nii"), np.where(LABELS == 2, 0, LABELS))
    export_labels(LABELS, tmp_path / "b.nii", image(), background_as_zero=True)
    np.testing.assert_array_equal(values(tmp_path / "b.nii"), np.where(LABELS == 1, 0, LABELS))


@pytest.mark.parametrize(("highest", "dtype"), [(3, "u1"), (300, "u2"), (70_000, "u4")])
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif", ".nii.gz", ".ome.zarr"])
def test_smallest_type_that_holds_the_ids(tmp_path: Path, suffix: str, highest: int, dtype: str) -> None:
    labels = LABELS.astype(np.int32)
    labels[0, 0, 0] = highest
    path = tmp_path / f"a{suffix}"
    export_labels(labels, path, image())
    assert values(path).dtype == np.dtype(dtype)
    np.testing.assert_array_equal(values(path), labels)


def test_names_of_classes(tmp_path: Path) -> None:
    for suffix in (".ome.tif", ".nii", ".nii.gz", ".ome.zarr"):
        export_labels(LABELS, tmp_path / f"a{suffix}", image(), classes=NAMES)
    entries = ome(tmp_path / "a.ome.tif")["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    assert {entry["K"]: entry["value"] for entry in entries} == NAMES
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"a{suffix}"
        assert nifti_label_names(path) == NAMES
        np.testing.assert_array_equal(values(path), LABELS)
        assert "2\tcell, <big> & µ" in bytes(nib.load(path).header.extensions[0].get_content()).decode()
    properties = zr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["ome"]["image-label"]["properties"]
    assert properties[1] == {"label-value": 2, "name": "cell, <big> & µ"}


def test_time_axis(tmp_path: Path) -> None:
    series = np.stack([LABELS, LABELS + 1, LABELS])
    for suffix in (".ome.tif", ".tif", ".nii.gz", ".ome.zarr"):
        path = tmp_path / f"a{suffix}"
        export_labels(series, path, image(), time=TimeAxis(3, 2.5), classes=NAMES)
        np.testing.assert_array_equal(values(path), series)
    pixels = ome(tmp_path / "a.ome.tif")["Image"]["Pixels"]
    assert (pixels["SizeT"], pixels["TimeIncrement"], pixels["PhysicalSizeZ"]) == (3, 2.5, 0.5)
    header = nib.load(tmp_path / "a.nii.gz").header
    assert header.get_zooms() == (0.125, 0.25, 0.5, 2.5)
    assert header.get_xyzt_units() == ("micron", "sec")
    assert nifti_seconds(tmp_path / "a.nii.gz") == 2.5
    (multiscale,) = zr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["ome"]["multiscales"]
    assert multiscale["axes"][0] == {"name": "t", "type": "time", "unit": "second"}
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [2.5, 0.5, 0.25, 0.125]


def test_time_axis_of_planes_and_of_unknown_step(tmp_path: Path) -> None:
    flat = Volume.from_array(np.zeros((6, 7), np.uint8), SIZE)
    for suffix in (".ome.tif", ".nii", ".ome.zarr"):
        path = tmp_path / f"a{suffix}"
        export_labels(LABELS, path, flat, time=TimeAxis(5))
        expected = LABELS[:, np.newaxis] if suffix == ".nii" else LABELS
        np.testing.assert_array_equal(values(path), expected)
    assert "TimeIncrement" not in ome(tmp_path / "a.ome.tif")["Image"]["Pixels"]
    assert nifti_seconds(tmp_path / "a.nii") is None


def test_refusals(tmp_path: Path) -> None:
    for labels, message in (
        (LABELS[1:], r"\(4, 6, 7\) but image has \(5, 6, 7\)"),
        (LABELS.astype(np.float32), "holds float32"),
        (LABELS.astype(np.int16) - 1, "negative id -1"),
        (LABELS.astype(np.int64) + 2**32, "go up to 4294967295"),
    ):
        with pytest.raises(DataError, match=message):
            export_labels(labels, tmp_path / "a.nii", image())
    with pytest.raises(FileError, match="known suffixes"):
        export_labels(LABELS, tmp_path / "a.xyz", image())
    assert list(tmp_path.iterdir()) == []


def test_never_over_the_image(tmp_path: Path) -> None:
    nib.Nifti1Image(np.zeros((7, 6, 5)), np.eye(4)).to_filename(tmp_path / "i.nii")
    with pytest.raises(FileError, match="would replace the input"):
        export_labels(LABELS, tmp_path / "i.nii", read_volume(tmp_path / "i.nii"))
