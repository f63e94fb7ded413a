from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.io.files import read_volume

zr: Any = zarr  # its type hints are too wide, or missing

STACK = np.arange(1, 1 + 4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)


def axis(name: str, unit: str = "micrometer") -> dict[str, str]:
    kind = {"t": "time", "c": "channel"}.get(name, "space")
    return {"name": name, "type": kind, **({"unit": unit} if kind == "space" else {})}


def write(path: Path, array: Any, multiscale: dict[str, Any], version: str = "0.5") -> Path:
    """An OME-Zarr image with a half-size second level."""
    group = zr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for name, level in (("full", array), ("half", array[..., ::2, ::2])):
        group.create_array(name, data=level, chunks=(1,) * (level.ndim - 3) + (2, 3, 4))
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return path


def levels(*full: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"path": "full", "coordinateTransformations": list(full)}, {"path": "half"}]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_full_level_with_both_transformations(tmp_path: Path, version: str) -> None:
    multiscale = {
        "axes": [axis(name) for name in "tczyx"],
        "datasets": levels(
            {"type": "scale", "scale": [1, 1, 2, 0.5, 0.5]},
            {"type": "translation", "translation": [0, 0, 10, 20, 30]},
        ),
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2, 1]}],
    }
    array = np.stack([STACK, STACK + 500])[None]
    volume = read_volume(write(tmp_path / "a.ome.zarr", array, multiscale, version))
    assert volume.data.shape == (2, 4, 6, 8)
    np.testing.assert_array_equal(volume.read(), array[0])
    assert volume.voxel_size == VoxelSize(4, 1, 0.5, "um")
    assert volume.affine is not None
    # the first translation is stretched by the second scale
    np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [24, 41, 30.5, 1])


def test_units_are_brought_together(tmp_path: Path) -> None:
    multiscale = {
        "axes": [axis("z", "millimeter"), axis("y"), axis("x", "nanometer")],
        "datasets": levels({"type": "scale", "scale": [0.001, 0.5, 250]}),
    }
    size = read_volume(write(tmp_path / "a.zarr", STACK, multiscale)).voxel_size
    assert size.unit == "nm"
    np.testing.assert_allclose(size.zyx, (1000, 500, 250))


def test_axes_of_old_versions_and_odd_names(tmp_path: Path) -> None:
    old = {"axes": ["z", "y", "x"], "datasets": levels()}
    volume = read_volume(write(tmp_path / "a.zarr", STACK, old, "0.4"))
    np.testing.assert_array_equal(volume.read()[0], STACK)
    assert volume.voxel_size == VoxelSize()
    odd = {"axes": [axis("z"), axis("y"), {"name": "depth", "type": "space"}], "datasets": levels()}
    with pytest.raises(DataError, match=r"does not name its axes.*--axes ZYX"):
        read_volume(write(tmp_path / "b.zarr", STACK, odd))


def test_time_longer_than_one_is_refused(tmp_path: Path) -> None:
    multiscale = {"axes": [axis(name) for name in "tzyx"], "datasets": levels()}
    path = write(tmp_path / "a.zarr", np.stack([STACK] * 2), multiscale)
    with pytest.raises(DataError, match=r"time axis of length 2.*--axes CZYX"):
        read_volume(path)
    assert read_volume(path, axes="CZYX").channels == 2


def test_reads_only_the_chunks_asked_for(tmp_path: Path) -> None:
    multiscale = {"axes": [axis(name) for name in "zyx"], "datasets": levels()}
    path = write(tmp_path / "a.zarr", STACK, multiscale)
    chunks = [file for file in (path / "full" / "c").rglob("*") if file.is_file()]
    assert len(chunks) == 8
    for chunk in chunks:
        if chunk != path / "full" / "c" / "0" / "0" / "1":
            chunk.write_bytes(b"broken")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.read((slice(0, 2), slice(1, 3), slice(4, 8)))[0], STACK[0:2, 1:3, 4:8])
    with pytest.raises(FileError, match=r"a\.zarr cannot be read"):
        volume.read()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_arrays_and_folders_inside(tmp_path: Path, zarr_format: Any) -> None:
    group = zr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("raw", data=STACK)
    volume = read_volume(tmp_path / "a.zarr" / "raw")
    np.testing.assert_array_equal(volume.read()[0], STACK)
    assert volume.voxel_size == VoxelSize()
    with pytest.raises(FileError, match=r"no OME-Zarr metadata.*raw"):
        read_volume(tmp_path / "a.zarr")


def test_dimension_names_of_a_plain_array(tmp_path: Path) -> None:
    zr.create_array(tmp_path / "a.zarr", data=STACK[..., :3], dimension_names=["y", "x", "c"])
    assert read_volume(tmp_path / "a.zarr").data.shape == (3, 1, 4, 6)


def test_collection_of_bioformats2raw_gives_its_first_image(tmp_path: Path) -> None:
    root = zr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write(tmp_path / "a.zarr" / "0", STACK, {"axes": [axis(a) for a in "zyx"], "datasets": levels()}, "0.4")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr").read()[0], STACK)


def test_indexing_a_view_is_indexing_the_array(tmp_path: Path) -> None:
    stored = np.arange(3 * 4 * 5 * 2).reshape(3, 4, 5, 2)
    zr.create_array(tmp_path / "a.zarr", data=stored)
    data = read_volume(tmp_path / "a.zarr", axes="YZXC").data
    expected = stored.transpose(3, 1, 0, 2)
    assert data.shape == expected.shape
    for index in (
        np.s_[:],
        np.s_[1],
        np.s_[..., 2],
        np.s_[0, 1:3, ::2, -1],
        np.s_[:, 3, 0],
        np.s_[1, ..., 1:],
    ):
        np.testing.assert_array_equal(data[index], expected[index])
    for outside in (np.s_[2], np.s_[0, 0, 0, 0, 0]):
        with pytest.raises(IndexError):
            data[outside]
    zr.create_array(tmp_path / "plane.zarr", data=np.zeros((4, 5)))
    flat = read_volume(tmp_path / "plane.zarr").data
    assert flat[0, 0].shape == (4, 5)
    assert flat[:, 0].shape == (1, 4, 5)


@pytest.mark.parametrize("dtype", [">i2", "<f8", "?", "u4", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_type_and_order(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.asarray(STACK % 2, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    volume = read_volume(tmp_path / "a.npy")
    assert isinstance(volume.data, np.memmap)
    part = volume.read()
    np.testing.assert_array_equal(part[0], array)
    assert part.dtype.isnative
    assert part.flags.c_contiguous


def test_npy_axes(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", STACK[0])
    assert read_volume(tmp_path / "two.npy").spatial_dims == 2
    np.save(tmp_path / "four.npy", np.stack([STACK] * 2))
    assert read_volume(tmp_path / "four.npy").data.shape == (2, 4, 6, 8)
    assert read_volume(tmp_path / "four.npy", axes="ZYXC").data.shape == (8, 2, 4, 6)
    np.save(tmp_path / "five.npy", STACK[None, None])
    with pytest.raises(DataError, match="--axes TCZYX"):
        read_volume(tmp_path / "five.npy")
    assert read_volume(tmp_path / "five.npy", axes="TCZYX").data.shape == (1, 4, 6, 8)
