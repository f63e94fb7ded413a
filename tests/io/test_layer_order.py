"""Labels stored in another order than Z Y X are written in that order, with their own place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image, Labels

from napari_unet3d.io.layer_order import AXES_KEY, axis_order, in_order
from napari_unet3d.io.npe2_writers import write_nifti, write_ome_tiff
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice

EDGES = {"T": 5.0, "C": 1.0, "Z": 2.0, "Y": 0.5, "X": 0.25}
STARTS = {"T": 0.0, "C": 0.0, "Z": 7.0, "Y": -3.0, "X": 11.0}
LENGTHS = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}


def over(axes: str) -> Any:
    image = Image(
        np.zeros([LENGTHS[a] for a in axes], np.uint8),
        scale=[EDGES[a] for a in axes],
        translate=[STARTS[a] for a in axes],
        units=["second" if a == "T" else "pixel" if a == "C" else "um" for a in axes],
    )
    choice = ImageChoice((image,), axes)
    shape = Frame.new(choice).shape
    values = np.arange(np.prod(shape)) % 251
    return Labels(values.reshape(shape).astype(np.uint8), **geometry_of(choice)).as_layer_data_tuple()


@pytest.mark.parametrize("axes", ["ZYX", "XYZ", "YXZ", "ZYXC"])
def test_nifti_has_the_voxels_where_they_are(tmp_path: Path, axes: str) -> None:
    data, meta, _ = over(axes)
    (path,) = write_nifti(str(tmp_path / "a.nii.gz"), data, meta)
    file: Any = nibabel.load(path)
    np.testing.assert_allclose(file.header.get_zooms(), (0.25, 0.5, 2.0))
    np.testing.assert_allclose(np.abs(file.affine[:3, 3]), (11, 3, 7))
    kept = [a for a in axes if a in "ZYX"]
    wanted = data.reshape([LENGTHS[a] for a in kept]).transpose([kept.index(a) for a in "XYZ"])
    np.testing.assert_array_equal(np.asarray(file.dataobj), wanted)


def test_time_goes_in_front(tmp_path: Path) -> None:
    data, meta, _ = over("ZTYX")
    (path,) = write_ome_tiff(str(tmp_path / "a.ome.tif"), data, meta)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "TZYX"
        np.testing.assert_array_equal(file.asarray(), data.swapaxes(0, 1))
        assert 'PhysicalSizeZ="2.0"' in str(file.ome_metadata)
        assert 'TimeIncrement="5.0"' in str(file.ome_metadata)


def test_layers_that_do_not_tell_their_axes_stay_as_they_are() -> None:
    data = np.zeros((2, 3, 4), np.uint8)
    several: list[dict[str, Any]] = [{}, {AXES_KEY: "XY"}, {AXES_KEY: "XYQ"}, {AXES_KEY: 3}]
    for metadata in several:
        array, meta = in_order(data, {"metadata": metadata, "scale": (1, 2, 3)})
        assert array is data
        assert meta == {"metadata": metadata, "scale": (1, 2, 3)}
        assert axis_order(3, metadata) == (0, 1, 2)


def test_arrays_that_cannot_turn_are_read() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    array, _ = in_order(zarr.array(values), {"metadata": {AXES_KEY: "XYZ"}})
    np.testing.assert_array_equal(array, values.transpose())
