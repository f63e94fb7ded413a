"""A labels layer as plain values, whatever the order of its axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.errors import DataError
from napari_unet3d.widgets._layers.classes import apply_classes
from napari_unet3d.widgets._layers.frame import Frame
from napari_unet3d.widgets._layers.geometry import geometry_of
from napari_unet3d.widgets._layers.image import ImageChoice
from napari_unet3d.widgets._workbench.labels_source import LabelsSource

LENGTHS = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
EDGES = {"T": 7.0, "C": 1.0, "Z": 2.0, "Y": 0.5, "X": 0.25}


def over(axes: str) -> Labels:
    """A labels layer over an image with these axes, each voxel another id."""
    units = ["second" if axis == "T" else "pixel" if axis == "C" else "um" for axis in axes]
    image = Image(np.zeros([LENGTHS[a] for a in axes], np.uint8), scale=[EDGES[a] for a in axes], units=units)
    choice = ImageChoice((image,), axes)
    shape = Frame.new(choice).shape
    return Labels(np.arange(1, np.prod(shape) + 1, dtype=np.uint16).reshape(shape), **geometry_of(choice))


@pytest.mark.parametrize("axes", ["ZYX", "XYZ", "TZYX", "CZYX", "ZYXC", "TCZYX", "ZTYX", "TZYXC"])
def test_axes_are_brought_into_order(axes: str) -> None:
    layer = over(axes)
    source = LabelsSource.of(layer)
    assert source.volume.shape == (4, 5, 6)
    assert source.volume.voxel_size == VoxelSize(2.0, 0.5, 0.25, "um")
    assert source.time_points == (2 if "T" in axes else 1)
    if source.time is not None:
        assert source.time.seconds == 7
    kept = [axis for axis in axes if axis in "TZYX"]
    plain = np.asarray(layer.data).reshape([LENGTHS[a] for a in kept])
    ordered = plain.transpose([kept.index(a) for a in "TZYX" if a in kept]).reshape(-1, 4, 5, 6)
    for t in range(source.time_points):
        np.testing.assert_array_equal(source.read(t), ordered[t])
    again = source.layer_data([source.read(t) for t in range(source.time_points)])
    np.testing.assert_array_equal(again, layer.data)
    copy = Labels(again, **source.geometry)
    np.testing.assert_allclose(copy.data_to_world([1] * layer.ndim), layer.data_to_world([1] * layer.ndim))
    assert copy.units == layer.units


def test_a_plane_over_time_is_told_by_the_image() -> None:
    image = Image(np.zeros((2, 5, 6)), scale=(3, 0.5, 0.5), units=("second", "um", "um"))
    layer = Labels(np.ones((2, 5, 6), np.uint8), **geometry_of(ImageChoice((image,), "TYX")))
    source = LabelsSource.of(layer)
    assert source.time is not None
    assert source.time.length == 2
    assert source.volume.spatial_dims == 2
    assert source.read(1).shape == (1, 5, 6)


def test_labels_of_other_programs() -> None:
    layer = Labels(np.full((4, 5, 6), 3, np.int64), scale=(2, 1, 1))
    source = LabelsSource.of(layer)
    assert source.background_id == 0
    assert source.names == {}
    assert source.read().dtype == np.uint8
    assert source.volume.voxel_size == VoxelSize(2, 1, 1, "pixel")


def test_names_tell_the_background() -> None:
    layer = Labels(np.ones((4, 5, 6), np.uint8))
    apply_classes(layer, default_classes((3, 5)))
    source = LabelsSource.of(layer)
    assert source.names == {3: "background", 5: "class 5"}
    assert source.background_id == 3


def test_the_finest_level() -> None:
    data = np.ones((8, 8, 8), np.uint8)
    assert LabelsSource.of(Labels([data, data[::2, ::2, ::2]], multiscale=True)).volume.shape == (8, 8, 8)


@pytest.mark.parametrize(
    ("layer", "words"),
    [(None, "no labels layer"), (Labels(np.ones((2, 3, 4, 5, 6), np.uint8)), "one channel at a time")],
)
def test_what_cannot_be_used_is_said(layer: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        LabelsSource.of(layer)


def test_negative_ids_are_refused() -> None:
    with pytest.raises(DataError, match="negative"):
        LabelsSource.of(Labels(np.full((2, 3, 4), -1, np.int16))).read()
