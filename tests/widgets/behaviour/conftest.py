"""A person at the real viewer: paints with the mouse, clicks, and waits until something is there to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qtpy.QtCore import QPoint

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.progress import AnnotationTaken, Event
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import workbench_of
from napari_unet3d.widgets._workers import Job
from napari_unet3d.widgets.train import TrainDock

PATIENCE = 60_000
SMALL = {"levels": 2, "filters": 4, "features": "none"}


class Person:
    """One viewer with an image and the Train dock, and what a person does with them.

    Parameters
    ----------
    qtbot
        Waits while the window lives on.
    viewer
        Has one image.
    truth
        Z Y X: where the structure is.
    drag
        Moves the mouse with the left button pressed.
    """

    def __init__(self, qtbot: Any, viewer: Any, truth: NDArray[np.bool_], drag: Callable[..., None]) -> None:
        self.viewer = viewer
        self.truth = truth
        self.events: list[Event] = []
        """What jobs told so far."""
        self.bench = workbench_of(viewer)
        self.session = self.bench.session
        self.session.network_settings = dict(SMALL)
        self.session.train_config = TrainConfig(threads=1)
        self.dock = self.open_dock()
        self._qtbot = qtbot
        self._drag = drag

    def open_dock(self) -> TrainDock:
        """Open the Train dock, as the menu does."""
        dock = TrainDock(self.viewer)
        self.viewer.window.add_dock_widget(dock, name="Train", area="right")
        dock.reset_choices()
        return dock

    def sees(self, what: Callable[[], Any]) -> None:
        """Wait until it is so."""
        self._qtbot.waitUntil(lambda: bool(what()), timeout=PATIENCE)

    def of_kind(self, kind: type) -> list[Any]:
        """Events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    # --- painting

    def annotate(self, *planes: tuple[int, int]) -> None:
        """Make an annotation layer and fill planes (axis, index) as a patient person would."""
        if self.bench.annotation is None:
            self.dock.new_button.click()
        for axis, index in planes:
            where = [slice(None)] * 3
            where[axis] = slice(index, index + 1)
            places = np.nonzero(np.ones_like(self.truth[tuple(where)]))
            at = tuple(place + (index if i == axis else 0) for i, place in enumerate(places))
            self.bench.annotation.data_setitem(at, np.where(self.truth[at], 2, 1).astype(np.uint8))

    def look_at(self, axis: int, index: int) -> None:
        """Show one plane of the image."""
        rest = [i for i in range(3) if i != axis]
        self.viewer.dims.order = (axis, *rest)
        layer = self.viewer.layers[0]
        self.viewer.dims.set_point(axis, float(layer.translate[axis] + index * layer.scale[axis]))
        self.viewer.reset_view()

    def stroke(self, label: int, start: tuple[float, float], stop: tuple[float, float], size: int = 3) -> None:
        """Draw with the left button in the plane in view, from voxel to voxel (down, across)."""
        layer = self.bench.annotation
        self.viewer.layers.selection.active = layer
        layer.mode, layer.selected_label, layer.brush_size = "paint", label, size
        canvas = self.viewer.window._qt_viewer.canvas.native
        shown = list(self.viewer.dims.displayed)
        scale, offset = np.asarray(layer.scale)[shown], np.asarray(layer.translate)[shown]
        camera = getattr(self.viewer, "scene", self.viewer).camera  # napari 0.8 has no scene
        centre = np.asarray(camera.center)[-2:]
        middle = np.array([canvas.height(), canvas.width()]) / 2

        def place(share: float) -> QPoint:
            voxel = np.asarray(start) + share * (np.asarray(stop) - start)
            down, across = middle + (offset + voxel * scale - centre) * camera.zoom
            return QPoint(round(float(across)), round(float(down)))

        self._drag(canvas, [place(float(share)) for share in np.linspace(0, 1, 4)])

    # --- training

    def trains(self, *, first: int = 1) -> None:
        """Click Train and wait until some steps are taken."""
        self.sees(self.dock.train_button.isEnabled)
        self.dock.train_button.click()
        self.takes_steps(first)

    def takes_steps(self, count: int = 1) -> None:
        """Wait until so many more steps are taken."""
        losses = self.session.curves.losses
        wanted = len(losses) + count

        def is_there() -> bool:
            assert not (self.session.phase is Phase.IDLE and self.session.is_warning), self.session.message
            return len(self.session.curves.losses) >= wanted and self.session.phase is Phase.TRAINING

        self.sees(is_there)

    def pauses(self) -> None:
        """Click Pause and wait until training stands."""
        self.dock.pause_button.click()
        self.sees(lambda: self.session.phase is Phase.PAUSED)

    def stops(self) -> None:
        """Click Stop and wait until everything is idle."""
        self.dock.stop_button.click()
        self.rests()

    def rests(self) -> None:
        """Wait until no training runs."""
        self.sees(lambda: self.session.phase is Phase.IDLE)

    def is_told(self, taken: Callable[[AnnotationTaken], bool] = lambda event: True) -> None:
        """Wait until the trainer says that it took over such annotation."""
        self.sees(lambda: any(taken(event) for event in self.of_kind(AnnotationTaken)))


@pytest.fixture
def truth() -> NDArray[np.bool_]:
    z, y, x = np.ogrid[:20, :48, :56]
    return np.asarray((z - 10) ** 2 * 4 + (y - 24) ** 2 + (x - 28) ** 2 < 15**2)


@pytest.fixture
def viewer(make_napari_viewer: Any, truth: NDArray[np.bool_]) -> Any:
    viewer = make_napari_viewer(show=True)
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    image = (100 + 60 * truth + noise).astype(np.uint8)
    viewer.add_image(image, name="cell", scale=(2.0, 0.5, 0.5), translate=(10.0, 0.0, 5.0), units=("um", "um", "um"))
    return viewer


@pytest.fixture
def person(qtbot: Any, viewer: Any, truth: NDArray[np.bool_], drag: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A person at the viewer; what is still running at the end is stopped."""
    person = Person(qtbot, viewer, truth, drag)
    start = Job.start

    def listen_and_start(job: Job) -> None:
        job.happened.connect(person.events.append)
        start(job)

    monkeypatch.setattr(Job, "start", listen_and_start)
    yield person
    if person.session.phase.is_running:
        person.bench.training.stop()
        person.rests()
    person.bench.applying.cancel()
    person.sees(lambda: not person.session.is_applying)
