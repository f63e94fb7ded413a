"""The Distill dock in a real window: from a teacher to a student, its table and its layers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d import api
from napari_unet3d.engine.config import DistillConfig, PredictConfig, TrainConfig
from napari_unet3d.engine.distillation.comparison import ModelFigures, Scored
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.progress import ClassScore
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.widgets._comparison_table import rows_of, scaled, verdict_of
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import workbench_of
from napari_unet3d.widgets._workbench.distill_tasks import StudentChoice
from napari_unet3d.widgets.distill import DistillDock

SHAPE = (30, 24, 28)
TIMEOUT = 60_000
QUICK = TrainConfig(steps=6, threads=1, precision="float32", device="cpu")
TINY = {"levels": 2, "filters": 2, "features": "none"}


def truth() -> np.ndarray[Any, Any]:
    z, y, x = np.ogrid[:30, :24, :28]
    return np.asarray(1 + ((z - 15) ** 2 + (y - 12) ** 2 + (x - 14) ** 2 < 49), np.uint8)


def picture(seed: int = 0) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(seed).normal(0, 20, SHAPE)
    return np.asarray(np.clip(80.0 * truth() + noise, 0, 255), np.uint8)


@pytest.fixture(scope="session")
def teacher() -> TrainedModel:
    labels = np.where(np.arange(30)[:, None, None] % 6 == 3, truth(), 0).astype(np.uint8)
    settings = {"levels": 2, "filters": 8, "features": "none"}
    return api.train(picture(), labels, network="fast", network_settings=settings, config=QUICK)


@pytest.fixture
def dock(make_napari_viewer: Callable[..., Any], qtbot: Any) -> DistillDock:
    viewer = make_napari_viewer()
    viewer.add_image(picture(), name="nuclei")
    dock = DistillDock(viewer)
    viewer.window.add_dock_widget(dock, name="Distill", area="right")
    dock.reset_choices()
    dock._session.predict_config = PredictConfig(precision="float32", device="cpu")
    dock._session.train_config = QUICK
    dock._runner.train_config = QUICK
    dock._session.network_settings = dict(TINY)
    dock.student.setCurrentText("as in the Network dock")
    return dock


def finished(qtbot: Any, dock: DistillDock) -> None:
    """Wait until nothing runs any more."""
    runner = dock._runner
    qtbot.waitUntil(lambda: runner.phase is Phase.IDLE and not runner.is_comparing, timeout=TIMEOUT)


def test_building_it_loads_no_torch(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, napari_unet3d.widgets.distill; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_says_what_is_missing(dock: DistillDock, teacher: TrainedModel) -> None:
    assert not dock.start_button.isEnabled()
    assert dock.guide.text() == "Next: choose a teacher: train a model (Train dock), or add a model file."
    for widget in (dock.stop_button, dock.pause_button, dock.compare_button, dock.flip_button, dock.save_button):
        assert not widget.isEnabled()
        assert widget.toolTip()
    dock._session.model = teacher
    assert dock.start_button.isEnabled()
    assert dock.teachers.item(0).text().endswith("(present model)")  # type: ignore[union-attr]
    dock._viewer.add_image(np.zeros((2, *SHAPE), np.uint8), name="two")
    dock._bench.choose_image([dock._viewer.layers["two"]], "CZYX")
    assert "has 2 channels" in dock._runner.problem()


def test_distil_compare_flip_save_and_use(
    qtbot: Any, dock: DistillDock, teacher: TrainedModel, tmp_path: Path, autosaves: Path
) -> None:
    viewer, runner = dock._viewer, dock._runner
    dock._session.model, dock._session.model_origin = teacher, "a few steps"
    runner.truth = viewer.add_labels(truth(), name="truth", visible=False)
    dock.with_annotation.setChecked(False)
    dock.start_button.click()
    assert runner.phase is Phase.PREPARING
    assert not dock.start_button.isEnabled()
    finished(qtbot, dock)
    assert runner.message.startswith("nothing is annotated: the student learns from the teachers alone")
    assert len(runner.curves.losses) == 6
    assert all(np.isnan(point.hard) for point in runner.curves.losses)
    assert runner.student is not None
    assert "agreement with the teacher" in dock.status.text()
    # the table
    assert [figures.name for figures in runner.figures] == ["teacher", "student"]
    assert not dock.table.isHidden()
    assert (dock.table.columnCount(), dock.table.horizontalHeaderItem(0).toolTip()) == (2, "a few steps")  # type: ignore[union-attr]
    assert "of the operations" in dock.verdict.text()
    # the layers are what both models say
    first, second = runner.layers
    config = dock._session.predict_config
    np.testing.assert_array_equal(first.data, api.predict(teacher, picture(), config=config))
    np.testing.assert_array_equal(second.data, api.predict(runner.student, picture(), config=config))
    assert (first.visible, second.visible) == (False, True)
    dock.flip_button.click()
    assert (first.visible, second.visible) == (True, False)
    assert dock.flip_button.text() == "Flip to student"
    viewer.layers.remove(first)
    runner.changed.emit()
    assert not dock.flip_button.isEnabled()
    # it is kept without being asked for, saved, and used
    (kept,) = autosaves.glob("*/student.safetensors")
    np.testing.assert_array_equal(second.data, api.predict(load_model(kept), picture(), config=config))
    runner.save_student(tmp_path / "student")
    qtbot.waitUntil(lambda: "saved" in runner.message, timeout=TIMEOUT)
    assert load_model(tmp_path / "student.safetensors").recipe.distill == DistillConfig()
    dock.use_button.click()
    assert dock._session.model is runner.student
    assert [chosen.model for chosen in runner.effective_teachers] == [teacher]


def test_annotation_further_images_and_scratch(qtbot: Any, dock: DistillDock, teacher: TrainedModel) -> None:
    viewer, runner = dock._viewer, dock._runner
    labels = np.where(np.arange(30)[:, None, None] % 6 == 3, truth(), 0).astype(np.uint8)
    layer = viewer.add_labels(labels, name="paint")
    other = viewer.add_image(picture(1), name="another", visible=False)
    dock._bench.choose_annotation(layer)
    qtbot.waitUntil(lambda: dock._bench.watch is not None, timeout=TIMEOUT)
    item = dock.unlabelled.item(0)
    assert item is not None
    item.setCheckState(item.checkState().Checked)
    assert runner.unlabelled == (other,)
    dock._session.model = teacher
    dock.with_scratch.setChecked(True)
    dock.start_button.click()
    finished(qtbot, dock)
    assert not runner.is_warning, runner.message
    assert any(not np.isnan(point.hard) for point in runner.curves.losses)
    assert len(runner.curves.losses) == 6  # those without a teacher are not among them
    assert [figures.name for figures in runner.figures] == ["teacher", "scratch", "student"]
    assert runner.figures[0].held_out is not None


def test_pause_go_on_longer_stop_and_continue(qtbot: Any, dock: DistillDock, teacher: TrainedModel) -> None:
    runner = dock._runner
    dock._session.model = teacher
    runner.train_config = QUICK.updated(steps=1000)
    dock.start_button.click()
    qtbot.waitUntil(lambda: len(runner.curves.losses) > 2, timeout=TIMEOUT)
    dock.pause_button.click()
    qtbot.waitUntil(lambda: runner.phase is Phase.PAUSED, timeout=TIMEOUT)
    assert dock.pause_button.text() == "Go on"
    taken = len(runner.curves.losses)
    dock.pause_button.click()
    qtbot.waitUntil(lambda: len(runner.curves.losses) > taken, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: runner.preview_layer is not None, timeout=TIMEOUT)
    dock.stop_button.click()
    finished(qtbot, dock)
    student = runner.student
    assert student is not None
    assert runner.figures == ()  # who stops does not want to wait for a comparison
    steps = student.recipe.record.steps  # type: ignore[union-attr]
    runner.train_config = QUICK.updated(steps=3)
    assert dock.continue_button.isEnabled()
    dock.continue_button.click()
    finished(qtbot, dock)
    assert runner.student is not None
    assert runner.student.recipe.record.steps == steps + 3  # type: ignore[union-attr]
    assert runner.curves.losses[-1].step == steps + 3


def test_several_teachers_from_files(qtbot: Any, dock: DistillDock, teacher: TrainedModel, tmp_path: Path) -> None:
    runner, path = dock._runner, save_model(teacher, tmp_path / "big.safetensors")
    for count in (1, 2):
        runner.add_teacher_file(path)
        qtbot.waitUntil(lambda count=count: len(runner.teachers) == count, timeout=TIMEOUT)
    assert [chosen.name for chosen in runner.teachers] == ["big.safetensors", "big.safetensors (2)"]
    dock.teachers.setCurrentRow(0)
    dock.remove_button.click()
    assert [chosen.name for chosen in runner.teachers] == ["big.safetensors (2)"]
    runner.add_teacher_file(tmp_path / "gone.safetensors")
    qtbot.waitUntil(lambda: runner.is_warning, timeout=TIMEOUT)
    assert "gone.safetensors" in runner.message


def test_a_wrong_student_is_refused_in_one_sentence(qtbot: Any, dock: DistillDock, teacher: TrainedModel) -> None:
    runner = dock._runner
    dock._session.model = teacher
    dock._session.network_settings = {**TINY, "head": "sigmoid"}
    dock.start_button.click()
    finished(qtbot, dock)
    assert "set network.head to softmax" in runner.message
    assert runner.is_warning
    assert runner.student is None
    assert dock.start_button.isEnabled()


def test_a_second_dock_shows_the_same(dock: DistillDock, teacher: TrainedModel) -> None:
    dock.student.setCurrentText("1/16 of the operations")
    dock._session.model = teacher
    other = DistillDock(dock._viewer)
    assert other.student.currentText() == "1/16 of the operations"
    assert other._runner is workbench_of(dock._viewer).distilling
    assert other._runner.student_choice == StudentChoice("1/16")
    other.close()


def test_settings_reach_the_run(dock: DistillDock) -> None:
    runner = dock._runner
    dock.begin.setCurrentText("the teacher's weights that fit")
    dock.form.changed.emit(DistillConfig(temperature=4))
    assert (runner.config.temperature, runner.config.student_from) == (4, "teacher")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_it_is_narrow(dock: DistillDock, teacher: TrainedModel, theme: str) -> None:
    dock._viewer.theme = theme
    dock._session.model = teacher
    content = dock._area.widget()
    assert content is not None
    assert content.minimumSizeHint().width() <= 300


# --- the table --------------------------------------------------------------------------------------------


def figures(name: str, iou: float | None, operations: int, seconds: float) -> ModelFigures:
    found = None
    if iou is not None:
        scores = tuple(ClassScore(i, iou, 0.0, 0.0, 0.0) for i in (1, 2, 3))
        found = Scored(scores, iou, 100)
    return ModelFigures(name, None, found, 0.95, 1234, operations, None, seconds, 5_000_000)


def test_rows() -> None:
    rows = dict(rows_of([figures("teacher", 0.8, 8000, 4.0), figures("student", float("nan"), 1000, 1.0)], ()))
    assert "IoU held out" not in rows
    assert rows["IoU truth"] == ["0.800", "–"]
    assert rows["   2"] == ["0.800", "–"]
    assert rows["operations"] == ["8 k", "1 k"]
    assert rows["file"] == ["–", "–"]
    assert rows["memory"] == ["5 MB", "5 MB"]


def test_verdict() -> None:
    teacher = figures("teacher", 0.8, 8000, 4.0)
    assert verdict_of([teacher, figures("student", 0.78, 1000, 1.0)]) == (
        "The student: 1/8.0 of the operations, 4.0 times as fast, keeps 97.5% of the IoU."
    )
    assert "labels 95.0% of the voxels alike" in verdict_of([teacher, figures("student", None, 1000, 1.0)])
    assert verdict_of([]) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (1_374_616, "1.37 M"), (2e15, "2e+03 T")]
)
def test_scaled(value: float, text: str) -> None:
    assert scaled(value) == text
