"""What the Train dock shares with other docks, or asks, in the real viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy import QtTest
from qtpy.QtCore import Qt

from napari_unet3d.engine.suggest.suggestion import Suggestion
from napari_unet3d.widgets._layers.view import Plane, visible_plane
from napari_unet3d.widgets.predict import PredictDock
from napari_unet3d.widgets.train import TrainDock

QTest: Any = QtTest.QTest  # its type hints take the static methods for methods
TIMEOUT = 60_000
SHAPE = (6, 8, 10)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros(SHAPE, np.uint8), name="cell", scale=(2.0, 0.5, 0.5), units=("um",) * 3)
    return viewer


@pytest.fixture
def dock(viewer: Any) -> TrainDock:
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train", area="right")
    dock.reset_choices()
    return dock


def test_labels_without_zeros_raise_a_question_in_the_dock(qtbot: Any, viewer: Any, dock: TrainDock) -> None:
    data = np.full(SHAPE, 9, np.uint8)
    data[2] = 1
    data[2, :4] = 2
    layer = viewer.add_labels(data, name="mine", scale=(2.0, 0.5, 0.5), units=("um",) * 3)
    assert not dock.question.isVisibleTo(dock)
    dock.annotation_box.value = layer
    qtbot.waitUntil(lambda: dock.question.isVisibleTo(dock), timeout=TIMEOUT)
    box = dock.question.box
    assert [box.itemText(i) for i in range(box.count())] == ["choose…", "none: everything is annotated", "1", "2", "9"]
    assert box.currentIndex() == 0
    assert "which id means" in dock.train_button.toolTip()
    box.setCurrentIndex(4)
    box.activated.emit(4)
    qtbot.waitUntil(dock.train_button.isEnabled, timeout=TIMEOUT)
    assert [entry.id for entry in dock._session.classes] == [1, 2]
    assert box.currentText() == "9"  # may be changed
    np.testing.assert_array_equal(np.unique(layer.data), [1, 2, 9])
    dock.new_button.click()
    assert not dock.question.isVisibleTo(dock)


def test_a_click_on_a_suggestion_goes_there(viewer: Any, dock: TrainDock) -> None:
    suggesting, bench = dock._bench.suggesting, dock._bench
    assert bench.image is not None
    assert "train a model" in dock.next_slices.find_button.toolTip()
    suggesting.suggestions = (
        Suggestion(0, 4, 1.0, "uncertain border of 'class 2'", (4, 3, 3)),
        Suggestion(2, 7, 0.5, "nothing is annotated yet", (1, 1, 7)),
    )
    suggesting._image = bench.image
    suggesting.found.emit()
    table: Any = dock.next_slices.table
    assert [table.item(row, 0).text() for row in range(2)] == ["Z 4", "X 7"]
    assert table.item(0, 1).text() == "uncertain border of 'class 2'"
    for row, plane in enumerate((Plane(0, 4), Plane(2, 7))):
        place = table.visualItemRect(table.item(row, 1)).center()
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
        assert visible_plane(viewer, bench.image) == plane
        assert table.currentRow() == row


def test_both_docks_show_one_choice_until_predict_has_its_own(viewer: Any, dock: TrainDock) -> None:
    predict = PredictDock(viewer)
    viewer.window.add_dock_widget(predict, name="Predict", area="right")
    predict.reset_choices()
    dock.chooser.axes.setText("TYX")
    dock.chooser.axes.editingFinished.emit()
    assert predict.chooser.axes.text() == "TYX"
    other = viewer.add_image(np.zeros((4, 5, 6), np.uint8), name="other")
    predict.image_box.value = other
    assert dock.image_box.value == viewer.layers["cell"]
    assert predict.chooser.facts.text() == "Z 4 × Y 5 × X 6 voxels"
    predict.image_box.value = None
    assert predict.image_box.value == viewer.layers["cell"]


def test_a_key_on_the_canvas_completes_the_slice(qtbot: Any, viewer: Any, dock: TrainDock) -> None:
    dock.new_button.click()
    layer = dock._bench.annotation
    viewer.dims.set_point(0, 6.0)
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    assert (layer.data[3] == 1).all()
    assert layer.data.sum() == 80
    assert layer.mode == "paint"
    layer.undo()
    assert not layer.data.any()
