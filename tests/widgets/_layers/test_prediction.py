from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.errors import DataError
from napari_unet3d.widgets._layers.annotation import new_annotation, spatial_view
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.prediction import (
    PROVENANCE_KEY,
    add_prediction,
    add_values,
    refresh,
    show_plane,
    write_box,
)


def opened(viewer: ViewerModel, shape: tuple[int, ...], axes: str, **arguments: Any) -> ImageChoice:
    return choose_image([viewer.add_image(np.zeros(shape), rgb=False, **arguments)], axes)


def test_prediction_lies_on_the_image_and_leaves_the_brush_alone(
    viewer: ViewerModel, classes: tuple[ClassInfo, ...]
) -> None:
    choice = opened(viewer, (4, 5, 6), "ZYX", scale=(3, 2, 1), units="um", translate=(1, 2, 3))
    annotation = new_annotation(viewer, choice, classes)
    layer = add_prediction(viewer, choice, classes, "result", provenance={"steps": 3})
    values = add_values(viewer, choice, "uncertainty")
    assert viewer.layers.selection.active == annotation
    assert set(viewer.layers.selection) == {annotation}
    assert annotation.mode == "paint"
    assert [each.name for each in viewer.layers] == ["Image", "annotation", "result", "uncertainty"]
    for each in (layer, values):
        np.testing.assert_array_equal(each.extent.world, choice.layer.extent.world)
        assert each.units == choice.layer.units
    assert layer.data.dtype == np.uint8
    assert layer.metadata[PROVENANCE_KEY] == {"steps": 3}
    np.testing.assert_array_equal(layer.get_color(2), annotation.get_color(2))
    assert values.data.dtype == np.float16
    assert tuple(values.contrast_limits) == (0, 1)


def test_data_is_shown_as_it_is(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (4, 5, 6), "ZYX")
    data = np.ones((4, 5, 6), np.uint8)
    assert np.shares_memory(add_prediction(viewer, choice, classes, "a", data=data).data, data)
    with pytest.raises(DataError, match=r"shape \(4, 5, 7\); .* needs \(4, 5, 6\)"):
        add_prediction(viewer, choice, classes, "a", data=np.ones((4, 5, 7), np.uint8))


def test_z_y_x_data_is_turned_as_the_image_is(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (6, 5, 4), "XYZ")
    data = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    np.testing.assert_array_equal(add_prediction(viewer, choice, classes, "a", data=data).data, data.T)


@pytest.mark.parametrize(
    ("axes", "shape", "own"),
    [
        ("TCZYX", (3, 2, 4, 5, 6), (3, 1, 4, 5, 6)),
        ("ZTYX", (4, 3, 5, 6), (4, 3, 5, 6)),
        ("TYX", (3, 5, 6), (3, 5, 6)),
    ],
)
def test_t_z_y_x_data_is_shown_over_time(
    viewer: ViewerModel, classes: tuple[ClassInfo, ...], axes: str, shape: tuple[int, ...], own: tuple[int, ...]
) -> None:
    choice = opened(viewer, shape, axes)
    data = np.zeros((3, *choice.spatial_shape), np.uint8)
    layer = add_prediction(viewer, choice, classes, "all", data=data)
    assert layer.data.shape == own
    data[2] = 7
    assert (spatial_view(layer, choice, 2) == 7).all()
    assert not spatial_view(layer, choice, 1).any()


def test_one_time_point_is_a_layer_without_time(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (3, 2, 4, 5, 6), "TCZYX")
    assert add_prediction(viewer, choice, classes, "all").data.shape == (3, 1, 4, 5, 6)
    data = np.ones((4, 5, 6), np.uint8)
    layer = add_prediction(viewer, choice, classes, "one", data=data, with_time=False)
    assert layer.data.shape == (4, 5, 6)
    show_plane(layer, choice, 1, 2, np.full((4, 6), 7, np.uint8), t=2)
    assert (layer.data[:, 2] == 7).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_and_boxes_are_written_in_place(viewer: ViewerModel, classes: tuple[ClassInfo, ...], axis: int) -> None:
    choice = opened(viewer, (2, 2, 4, 5, 6), "TCZYX")
    layer = add_prediction(viewer, choice, classes, "preview")
    data = layer.data
    shape = tuple(n for i, n in enumerate((4, 5, 6)) if i != axis)
    plane = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    show_plane(layer, choice, axis, 3, plane, t=1)
    refresh(layer)
    assert layer.data is data
    np.testing.assert_array_equal(np.take(data[1, 0], 3, axis), plane)
    assert not data[0].any()

    write_box(layer, choice, (slice(0, 2), slice(1, 3), slice(2, 5)), np.full((2, 2, 3), 9, np.uint8))
    assert (data[0, 0, 0:2, 1:3, 2:5] == 9).all()
    assert np.count_nonzero(data[0]) == 12


def test_previews_of_a_2d_image(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (5, 6), "YX")
    layer = add_prediction(viewer, choice, classes, "preview")
    show_plane(layer, choice, 0, 0, np.full((5, 6), 2, np.uint8))
    assert (layer.data == 2).all()
