"""A model applied to the open volume, tile by tile, into layers that fill while the user looks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QObject

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Event, Finished, Note, Pause, Predicted, Resume, Started
from napari_unet3d.widgets._layers.prediction import add_prediction, add_values
from napari_unet3d.widgets._layers.view import box_in_view, is_3d, visible_plane
from napari_unet3d.widgets._session import Progress
from napari_unet3d.widgets._workbench.times import clock_text
from napari_unet3d.widgets._workers import Ended, Job, PredictionTask, VolumePrediction

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

_REFRESH_SECONDS: Final = {False: 0.15, True: 1.0}
"""Between two refreshes; a 3D view uploads the whole volume each time."""


@dataclass(frozen=True)
class ApplyOptions:
    """What to predict, and which layers to make."""

    all_times: bool = False
    """All time points, or the one in view."""
    only_view: bool = False
    """Only what the canvas shows of the volume."""
    probabilities: bool = False
    """Make an image layer of the probability of each class."""
    uncertainty: bool = False
    """Make an image layer of the uncertainty, 0 sure to 1 undecided."""


class PredictionRunner(QObject):
    """Runs one prediction at a time.

    Parameters
    ----------
    bench
        Has the session, the viewer and the chosen layers.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session
        self._job: Job | None = None
        self._layers: list[Any] = []
        self._refreshed_at = 0.0
        self._reason = ""

    def problem(self) -> str:
        """Why nothing can be predicted, as a sentence that says what to do; empty if it can."""
        if self._session.is_applying:
            return "a prediction is running"
        if self._session.model is None:
            return "train a model or load a model file first"
        image = self._bench.image
        if image is None:
            return self._bench.image_problem or "open an image first"
        needed = self._session.model.recipe.network.in_channels
        if image.channels != needed:
            return f"{image.name} has {image.channels} channels, the model needs {needed}; choose another image or axes"
        return ""

    def start(self, options: ApplyOptions) -> None:
        """Predict into new layers, the slice in view first."""
        session, bench = self._session, self._bench
        problem = self.problem()
        if problem:
            session.tell(problem, warning=True)
            return
        image, model = bench.image, session.model
        assert image is not None  # problem() looked
        assert model is not None
        try:
            plane = visible_plane(bench.viewer, image)
            time_now = plane.t if plane is not None else bench.time_in_view()
            times = range(image.time_points) if options.all_times else [time_now]
            box = box_in_view(bench.viewer, image) if options.only_view else None
            jobs = self._make_layers(image, model, list(times), options)
        except (UNet3dError, MemoryError) as error:
            full = "there is not enough memory for the result; close other layers or leave out the probabilities"
            session.tell(full if isinstance(error, MemoryError) else str(error), warning=True)
            return
        start_at = None if plane is None else (plane.axis, plane.index)
        work = PredictionTask(model, session.predict_config, jobs, start_at=start_at, box=box)
        session.is_applying = True
        session.applying_progress = Progress(0.0, "starting")
        session.tell("")
        self._reason = ""
        self._job = Job(work, self)
        self._job.happened.connect(self._on_event)
        self._job.ended.connect(self._on_ended)
        self._job.start()

    def cancel(self) -> None:
        """End after the present tile; the layers keep what is done."""
        if self._job is not None:
            self._session.applying_progress = self._session.applying_progress._replace(text="cancelling")
            self._job.stop()

    def pause(self) -> None:
        """Wait after the present tile."""
        if self._job is not None:
            self._job.send(Pause())

    def resume(self) -> None:
        """Go on after a pause."""
        if self._job is not None:
            self._job.send(Resume())

    def stop_for(self, layer: Any) -> None:
        """A layer was removed: end a prediction that writes into it."""
        if layer in self._layers:
            self.cancel()

    def _make_layers(
        self, image: Any, model: Any, times: list[int], options: ApplyOptions
    ) -> tuple[VolumePrediction, ...]:
        viewer, shape = self._bench.viewer, image.spatial_shape
        full = (image.time_points, *shape) if "T" in image.axes else shape
        dtype = np.uint8 if max(model.label_ids) < 256 else np.uint16
        labels = np.zeros(full, dtype)
        probabilities = np.zeros((len(model.classes), *full), np.float32) if options.probabilities else None
        uncertainty = np.zeros(full, np.float32) if options.uncertainty else None
        layer = add_prediction(viewer, image, model.classes, f"{image.name} prediction", data=labels)
        self._layers = [layer]
        if uncertainty is not None:
            self._layers.append(add_values(viewer, image, f"{image.name} uncertainty", data=uncertainty))
        if probabilities is not None:
            for entry, values in zip(model.classes, probabilities, strict=True):
                self._layers.append(add_values(viewer, image, f"{image.name} probability of {entry.name}", data=values))
        self._bench.prediction = layer

        def at(values: Any, t: int) -> Any:
            return values[..., t, :, :, :] if values is not None and "T" in image.axes else values

        return tuple(
            VolumePrediction(image.volume(t), at(labels, t), at(probabilities, t), at(uncertainty, t)) for t in times
        )

    def _on_event(self, event: Event) -> None:
        session = self._session
        if isinstance(event, Started):
            session.applying_progress = Progress(0.0, f"on {event.device}")
        elif isinstance(event, Predicted):
            left = "" if event.seconds_left is None else f", {clock_text(event.seconds_left)} left"
            session.applying_progress = Progress(
                event.done / event.total, f"{event.done} of {event.total} blocks{left}"
            )
            self._refresh_now_and_then()
        elif isinstance(event, Note):
            session.tell(event.text, warning=event.level == "warning")
        elif isinstance(event, Finished):
            self._reason = event.reason

    def _refresh_now_and_then(self) -> None:
        pause = _REFRESH_SECONDS[is_3d(self._bench.viewer)]
        if time.monotonic() - self._refreshed_at >= pause:
            self._refresh()

    def _refresh(self) -> None:
        for layer in self._layers:
            if layer in self._bench.viewer.layers:
                layer.refresh(extent=False, thumbnail=False)
        self._refreshed_at = time.monotonic()

    def _on_ended(self, ended: Ended) -> None:
        self._refresh()
        self._job = None
        self._layers = []
        session = self._session
        was_cancelled = self._reason == "stopped"
        text = "cancelled: the layers hold what was done" if was_cancelled else "" if ended.error else "done"
        session.applying_progress = Progress(session.applying_progress.fraction if was_cancelled else 1.0, text)
        session.is_applying = False
        if ended.error:
            session.tell(ended.error, warning=True)
