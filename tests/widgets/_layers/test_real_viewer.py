"""The window of napari, a mouse, and viewers and layers behind a proxy, as plugins get them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.widgets._layers.annotation import complete_slice, new_annotation, spatial_view
from napari_unet3d.widgets._layers.held_out import HeldOutMarks, plane_box
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.prediction import add_prediction, add_values, refresh, show_plane
from napari_unet3d.widgets._layers.strokes import StrokeWatch
from napari_unet3d.widgets._layers.view import Plane, box_in_view, go_to, visible_plane


@pytest.fixture
def real_viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy(show=True)


def opened(viewer: Any) -> ImageChoice:
    rng = np.random.default_rng(0)
    image = viewer.add_image(rng.random((40, 60, 80)), scale=(2, 1, 1), units="um", name="grey")
    return choose_image([image])


def canvas_of(viewer: Any) -> Any:
    return viewer.window._qt_window._qt_viewer.canvas.native


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_stroke_of_the_mouse_is_taken_over(
    make_napari_viewer: Any, drag: Any, classes: tuple[ClassInfo, ...], axis: int
) -> None:
    viewer = make_napari_viewer(show=True)
    choice = opened(viewer)
    layer = new_annotation(viewer, choice, classes)
    watch = StrokeWatch(layer, choice, is_empty=True)
    go_to(viewer, choice, axis, 20)
    viewer.reset_view()
    canvas = canvas_of(viewer)
    places = np.linspace((0.4, 0.45), (0.6, 0.55), 12) * (canvas.width(), canvas.height())
    drag(canvas, [QPoint(int(across), int(down)) for across, down in places])
    assert watch.is_pending
    (change,) = watch.take()
    assert change.box[axis] == slice(20, 21)
    assert set(np.unique(change.labels)) == {0, 2}
    np.testing.assert_array_equal(watch.handed_out(), layer.data)

    layer.undo()
    while watch.is_pending:
        watch.take()
    assert not watch.handed_out().any()
    watch.close()


def test_proxies_are_as_good_as_what_they_stand_for(real_viewer: Any, classes: tuple[ClassInfo, ...]) -> None:
    viewer = real_viewer
    choice = opened(viewer)
    layer = new_annotation(viewer, choice, classes)
    assert viewer.layers.selection.active == layer
    watch = StrokeWatch(layer, choice, is_empty=True)
    go_to(viewer, choice, 1, 7)
    assert visible_plane(viewer, choice) == Plane(1, 7)
    assert complete_slice(layer, choice, 1, 7) == 40 * 80
    (change,) = watch.take()
    assert change.box[1] == slice(7, 8)

    marks = HeldOutMarks(viewer, choice)
    marks.show(layer, [(0, plane_box(choice, Plane(1, 7)))])
    assert viewer.layers["held out"].data[:, 7].any()
    marks.remove()
    assert "held out" not in [each.name for each in viewer.layers]
    preview = add_prediction(viewer, choice, classes, "preview")
    show_plane(preview, choice, 1, 7, np.ones((40, 80), np.uint8))
    refresh(preview)
    add_values(viewer, choice, "uncertainty")
    assert viewer.layers.selection.active == layer
    assert spatial_view(preview, choice)[:, 7].all()
    watch.close()


def test_the_box_in_view_follows_the_zoom(real_viewer: Any) -> None:
    choice = opened(real_viewer)
    real_viewer.reset_view()
    assert box_in_view(real_viewer, choice) == (slice(0, 40), slice(0, 60), slice(0, 80))
    real_viewer.scene.camera.center = (0.0, 30.0, 40.0)
    real_viewer.scene.camera.zoom *= 4
    _, y, x = box_in_view(real_viewer, choice)
    assert y.start > 15
    assert y.stop < 45
    assert x.stop - x.start >= y.stop - y.start
