from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.io.files import read_volume

STACK = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)


def write(path: Path, array: Any, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


def test_plain_stack_is_z_y_x_and_memory_mapped(tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "a.tif", STACK))
    np.testing.assert_array_equal(volume.read()[0], STACK)
    assert isinstance(volume.data, np.memmap)
    assert volume.voxel_size == VoxelSize()
    assert volume.affine is None
    assert volume.spatial_dims == 3


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"metadata": None}, {"tile": (16, 16)}])
def test_other_plain_layouts(tmp_path: Path, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read_volume(write(tmp_path / "a.tif", STACK, **options)).read()[0], STACK)


@pytest.mark.parametrize("unit", ["um", "\\u00B5m", "micron", "microns"])
def test_imagej_calibration(tmp_path: Path, unit: str) -> None:
    metadata = {"axes": "ZYX", "spacing": 0.2837, "unit": unit}
    path = write(tmp_path / "a.tif", STACK, imagej=True, resolution=(1 / 0.1268, 1 / 0.3), metadata=metadata)
    size = read_volume(path).voxel_size
    assert size.unit == "um"
    np.testing.assert_allclose(size.zyx, (0.2837, 0.3, 0.1268), rtol=1e-6)


def test_imagej_micrometre_sign_in_latin1(tmp_path: Path) -> None:
    description = "ImageJ=1.54f\nimages=5\nslices=5\nunit=µm\nspacing=2.0\n".encode("latin-1")
    path = write(tmp_path / "a.tif", STACK, metadata=None, description=description, resolution=(4, 4))
    assert read_volume(path).voxel_size == VoxelSize(2, 0.25, 0.25, "um")


def test_imagej_leaves_out_a_spacing_of_one(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "unit": "mm"}
    path = write(tmp_path / "a.tif", STACK, imagej=True, resolution=(4, 2), metadata=metadata)
    assert read_volume(path).voxel_size == VoxelSize(1, 0.5, 0.25, "mm")


def test_imagej_without_calibration_and_with_odd_units(tmp_path: Path) -> None:
    for name, metadata in {
        "a": {},
        "inch": {"unit": "inch", "spacing": 2.0},
        "zero": {"unit": "um", "spacing": 0.0},
    }.items():
        path = write(
            tmp_path / f"{name}.tif",
            STACK,
            imagej=True,
            resolution=(72, 72),
            metadata={"axes": "ZYX", **metadata},
        )
        assert read_volume(path).voxel_size == VoxelSize()


def test_imagej_spacing_without_unit_counts_in_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX", "spacing": -3.0})
    assert read_volume(path).voxel_size == VoxelSize(3, 1, 1, "pixel")


def test_imagej_hyperstack_big_endian(tmp_path: Path) -> None:
    stack = np.stack([STACK, STACK + 1000], axis=1)
    path = write(tmp_path / "a.tif", stack.astype(">u2"), byteorder=">", imagej=True, metadata={"axes": "ZCYX"})
    volume = read_volume(path)
    assert isinstance(volume.data, np.memmap)
    part = volume.read()
    assert part.dtype.isnative
    np.testing.assert_array_equal(part, stack.transpose(1, 0, 2, 3))


def test_ome_sizes_in_their_own_units(tmp_path: Path) -> None:
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm",
    }
    path = write(tmp_path / "a.ome.tif", np.stack([STACK, STACK + 1]), metadata=metadata)
    volume = read_volume(path)
    assert volume.data.shape == (2, 5, 6, 7)
    assert volume.voxel_size.unit == "nm"
    np.testing.assert_allclose(volume.voxel_size.zyx, (2000, 500, 250))


def test_ome_unit_defaults_to_micrometre_and_missing_z_to_x(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    path = write(tmp_path / "a.ome.tif", STACK, metadata=metadata)
    assert read_volume(path).voxel_size == VoxelSize(0.25, 0.5, 0.25, "um")


def test_resolution_of_print_is_no_voxel_size(tmp_path: Path) -> None:
    inch = write(tmp_path / "a.tif", STACK, resolution=(72, 72), resolutionunit="INCH")
    assert read_volume(inch).voxel_size == VoxelSize()
    print_in_cm = write(tmp_path / "b.tif", STACK, resolution=(300 / 2.54,) * 2, resolutionunit="CENTIMETER")
    assert read_volume(print_in_cm).voxel_size == VoxelSize()
    microscope = write(tmp_path / "c.tif", STACK, resolution=(40000, 20000), resolutionunit="CENTIMETER")
    size = read_volume(microscope).voxel_size
    assert size.unit == "um"
    np.testing.assert_allclose(size.zyx, (0.25, 0.5, 0.25))


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("axes", [None, "ZYXC"])
def test_colours_are_three_channels_without_alpha(tmp_path: Path, samples: int, axes: str | None) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (5, 6, 7, samples), dtype=np.uint8)
    volume = read_volume(write(tmp_path / "a.tif", colours, photometric="rgb"), axes=axes)
    np.testing.assert_array_equal(volume.read(), colours[..., :3].transpose(3, 0, 1, 2))


def test_two_dimensional_image(tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "a.tif", STACK[0]))
    assert volume.data.shape == (1, 1, 6, 7)
    assert volume.spatial_dims == 2
    colour = np.zeros((6, 7, 3), np.uint8)
    assert read_volume(write(tmp_path / "b.tif", colour, photometric="rgb")).data.shape == (3, 1, 6, 7)


def test_time_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(DataError, match=r"time axis of length 5.*--axes ZYX"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, axes="zyx").read()[0], STACK)
    both = write(tmp_path / "b.tif", np.stack([STACK] * 2), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match=r"time axis of length 2.*--axes CZYX"):
        read_volume(both)


def test_given_axes_may_count_axes_of_length_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", STACK[None, None], metadata={"axes": "TCZYX"})
    assert read_volume(path).data.shape == (1, 5, 6, 7)
    np.testing.assert_array_equal(read_volume(path, axes="CYX").read()[:, 0], STACK)


def test_axes_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", STACK)
    with pytest.raises(DataError, match=r"has 3 axes.*--axes CZYX names 4"):
        read_volume(path, axes="CZYX")
    for text in ("ZZYX", "QYX", "CZY", ""):
        with pytest.raises(ConfigError, match="--axes CZYX"):
            read_volume(path, axes=text)
    unnamed = write(tmp_path / "b.tif", np.stack([STACK] * 2))
    with pytest.raises(DataError, match=r"does not name its axes.*--axes CZYX"):
        read_volume(unnamed)
