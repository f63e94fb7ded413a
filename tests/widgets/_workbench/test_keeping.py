"""Strokes, recipe and model are saved by themselves, and come back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.model_file import load_model
from napari_unet3d.io.autosave import AutosaveFolder
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import Workbench
from napari_unet3d.widgets.train import TrainDock

from .conftest import paint

TIMEOUT = 60_000


def only(base: Path) -> AutosaveFolder:
    folders = list(base.iterdir())
    assert len(folders) == 1
    return AutosaveFolder(folders[0])


def has_saved(base: Path) -> bool:
    return base.is_dir() and any(base.glob("*/recipe.yaml"))


def test_strokes_classes_and_recipe_are_saved_after_a_few_seconds(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    assert bench.keeping._timer.interval() < 10_000
    bench.new_annotation()
    bench.set_classes(
        [ClassInfo(id=1, name="outside", colour="#101010"), ClassInfo(id=2, name="cell", colour="#ff0000")]
    )
    assert not bench.keeping._timer.isActive()
    paint(bench, truth, (0, 5))
    assert bench.keeping._timer.isActive()
    bench.keeping._timer.timeout.emit()  # as after the wait
    qtbot.waitUntil(lambda: has_saved(autosaves), timeout=TIMEOUT)
    folder = only(autosaves)
    saved = folder.load_annotation()
    np.testing.assert_array_equal(saved.labels, bench.annotation.data)
    assert [entry.name for entry in saved.classes] == ["outside", "cell"]
    recipe = folder.load_recipe()
    assert recipe is not None
    assert "filters: 4" in recipe


def test_a_deleted_annotation_is_saved_at_once_and_offered_back(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    session = bench.session
    dock = TrainDock(bench.viewer)
    qtbot.addWidget(dock)
    bench.new_annotation()
    paint(bench, truth, (0, 5), (1, 12))
    painted = bench.annotation.data.copy()
    bench.viewer.layers.remove(bench.annotation)
    qtbot.waitUntil(lambda: bool(session.kept), timeout=TIMEOUT)
    assert not dock.offer.isHidden()
    assert "are kept" in dock.offer.text.text()
    dock.offer.yes.click()
    qtbot.waitUntil(lambda: bench.annotation is not None, timeout=TIMEOUT)
    np.testing.assert_array_equal(bench.annotation.data, painted)
    assert dock.offer.isHidden()
    assert not session.is_warning


def test_the_same_file_opened_again_brings_back_strokes_settings_and_model(
    qtbot: Any, viewer: Any, truth: NDArray[np.bool_], image: NDArray[np.uint8], autosaves: Path, tmp_path: Path
) -> None:
    from napari_unet3d.engine.config import TrainConfig
    from napari_unet3d.widgets._workbench.bench import workbench_of

    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "cell.tif"
    tifffile.imwrite(path, image)
    bench = workbench_of(viewer)
    session = bench.session
    bench.choose_image(viewer.open(path, plugin="napari"))
    session.network_settings = {"levels": 2, "filters": 4}
    session.train_config = TrainConfig(steps=3, threads=1)
    bench.new_annotation()
    paint(bench, truth, (0, 5), (0, 8), (1, 16))
    bench.training.start()
    qtbot.waitUntil(lambda: session.phase is Phase.IDLE, timeout=TIMEOUT)
    assert session.model is not None, session.message
    painted = bench.annotation.data.copy()
    viewer.layers.clear()
    qtbot.waitUntil(lambda: has_saved(autosaves), timeout=TIMEOUT)
    assert sorted(p.name for p in path.parent.iterdir()) == ["cell.tif"]

    session.model = None
    session.network_settings = {}
    bench.choose_image(viewer.open(path, plugin="napari"))
    qtbot.waitUntil(lambda: bool(session.kept), timeout=TIMEOUT)
    bench.keeping.restore()
    qtbot.waitUntil(lambda: session.model is not None, timeout=TIMEOUT)
    np.testing.assert_array_equal(bench.annotation.data, painted)
    assert session.network_settings["filters"] == 4
    assert session.curves.losses
    assert load_model(only(autosaves).model_path).recipe.network.filters == 4
    bench.training.go_on()  # the run goes on where it stood
    qtbot.waitUntil(lambda: session.phase is Phase.IDLE, timeout=TIMEOUT)
    assert session.model is not None
    assert session.model.recipe.record is not None
    assert session.model.recipe.record.steps == 6
    assert not session.is_warning, session.message


def test_another_annotation_does_not_wipe_out_the_one_before(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    bench.new_annotation()
    paint(bench, truth, (0, 5))
    first = bench.annotation
    bench.new_annotation()
    qtbot.waitUntil(lambda: has_saved(autosaves), timeout=TIMEOUT)
    paint(bench, truth, (0, 9))
    bench.choose_annotation(None)
    folder = only(autosaves)
    qtbot.waitUntil(lambda: (folder.path / "annotation-earlier.npz").is_file(), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: folder.load_annotation().labels[9].any(), timeout=TIMEOUT)
    (folder.path / "annotation.npz").unlink()
    np.testing.assert_array_equal(folder.load_annotation().labels, first.data)


def test_not_now_leaves_everything_where_it_is(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    bench.new_annotation()
    paint(bench, truth, (0, 5))
    bench.viewer.layers.remove(bench.annotation)
    qtbot.waitUntil(lambda: bool(bench.session.kept), timeout=TIMEOUT)
    bench.keeping.dismiss()
    assert bench.session.kept == ""
    assert only(autosaves).exists


def test_a_folder_that_cannot_be_written_is_told_and_training_goes_on(
    qtbot: Any, bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    autosaves.write_text("a file where the folder should be")
    bench.new_annotation()
    paint(bench, truth, (0, 5), (0, 8))
    bench.keeping.flush()
    qtbot.waitUntil(lambda: "not saved automatically" in bench.session.message, timeout=TIMEOUT)
    assert bench.session.is_warning
    bench.training.start()
    qtbot.waitUntil(lambda: bench.session.phase is Phase.IDLE, timeout=TIMEOUT)
    assert bench.session.model is not None


def test_a_newer_save_is_not_replaced_by_an_older_one(
    bench: Workbench, truth: NDArray[np.bool_], autosaves: Path
) -> None:
    bench.new_annotation()
    paint(bench, truth, (0, 5))
    older = bench.keeping._task()
    paint(bench, truth, (0, 9))
    newer = bench.keeping._task()
    assert older is not None
    assert newer is not None
    newer()
    stamp = (only(autosaves).path / "annotation.npz").stat().st_mtime_ns
    older()
    assert (only(autosaves).path / "annotation.npz").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("axes", ["TZYX"])
def test_strokes_at_several_time_points_come_back(
    qtbot: Any, viewer: Any, image: NDArray[np.uint8], autosaves: Path, axes: str
) -> None:
    from napari_unet3d.widgets._workbench.bench import workbench_of

    bench = workbench_of(viewer)
    bench.choose_image([viewer.add_image(np.stack([image, image[::-1]]), name="film")], axes)
    bench.new_annotation()
    bench.annotation.data_setitem((np.array([1]), np.array([3]), np.array([4]), np.array([5])), np.array([2]))
    painted = bench.annotation.data.copy()
    assert painted.any()
    viewer.layers.remove(bench.annotation)
    qtbot.waitUntil(lambda: bool(bench.session.kept), timeout=TIMEOUT)
    bench.keeping.restore()
    qtbot.waitUntil(lambda: bench.annotation is not None, timeout=TIMEOUT)
    np.testing.assert_array_equal(bench.annotation.data, painted)


def test_the_last_stroke_and_the_model_survive_a_window_that_is_closed(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("closed_in_the_middle.py")), str(tmp_path / "kept")]
    ended = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == 0, ended.stderr
    folder = only(tmp_path / "kept")
    labels = folder.load_annotation().labels
    assert sorted(np.flatnonzero(labels.any(axis=(1, 2)))) == [5, 9, 15]
    model = load_model(folder.model_path)
    assert model.recipe.record is not None
    assert model.recipe.record.steps >= 2
    assert model.state is not None
