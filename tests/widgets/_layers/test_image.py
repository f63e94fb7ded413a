from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.io.layer_geometry import GEOMETRY_KEY as KEY_OF_READERS
from napari_unet3d.widgets._layers.image import GEOMETRY_KEY, ImageChoice, choose_image


def ramp(*shape: int, dtype: str = "u2") -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


class Counted:
    """An array that tells how much of it was read."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.voxels_read = 0

    def __getitem__(self, index: Any) -> NDArray[Any]:
        part: NDArray[Any] = self._array[index]
        self.voxels_read += part.size
        return part


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("ZYX", (4, 5, 6)),
        ("CZYX", (2, 4, 5, 6)),
        ("TCZYX", (3, 2, 4, 5, 6)),
        ("XYZ", (6, 5, 4)),
        ("ZCYX", (4, 2, 5, 6)),
    ],
)
def test_volume_shows_every_voxel_as_c_z_y_x(axes: str, shape: tuple[int, ...]) -> None:
    data = ramp(*shape)
    volume = choose_image([Image(data)], axes).volume(t=shape[0] - 1 if axes[0] == "T" else 0)
    read = volume.read()
    lengths = dict(zip(axes, shape, strict=True))
    assert read.shape == (lengths.get("C", 1), 4, 5, 6)
    for place in np.ndindex(read.shape):
        at = dict(zip("CZYX", place, strict=True)) | {"T": shape[0] - 1}
        assert read[place] == data[tuple(at[axis] for axis in axes)]


@pytest.mark.parametrize("kind", ["numpy", "big-endian", "memmap", "dask", "zarr", "levels"])
def test_every_kind_of_array_gives_the_same_volume(kind: str, tmp_path: Path) -> None:
    data = ramp(3, 2, 4, 5, 6)
    stored: Any = data
    if kind == "big-endian":
        stored = data.astype(">u2")
    elif kind == "memmap":
        stored = np.memmap(tmp_path / "data", dtype="u2", mode="w+", shape=data.shape)
        stored[:] = data
    elif kind == "dask":
        from_array: Any = da.from_array  # typed in some versions only
        stored = from_array(data, chunks=2)
    elif kind == "zarr":
        stored = zarr.create_array(tmp_path / "data.zarr", data=data, chunks=(1, 1, 2, 2, 2))
    layer = Image([stored, stored[..., ::2]], multiscale=True) if kind == "levels" else Image(stored)
    volume = choose_image([layer], "TCZYX").volume(1)
    assert volume.data.dtype == np.dtype("u2")
    box = (slice(1, 3), slice(0, 4), slice(2, 6))
    np.testing.assert_array_equal(volume.read(box), data[1, :, 1:3, :4, 2:6])
    np.testing.assert_array_equal(volume.data[1, 2], data[1, 1, 2])


def test_numpy_is_a_view() -> None:
    data = ramp(4, 5, 6)
    assert np.shares_memory(np.asarray(choose_image([Image(data)]).volume().data), data)


def test_only_the_box_is_read() -> None:
    counted = Counted(ramp(3, 20, 30, 40))
    layer = Image(counted, contrast_limits=(0, 1), axis_labels=("t", "z", "y", "x"))
    volume = choose_image([layer]).volume(2)
    shown = counted.voxels_read
    volume.read((slice(0, 2), slice(3, 6), slice(0, 4)))
    assert counted.voxels_read - shown == 2 * 3 * 4


def test_layers_become_channels() -> None:
    first, second = ramp(4, 5, 6), ramp(4, 5, 6).astype("f4") + 0.5
    choice = choose_image([Image(first, name="a"), Image(second, name="b")])
    assert (choice.channels, choice.name) == (2, "a + b")
    volume = choice.volume()
    assert volume.data.dtype == np.dtype("f4")
    np.testing.assert_array_equal(volume.read(), np.stack([first, second]))
    np.testing.assert_array_equal(np.asarray(volume.data[1:, 2]), second[None, 2])


@pytest.mark.parametrize("colours", [3, 4])
def test_opacity_is_no_channel(colours: int) -> None:
    data = ramp(4, 5, 6, colours, dtype="u1")
    choice = choose_image([Image(data, rgb=True)])
    assert (choice.channels, choice.layer_axes) == (3, "ZYX")
    np.testing.assert_array_equal(choice.volume().read(), np.moveaxis(data[..., :3], -1, 0))


def test_a_plane_is_a_volume_of_one_plane() -> None:
    choice = choose_image([Image(ramp(5, 6), scale=(0.5, 0.25), units="um")])
    assert (choice.spatial_shape, choice.spatial_dims) == ((1, 5, 6), 2)
    assert choice.volume().voxel_size == VoxelSize(0.25, 0.5, 0.25, "um")


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, VoxelSize()),
        ({"scale": (-2, 1, 1), "units": ("um", "um", "um")}, VoxelSize(2, 1, 1, "um")),
        ({"scale": (0.002, 0.5, 500), "units": ("mm", "um", "nm")}, VoxelSize(2000, 500, 500, "nm")),
        ({"scale": (2, 1, 1), "units": ("pixel", "um", "um")}, VoxelSize(2, 1, 1)),
        ({"units": ("second", "um", "um")}, VoxelSize()),
        ({"affine": np.diag([3.0, 2, 1, 1])}, VoxelSize(3, 2, 1)),
        ({"scale": (3, 2, 1), "rotate": (20, 30, 40)}, VoxelSize(3, 2, 1)),
    ],
)
def test_voxel_size_is_how_far_one_step_leads(arguments: dict[str, Any], size: VoxelSize) -> None:
    choice = choose_image([Image(ramp(4, 5, 6), **arguments)])
    np.testing.assert_allclose(choice.voxel_size.zyx, size.zyx)
    assert choice.voxel_size.unit == size.unit


def as_opened(**arguments: Any) -> Image:
    place = {
        "affine": np.diag([-2.0, 3, 4, 1]),
        "displayed": np.diag([2.0, 3, 4, 1]),
        "unit": "mm",
        "shape": (4, 5, 6),
        "source": {"format": "nifti"},
    }
    shown = {"scale": (2, 3, 4), "units": "mm"} | arguments
    return Image(ramp(4, 5, 6), metadata={GEOMETRY_KEY: place}, **shown)


def test_true_place_of_a_file_is_kept_while_the_layer_lies_as_opened() -> None:
    volume = choose_image([as_opened()]).volume()
    np.testing.assert_array_equal(volume.affine, np.diag([-2.0, 3, 4, 1]))
    assert volume.source == {"format": "nifti"}


@pytest.mark.parametrize("change", [{"scale": (2, 3, 5)}, {"translate": (1, 0, 0)}, {"units": "um"}])
def test_place_of_a_moved_layer_is_not_that_of_the_file(change: dict[str, Any]) -> None:
    choice = choose_image([as_opened(**change)])
    assert choice.affine is None
    assert choice.source == {}


def test_readers_leave_it_where_it_is_looked_for() -> None:
    assert GEOMETRY_KEY == KEY_OF_READERS


def test_key_tells_choices_apart() -> None:
    layer = Image(ramp(4, 5, 6))
    assert choose_image([layer]).key == choose_image([layer], "zyx").key != choose_image([layer], "TYX").key


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "no image is chosen"),
        ([None], "no image is chosen"),
        ([Labels(np.zeros((4, 5), np.uint8), name="l")], "'l' is a Labels layer"),
        ([Image(ramp(4, 5, 6)), Image(ramp(4, 5, 7))], "same shape"),
        ([Image(ramp(4, 5, 6)), Image(ramp(4, 5, 6), scale=(1, 1, 2))], "lies elsewhere"),
        ([Image(ramp(4, 5, 6)), Image(ramp(4, 5, 6), units="um")], "lies elsewhere"),
        ([Image(ramp(2, 9, 9, 9), rgb=False), Image(ramp(2, 9, 9, 9), rgb=False)], "several channels already"),
        ([Image(ramp(4, 5, 6), rgb=False), Image(ramp(4, 5, 3, dtype="u1"), rgb=True)], "several channels already"),
    ],
)
def test_what_cannot_be_an_image_is_told(layers: list[Layer | None], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        choose_image(layers)


def test_complex_values_are_told() -> None:
    layer = Mock(spec=Image, dtype=np.dtype(np.complex64))  # napari fails to show most of them
    with pytest.raises(DataError, match="complex"):
        choose_image([layer])


def test_time_points_are_counted() -> None:
    choice = ImageChoice((Image(ramp(3, 4, 5, 6)),), "TZYX")
    assert choice.time_points == 3
    with pytest.raises(DataError, match="there is no number 3"):
        choice.volume(3)
