"""The whole path in the real viewer: paint with the mouse, train, paint on, apply, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from qtpy.QtCore import QPoint

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.progress import Annotate, Inbox
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.applying import ApplyOptions
from napari_unet3d.widgets._workbench.bench import workbench_of
from napari_unet3d.widgets.predict import PredictDock
from napari_unet3d.widgets.train import TrainDock

TIMEOUT = 120_000
SMALL = {"levels": 2, "filters": 4}


@pytest.fixture
def truth() -> NDArray[np.bool_]:
    z, y, x = np.ogrid[:20, :48, :56]
    return np.asarray((z - 10) ** 2 * 4 + (y - 24) ** 2 + (x - 28) ** 2 < 15**2)


@pytest.fixture
def viewer(make_napari_viewer: Any, truth: NDArray[np.bool_]) -> Any:
    viewer = make_napari_viewer(show=True)
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    viewer.add_image(
        (100 + 60 * truth + noise).astype(np.uint8),
        name="cell",
        scale=(2.0, 0.5, 0.5),
        translate=(10.0, 0.0, 5.0),
        units=("um", "um", "um"),
    )
    return viewer


@pytest.fixture
def dock(viewer: Any) -> TrainDock:
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train", area="right")
    dock.reset_choices()
    session = workbench_of(viewer).session
    session.network_settings = SMALL
    session.train_config = TrainConfig(steps=40, threads=1)
    return dock


@pytest.fixture
def stroke(viewer: Any, drag: Any) -> Callable[..., None]:
    """Draw with the left button from one place of the canvas to another, given as shares of its size."""

    def stroke(start: tuple[float, float], stop: tuple[float, float]) -> None:
        canvas = viewer.window._qt_viewer.canvas.native
        shares = np.linspace(start, stop, 6) * (canvas.height(), canvas.width())
        drag(canvas, [QPoint(int(across), int(down)) for down, across in shares])

    return stroke


def paint_slice(bench: Any, truth: NDArray[np.bool_], axis: int, index: int) -> None:
    """What a patient user would paint on one slice."""
    where = [slice(None)] * 3
    where[axis] = slice(index, index + 1)
    grid = np.nonzero(np.ones_like(truth[tuple(where)]))
    at = tuple(g + (index if i == axis else 0) for i, g in enumerate(grid))
    bench.annotation.data_setitem(at, np.where(truth[at], 2, 1).astype(np.uint8))


def test_paint_train_apply_export(
    qtbot: Any, viewer: Any, dock: TrainDock, stroke: Any, truth: NDArray[np.bool_], tmp_path: Path, monkeypatch: Any
) -> None:
    bench, session = dock._bench, dock._session
    assert "annotation layer" in dock.train_button.toolTip()
    dock.new_button.click()
    layer = bench.annotation
    assert layer.mode == "paint"
    assert layer.selected_label == 2
    np.testing.assert_allclose(layer.scale, viewer.layers["cell"].scale)
    assert not dock.train_button.isEnabled()

    viewer.dims.set_point(0, 30.0)  # z 10, through the middle
    layer.brush_size = 4
    stroke((0.5, 0.45), (0.5, 0.55))
    assert (layer.data == 2).any()
    qtbot.waitUntil(lambda: "background" in dock.train_button.toolTip(), timeout=5000)
    bench.complete_slice()
    for axis, index in ((0, 5), (1, 24), (2, 28), (0, 14), (1, 12)):
        paint_slice(bench, truth, axis, index)
    qtbot.waitUntil(dock.train_button.isEnabled, timeout=5000)

    taken: list[Any] = []
    put = Inbox.put

    def remember(self: Inbox, command: Any) -> None:
        taken.append(command)
        put(self, command)

    monkeypatch.setattr(Inbox, "put", remember)
    phases: list[Phase] = []
    session.events.phase.connect(phases.append)
    dock.train_button.click()
    assert phases == [Phase.PREPARING]
    qtbot.waitUntil(lambda: session.phase == Phase.TRAINING, timeout=TIMEOUT)
    dock.pause_button.click()
    qtbot.waitUntil(lambda: session.phase == Phase.PAUSED, timeout=TIMEOUT)
    viewer.dims.order = (1, 0, 2)  # a stroke on a slice across Y
    stroke((0.5, 0.4), (0.5, 0.5))
    qtbot.waitUntil(lambda: any(isinstance(command, Annotate) for command in taken), timeout=5000)
    dock.pause_button.click()
    qtbot.waitUntil(lambda: session.phase == Phase.IDLE, timeout=TIMEOUT)
    assert phases[-1] is Phase.IDLE
    assert session.model is not None
    assert [entry.name for entry in session.model.classes] == ["background", "class 2"]
    assert len(session.curves.losses) == 40
    assert session.held_out

    predict = PredictDock(viewer)
    viewer.window.add_dock_widget(predict, name="Predict", area="right")
    predict.reset_choices()
    predict.uncertainty.setChecked(True)
    predict.apply_button.click()
    qtbot.waitUntil(lambda: not session.is_applying, timeout=TIMEOUT)
    found = bench.prediction
    assert session.message == "" or not session.is_warning
    assert set(np.unique(found.data)) <= {1, 2}
    np.testing.assert_allclose(found.scale, (2.0, 0.5, 0.5))
    np.testing.assert_allclose(found.translate, (10.0, 0.0, 5.0))

    for name in ("labels.nii.gz", "labels.ome.tif"):
        bench.export_labels(found, tmp_path / name, background_as_zero=True)
        qtbot.waitUntil(lambda name=name: (tmp_path / name).exists(), timeout=TIMEOUT)
    nifti: Any = nibabel.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(nifti.dataobj).T, np.where(found.data == 2, 2, 0))
    assert nifti.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(nifti.header.get_zooms(), (0.5, 0.5, 2.0))
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        np.testing.assert_array_equal(file.asarray(), np.where(found.data == 2, 2, 0))
        assert 'PhysicalSizeZ="2.0"' in str(file.ome_metadata)


def test_removing_the_annotation_during_training_keeps_the_model(
    qtbot: Any, viewer: Any, dock: TrainDock, truth: NDArray[np.bool_]
) -> None:
    bench, session = dock._bench, dock._session
    session.train_config = TrainConfig(threads=1)
    bench.new_annotation()
    for index in (5, 10):
        paint_slice(bench, truth, 0, index)
    qtbot.waitUntil(dock.train_button.isEnabled, timeout=5000)
    dock.train_button.click()
    qtbot.waitUntil(lambda: session.phase == Phase.TRAINING, timeout=TIMEOUT)
    viewer.layers.remove(bench.annotation)
    assert bench.annotation is None
    dock.stop_button.click()
    qtbot.waitUntil(lambda: session.phase == Phase.IDLE, timeout=TIMEOUT)
    assert session.model is not None
    assert "annotation" in dock.train_button.toolTip()


def test_an_error_of_the_engine_brings_the_buttons_back(
    qtbot: Any, viewer: Any, dock: TrainDock, truth: NDArray[np.bool_], monkeypatch: Any
) -> None:
    from napari_unet3d.engine.learner import Learner

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr(Learner, "learn", broken)
    bench, session = dock._bench, dock._session
    bench.new_annotation()
    for index in (5, 10):
        paint_slice(bench, truth, 0, index)
    qtbot.waitUntil(dock.train_button.isEnabled, timeout=5000)
    dock.train_button.click()
    qtbot.waitUntil(lambda: session.phase == Phase.IDLE and session.is_warning, timeout=TIMEOUT)
    assert "on fire" in session.message
    assert dock.train_button.isEnabled()


def test_nothing_is_applied_without_a_model(viewer: Any, dock: TrainDock) -> None:
    bench = workbench_of(viewer)
    bench.applying.start(ApplyOptions())
    assert "or load a model file first" in dock._session.message
    assert list(viewer.layers) == [viewer.layers["cell"]]
