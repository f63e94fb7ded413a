from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_unet3d.engine.classes import ClassInfo, default_classes
from napari_unet3d.engine.errors import DataError
from napari_unet3d.widgets._layers.annotation import (
    annotated_time_points,
    annotation_problem,
    complete_slice,
    copy_slice,
    label_ids,
    new_annotation,
    spatial_view,
)
from napari_unet3d.widgets._layers.classes import UNKNOWN_COLOUR, apply_classes
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.view import go_to


def opened(viewer: ViewerModel, shape: tuple[int, ...], axes: str | None = None, **arguments: Any) -> ImageChoice:
    return choose_image([viewer.add_image(np.zeros(shape), rgb=False, name="img", **arguments)], axes)


def test_new_layer_is_ready_to_paint_the_first_structure(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (4, 5, 6), scale=(3, 2, 1), units="um", translate=(7, 8, 9))
    layer = new_annotation(viewer, choice, classes)
    assert (layer.name, layer.data.dtype, layer.mode, layer.selected_label) == ("annotation", np.uint8, "paint", 2)
    assert not layer.data.any()
    assert viewer.layers.selection.active == layer
    np.testing.assert_array_equal(layer.extent.world, choice.layer.extent.world)
    assert layer.units == choice.layer.units
    assert list(layer.features["class"]) == ["not annotated", "background", "class 2", "class 3"]
    np.testing.assert_allclose(layer.get_color(2), np.array([0xF5, 0x82, 0x31, 0xFF]) / 255, atol=1e-6)
    assert layer.get_color(0) is None or layer.get_color(0)[3] == 0
    assert annotation_problem(layer, choice) is None


def test_ids_above_255_need_16_bits(viewer: ViewerModel) -> None:
    choice = opened(viewer, (4, 5, 6))
    layer = new_annotation(viewer, choice, default_classes((1, 300)))
    assert layer.data.dtype == np.uint16
    assert layer.selected_label == 300


def test_one_class_and_none(viewer: ViewerModel) -> None:
    choice = opened(viewer, (4, 5, 6))
    assert new_annotation(viewer, choice, default_classes((4,))).selected_label == 4
    assert new_annotation(viewer, choice, ()).data.dtype == np.uint8


def test_images_over_time_are_annotated_over_time(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (3, 2, 4, 5, 6), "TCZYX")
    layer = new_annotation(viewer, choice, classes)
    assert layer.data.shape == (3, 1, 4, 5, 6)
    layer.data[2, 0, 1, 2, 3] = 2
    assert annotated_time_points(layer, choice) == (2,)
    view = spatial_view(layer, choice, 2)
    assert view.shape == (4, 5, 6)
    assert np.shares_memory(view, layer.data)
    assert view[1, 2, 3] == 2


def test_painted_ids_without_class_are_seen(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    layer = new_annotation(viewer, opened(viewer, (4, 5, 6)), classes)
    apply_classes(layer, classes[:2])
    np.testing.assert_allclose(layer.get_color(9), [1, 0, 1, 1], atol=1e-6)
    assert UNKNOWN_COLOUR == "#ff00ff"


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (None, "no annotation layer is chosen"),
        (Image(np.zeros((4, 5, 6)), name="other"), "'other' is a Image layer"),
        (Labels([np.zeros((4, 5, 6), np.uint8), np.zeros((2, 2, 3), np.uint8)], name="l"), "several resolution levels"),
        (Labels(np.zeros((4, 5, 7), np.uint8), name="l"), r"'l' has shape \(4, 5, 7\) but 'img' needs \(4, 5, 6\)"),
        (Labels(np.zeros((4, 5, 6), np.int64)), None),
        (Labels(np.zeros((4, 5, 6), bool)), None),
    ],
)
def test_problems_of_a_layer_are_told(viewer: ViewerModel, layer: Any, problem: str | None) -> None:
    found = annotation_problem(layer, opened(viewer, (4, 5, 6)))
    if problem is None:
        assert found is None
    else:
        assert found is not None
        with pytest.raises(RuntimeError, match=problem):
            raise RuntimeError(found)


