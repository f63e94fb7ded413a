"""The Predict dock and the sections it shares, in the real viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog

from napari_unet3d.engine.classes import default_classes
from napari_unet3d.widgets._label_files import LABEL_FILTER, label_path
from napari_unet3d.widgets._layers.classes import apply_classes
from napari_unet3d.widgets._shortcuts import SHORTCUTS
from napari_unet3d.widgets._workbench.applying import PredictionRunner
from napari_unet3d.widgets.predict import PredictDock

TIMEOUT = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((6, 8, 10), np.uint8), name="cell", scale=(2.0, 0.5, 0.5), units=("um",) * 3)
    return viewer


@pytest.fixture
def dock(viewer: Any) -> PredictDock:
    dock = PredictDock(viewer)
    viewer.window.add_dock_widget(dock, name="Predict", area="right")
    dock.reset_choices()
    return dock


@pytest.fixture
def labels(viewer: Any, dock: PredictDock) -> Any:
    data = np.ones((6, 8, 10), np.uint8)
    data[1:4, 1:4, 1:4] = 2
    data[4, 6, 6] = 2
    layer = viewer.add_labels(data, name="found", scale=(2.0, 0.5, 0.5), units=("um",) * 3)
    apply_classes(layer, default_classes((1, 2)))
    dock.labels_box.value = layer
    return layer


def tick(dock: Any, row: int, state: Qt.CheckState = Qt.CheckState.Checked) -> None:
    dock.chooser.channels.item(row).setCheckState(state)


def channel_names(dock: Any) -> list[str]:
    return [dock.chooser.channels.item(row).text() for row in range(dock.chooser.channels.count())]


# --- the image --------------------------------------------------------------------------------------------


def test_the_first_image_is_chosen_and_described(dock: PredictDock) -> None:
    assert dock.chooser.axes.text() == "ZYX"
    assert dock.chooser.facts.text() == "Z 6 × Y 8 × X 10 voxels"
    assert "train a model" in dock.apply_button.toolTip()
    assert not dock.chooser.problem.isVisibleTo(dock)


def test_layers_become_channels(viewer: Any, dock: PredictDock) -> None:
    viewer.add_image(np.zeros((6, 8, 10), np.uint8), name="second", scale=(2.0, 0.5, 0.5), units=("um",) * 3)
    viewer.add_image(np.zeros((6, 8, 11), np.uint8), name="too wide")
    assert channel_names(dock) == ["second"]
    tick(dock, 0)
    image = dock._bench.applying.image
    assert image is not None
    assert [layer.name for layer in image.layers] == ["cell", "second"]
    assert "2 channels" in dock.chooser.facts.text()
    viewer.layers["second"].name = "renamed"
    assert channel_names(dock) == ["renamed"]
    item: Any = dock.chooser.channels.item(0)
    assert item.checkState() == Qt.CheckState.Checked
    tick(dock, 0, Qt.CheckState.Unchecked)
    image = dock._bench.applying.image
    assert image is not None
    assert image.channels == 1


def test_layers_elsewhere_are_refused_beside_the_field(viewer: Any, dock: PredictDock) -> None:
    viewer.add_image(np.zeros((6, 8, 10), np.uint8), name="second")
    tick(dock, 0)
    assert "lies elsewhere" in dock.chooser.problem.text()
    assert dock.chooser.problem.isVisibleTo(dock)
    tick(dock, 0, Qt.CheckState.Unchecked)
    assert not dock.chooser.problem.isVisibleTo(dock)


def test_axes_are_taken_or_refused_beside_the_field(qtbot: Any, dock: PredictDock) -> None:
    field = dock.chooser.axes

    def enter(text: str) -> None:
        field.setText(text)
        field.editingFinished.emit()

    enter("tyx")
    image = dock._bench.applying.image
    assert image is not None
    assert (image.axes, image.time_points, image.spatial_dims) == ("TYX", 6, 2)
    assert dock.all_times.isVisibleTo(dock)
    enter("TYXC")
    assert "has 3 axes" in dock.chooser.problem.text()
    assert field.text() == "TYXC"  # to be mended
    assert dock._bench.applying.image is None
    enter("")
    assert field.text() == "ZYX"
    assert dock.chooser.problem.text() == ""


def test_a_removed_image_leaves_no_stale_choice(viewer: Any, dock: PredictDock) -> None:
    viewer.layers.remove("cell")
    assert dock._bench.applying.image is None
    assert not dock.image_box.value
    viewer.add_image(np.zeros((4, 5, 6), np.uint8), name="next")
    assert dock.image_box.value.name == "next"


# --- labels -----------------------------------------------------------------------------------------------


def test_clean_up_offers_the_classes_and_units_of_the_layer(qtbot: Any, dock: PredictDock, labels: Any) -> None:
    section = dock.clean_up
    assert [section.classes.itemText(i) for i in range(section.classes.count())] == ["all structures", "class 2 (2)"]
    assert [section.unit.itemText(i) for i in range(section.unit.count())] == ["voxels", "µm³"]
    assert section.unit.currentText() == "µm³"
    assert not section.tidy_button.isEnabled()
    assert "tick" in section.tidy_button.toolTip()
    section.remove_small.setChecked(True)
    section.piece.setValue(1.0)
    section.unit.setCurrentIndex(0)
    section.unit.activated.emit(0)
    assert section.piece.value() == 2  # half a cubic micrometre each
    section.tidy_button.click()
    assert not section.tidy_button.isEnabled()
    qtbot.waitUntil(lambda: not dock._bench.cleaning.job.is_running, timeout=TIMEOUT)
    cleaned = dock._viewer.layers["found cleaned"]
    assert (cleaned.data == 2).sum() == 27
    assert (labels.data == 2).sum() == 28
    assert section.tidy_button.isEnabled()
    section.separation.setValue(2.0)
    section.split_button.click()
    qtbot.waitUntil(lambda: not dock._bench.cleaning.job.is_running, timeout=TIMEOUT)
    assert dock._viewer.layers["found objects"].data.max() == 2


def test_the_table_is_shown_copied_and_saved(
    qtbot: Any, dock: PredictDock, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes: Any = dock.volumes
    assert "measure" in volumes.copy_button.toolTip()
    volumes.measure_button.click()
    qtbot.waitUntil(lambda: not dock._bench.measuring.job.is_running, timeout=TIMEOUT)
    texts = [volumes.table.item(1, column).text() for column in range(4)]
    assert texts == ["class 2", "28", "14", f"{28 / 480:.1%}"]
    assert volumes.table.horizontalHeaderItem(2).text() == "µm³"
    volumes.copy_button.click()
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    assert "2\tclass 2\t28\t14\t" in clipboard.text()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "a.csv"), ""))
    volumes.save_button.click()
    qtbot.waitUntil(lambda: not dock._bench.measuring.job.is_running, timeout=TIMEOUT)
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").count("\n") == 3


def test_export_asks_for_a_file_and_keeps_the_place(
    qtbot: Any, dock: PredictDock, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def ask(*given: Any) -> tuple[str, str]:
        asked.append(given)
        return str(tmp_path / "found"), "NIfTI, with affine (*.nii.gz)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
    dock.as_zero.setChecked(True)
    dock.export_button.click()
    qtbot.waitUntil(lambda: "saved" in dock._session.message, timeout=TIMEOUT)
    assert asked[0][2:] == ("found.ome.tif", LABEL_FILTER)
    file: Any = nibabel.load(tmp_path / "found.nii.gz")
    np.testing.assert_array_equal(np.asarray(file.dataobj).T, np.where(labels.data == 2, 2, 0))
    np.testing.assert_allclose(file.header.get_zooms(), (0.5, 0.5, 2.0))


@pytest.mark.parametrize(
    ("name", "chosen", "wanted"),
    [
        ("a", "NumPy, ids only (*.npy)", "a.npy"),
        ("a", "", "a.ome.tif"),
        ("a.nii", "NumPy, ids only (*.npy)", "a.nii"),
        ("a.v2", "OME-Zarr, with voxel size (*.ome.zarr)", "a.v2.ome.zarr"),
    ],
)
def test_names_get_the_suffix_of_the_format(name: str, chosen: str, wanted: str) -> None:
    assert label_path(name, chosen) == Path(wanted)


def test_without_labels_the_buttons_say_why(dock: PredictDock) -> None:
    for button in (dock.export_button, dock.clean_up.split_button, dock.volumes.measure_button):
        assert not button.isEnabled()
        assert "apply a model" in button.toolTip()


# --- the rest ---------------------------------------------------------------------------------------------


def test_settings_are_shared_with_the_session(dock: PredictDock) -> None:
    session = dock._session
    session.predict_config = session.predict_config.updated(overlap=0.25)
    assert dock.form.config.updated() == session.predict_config
    dock.form.changed.emit(session.predict_config.updated(flips=True))
    assert session.predict_config.flips


def test_help_opens_and_every_control_has_a_tooltip(dock: PredictDock) -> None:
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QDoubleSpinBox, QTableWidget

    from napari_unet3d.widgets._config_form import ConfigForm
    from napari_unet3d.widgets._help import Help
    from napari_unet3d.widgets._section import Section

    page = dock.findChild(Help)
    assert page is not None
    assert not page.text.isVisibleTo(dock)
    page.button.click()
    assert page.text.isVisibleTo(dock)

    def is_ours(widget: Any) -> bool:
        parent = widget.parent()
        while parent is not None and parent is not dock:
            if isinstance(parent, ConfigForm | QTableWidget):
                return False
            parent = parent.parent()
        return not isinstance(widget.parent(), Section)

    for kind in (QAbstractButton, QComboBox, QDoubleSpinBox):
        for widget in dock.findChildren(kind):
            if is_ours(widget):
                assert widget.toolTip(), f"{type(widget).__name__} {widget.objectName()} has no tooltip"


def test_the_key_applies(viewer: Any, dock: PredictDock, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(PredictionRunner, "start", lambda self, options: started.append(options))
    from napari.utils.key_bindings import coerce_keybinding

    viewer.keymap[coerce_keybinding(SHORTCUTS["apply"].key)](viewer)
    assert len(started) == 1
    assert "Shift+G" in dock.apply_button.property("purpose")
