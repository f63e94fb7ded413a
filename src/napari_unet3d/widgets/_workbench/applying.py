"""A model applied to an open volume, tile by tile, into layers that fill while the user looks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Event, Finished, Note, Pause, Predicted, Resume, Started
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.prediction import add_prediction, add_values
from napari_unet3d.widgets._layers.view import box_in_view, is_3d, visible_plane
from napari_unet3d.widgets._session import Progress
from napari_unet3d.widgets._workbench.fitting import fit_problem
from napari_unet3d.widgets._workbench.result_memory import (
    LESS_MEMORY,
    bytes_needed,
    is_large,
    is_too_large,
    label_type,
    size_sentence,
)
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
    """Runs one prediction at a time, on the image of the workbench or on another one.

    Parameters
    ----------
    bench
        Has the session, the viewer and the image that is trained on.
    """

    image_changed = Signal()
    """Another image is to be predicted, or none."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session
        self._job: Job | None = None
        self._layers: list[Any] = []
        self._refreshed_at = 0.0
        self._reason = ""
        self._has_own_image = False
        self.image: ImageChoice | None = None
        """What is to be predicted: the image that is trained on, unless another one was chosen."""
        self.image_problem = ""
        """Why there is none, for people."""
        self.image_layers: tuple[Any, ...] = ()
        """The layers that were chosen, also where they cannot be used together."""
        self.image_axes: str | None = None
        """The axes that were asked for; None for guessed ones."""
        self.result: Any = None
        """The newest predicted labels layer, or None."""
        bench.layers_changed.connect(self._follow_bench)

    # --- what is predicted --------------------------------------------------------------------------------

    def choose_image(self, layers: Sequence[Any], axes: str | None = None) -> None:
        """Predict these image layers; the training stays with its own. No layers: the image that is trained on."""
        self._has_own_image = bool(layers)
        if not layers:
            self._follow_bench()
            return
        self.image_layers, self.image_axes = tuple(layers), axes
        try:
            self.image, self.image_problem = choose_image(layers, axes), ""
        except UNet3dError as error:
            self.image, self.image_problem = None, str(error)
        self.image_changed.emit()

    def _follow_bench(self) -> None:
        if self._has_own_image:
            return
        bench = self._bench
        self.image, self.image_problem = bench.image, bench.image_problem
        self.image_layers, self.image_axes = bench.image_layers, bench.image_axes
        self.image_changed.emit()

    def problem(self, options: ApplyOptions | None = None) -> str:
        """Why nothing can be predicted, as a sentence that says what to do; empty if it can."""
        model, image = self._session.model, self.image
        if self._session.is_applying:
            return "a prediction is running"
        if model is None:
            return "train a model (Train dock) or load a model file first"
        if image is None:
            return self.image_problem or "open an image first"
        problem = fit_problem(model, image)
        if problem:
            return problem
        needed = self.bytes_needed(options) if options is not None else 0
        return f"{size_sentence(needed)}; {LESS_MEMORY}" if is_too_large(needed) else ""

    def bytes_needed(self, options: ApplyOptions) -> int:
        """Memory of the layers that a prediction fills; 0 where nothing can be predicted."""
        model, image = self._session.model, self.image
        if model is None or image is None:
            return 0
        return bytes_needed(
            model,
            image,
            box_in_view(self._bench.viewer, image) if options.only_view else None,
            image.time_points if options.all_times else 1,
            probabilities=options.probabilities,
            uncertainty=options.uncertainty,
        )

    def memory_note(self, options: ApplyOptions) -> str:
        """What to know before a large result is made; empty for a small one."""
        needed = self.bytes_needed(options)
        return f"{size_sentence(needed)}. If that is too much: {LESS_MEMORY}." if is_large(needed) else ""

    # --- the run ------------------------------------------------------------------------------------------

    def start(self, options: ApplyOptions) -> None:
        """Predict into new layers, the slice in view first."""
        session, bench = self._session, self._bench
        problem = self.problem(options)
        if problem:
            session.tell(problem, warning=True)
            return
        image, model = self.image, session.model
        assert image is not None  # problem() looked
        assert model is not None
        in_view = _time_in_view(bench.viewer, image)
        times = list(range(image.time_points)) if options.all_times else [in_view]
        times.sort(key=lambda t: t != in_view)
        box = box_in_view(bench.viewer, image) if options.only_view else None
        plane = visible_plane(bench.viewer, image)
        try:
            volumes = self._make_layers(image, model, times, options)
        except (UNet3dError, MemoryError) as error:
            too_large = f"{size_sentence(self.bytes_needed(options))}; {LESS_MEMORY}"
            session.tell(too_large if isinstance(error, MemoryError) else str(error), warning=True)
            return
        work = PredictionTask(
            model, session.predict_config, volumes, (plane.axis, plane.index) if plane is not None else None, box
        )
        session.is_applying = True
        session.applying_progress = Progress(None, "starting")
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
        """A layer was removed: end a prediction whose labels it shows, forget an image that it is part of."""
        if self._layers and layer == self._layers[0]:
            self.cancel()
        if layer == self.result:
            self.result = None
        if self._has_own_image and layer in self.image_layers:
            self.choose_image([])

    def _make_layers(
        self, image: ImageChoice, model: Any, times: list[int], options: ApplyOptions
    ) -> tuple[VolumePrediction, ...]:
        viewer, shape = self._bench.viewer, image.spatial_shape
        full = (image.time_points, *shape) if "T" in image.axes else shape
        labels = np.zeros(full, label_type(model))
        probabilities = np.zeros((len(model.classes), *full), np.float32) if options.probabilities else None
        uncertainty = np.zeros(full, np.float32) if options.uncertainty else None
        provenance = {"model": self._session.model_origin, "image": image.name}
        self.result = add_prediction(
            viewer, image, model.classes, f"{image.name} prediction", data=labels, provenance=provenance
        )
        self._layers = [self.result]
        if uncertainty is not None:
            name = f"{image.name} uncertainty"
            self._layers.append(add_values(viewer, image, name, data=uncertainty, provenance=provenance))
        if probabilities is not None:
            for entry, values in zip(model.classes, probabilities, strict=True):
                name = f"{image.name} probability of {entry.name}"
                layer = add_values(viewer, image, name, data=values, provenance=provenance)
                layer.visible = False  # one over the other, they would show nothing
                self._layers.append(layer)
        if self._bench.image is not None and image.key == self._bench.image.key:
            self._bench.prediction = self.result

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
        job, self._job = self._job, None
        if job is not None:
            job.deleteLater()
        self._layers = []
        session = self._session
        was_cancelled = self._reason == "stopped"
        text = "cancelled: the layers hold what was done" if was_cancelled else "" if ended.error else "done"
        was_at = session.applying_progress.fraction or 0.0
        session.applying_progress = Progress(was_at if was_cancelled or ended.error else 1.0, text)
        session.is_applying = False
        if ended.error:
            session.tell(ended.error, warning=True)


def _time_in_view(viewer: Any, image: ImageChoice) -> int:
    """Time point that the slider stands at; 0 without time."""
    if "T" not in image.layer_axes:
        return 0
    at = float(image.layer.world_to_data(viewer.dims.point)[image.layer_axes.index("T")])
    return int(np.clip(round(at), 0, image.time_points - 1))