def test_labels_without_time_do_not_say_which_time(viewer: ViewerModel) -> None:
    choice = opened(viewer, (3, 4, 5, 6), "TZYX")
    assert "shape (4, 5, 6)" in (annotation_problem(Labels(np.zeros((4, 5, 6), np.uint8)), choice) or "")


@pytest.mark.parametrize("axes", ["ZYX", "XYZ", "TCZYX"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_completing_a_slice_is_one_action(
    viewer: ViewerModel, classes: tuple[ClassInfo, ...], axes: str, axis: int
) -> None:
    sizes = {"T": 3, "C": 2, "Z": 4, "Y": 5, "X": 6}
    choice = opened(viewer, tuple(sizes[letter] for letter in axes), axes)
    layer = new_annotation(viewer, choice, classes)
    go_to(viewer, choice, (axis + 1) % 3, 0)  # the slice need not be in view
    t = choice.time_points - 1
    before = np.zeros(choice.spatial_shape, np.uint8)
    before[1, 2, 3] = 2
    spatial_view(layer, choice, t)[...] = before
    after = before.copy()
    plane = np.moveaxis(after, axis, 0)[axis + 1]
    plane[plane == 0] = 1
    told: list[Any] = []
    layer.events.paint.connect(told.append)

    count = complete_slice(layer, choice, axis, axis + 1, t)
    assert count == plane.size - 1
    np.testing.assert_array_equal(spatial_view(layer, choice, t), after)
    assert np.count_nonzero(layer.data) == count + 1
    layer.undo()
    np.testing.assert_array_equal(spatial_view(layer, choice, t), before)
    layer.redo()
    np.testing.assert_array_equal(spatial_view(layer, choice, t), after)
    assert complete_slice(layer, choice, axis, axis + 1, t) == 0
    assert len(told) == 1


def test_completing_works_in_the_3d_view_and_hidden(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (4, 5, 6))
    layer = new_annotation(viewer, choice, classes)
    viewer.dims.ndisplay = 3
    layer.visible = False
    assert complete_slice(layer, choice, 0, 3) == 30
    layer.undo()
    assert not layer.data.any()


def test_zarr_labels_are_painted_too(viewer: ViewerModel) -> None:
    choice = opened(viewer, (4, 5, 6))
    layer = viewer.add_labels(zarr.create_array(zarr.storage.MemoryStore(), data=np.zeros((4, 5, 6), np.uint8)))
    assert complete_slice(layer, choice, 1, 2, background_id=7) == 24
    assert (spatial_view(layer, choice)[:, 2] == 7).all()
    layer.undo()
    assert not spatial_view(layer, choice).any()


def test_copied_slice_keeps_strokes(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (4, 5, 6))
    layer = new_annotation(viewer, choice, classes)
    layer.data[:, 2, 0] = 3
    predicted = np.tile(np.array([1, 1, 2, 2, 0, 2], np.uint8), (4, 1))
    assert copy_slice(predicted, layer, choice, 1, 2) == 4 * 4
    np.testing.assert_array_equal(layer.data[:, 2], np.tile([3, 1, 2, 2, 0, 2], (4, 1)))
    layer.undo()
    assert copy_slice(predicted, layer, choice, 1, 2, overwrite=True) == 4 * 5
    np.testing.assert_array_equal(layer.data[:, 2], predicted)
    layer.undo()
    np.testing.assert_array_equal(layer.data[:, 2], np.tile([3, 0, 0, 0, 0, 0], (4, 1)))


def test_slices_that_do_not_fit_are_told(viewer: ViewerModel, classes: tuple[ClassInfo, ...]) -> None:
    choice = opened(viewer, (4, 5, 6))
    layer = new_annotation(viewer, choice, classes)
    with pytest.raises(DataError, match=r"shape \(5, 6\)"):
        copy_slice(np.ones((5, 6), np.uint8), layer, choice, 1, 2)
    with pytest.raises(DataError, match="id 300"):
        copy_slice(np.full((5, 6), 300, np.uint16), layer, choice, 0, 2)


def test_ids_in_use() -> None:
    layer = Labels(np.array([[[0, 3, 3], [1, 3, 7]]], np.uint8))
    assert label_ids(layer.data) == (0, 1, 3, 7)
