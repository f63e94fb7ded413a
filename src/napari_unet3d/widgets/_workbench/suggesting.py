"""Slices to paint next, ranked by what the model is unsure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.axes import SPATIAL_AXES
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._layers.view import bring_into_view, go_to
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.fitting import fit_problem
from napari_unet3d.widgets._workbench.side_job import SideJob
from napari_unet3d.widgets._workers import Emit, WorkerInbox

if TYPE_CHECKING:
    from napari_unet3d.engine.suggest.suggestion import Suggestion
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.widgets._workbench.bench import Workbench


@dataclass(frozen=True, eq=False)
class SuggestTask:
    """A volume to look over; `labels` are Z Y X, 0 = not annotated, and copied by the work."""

    model: TrainedModel
    image: Volume
    labels: NDArray[np.unsignedinteger]
    config: PredictConfig

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> tuple[Suggestion, ...] | None:
        """Look; best slice first, None where it was cancelled."""
        from napari_unet3d import api
        from napari_unet3d.engine.progress import Finished

        run = api.suggest_events(self.model, self.image, self.labels.copy(), config=self.config, inbox=inbox)
        for event in run:
            emit(event)
            if isinstance(event, Finished) and event.reason == "stopped":
                return None
        return run.suggestions


class Suggesting(QObject):
    """Finds slices worth painting, and takes the viewer to them.

    Parameters
    ----------
    bench
        Has the session, the viewer and the chosen layers.
    """

    found = Signal()
    """There are other suggestions, or none."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self.job = SideJob(self)
        self.suggestions: tuple[Suggestion, ...] = ()
        """Best first."""
        self.shown: int | None = None
        """Which one the user was taken to last."""
        self._image: Any = None
        self._t = 0

    def problem(self) -> str:
        """Why nothing can be suggested, with what to do; empty if it can."""
        session, image = self._bench.session, self._bench.image
        if self.job.is_running:
            return "slices are being ranked"
        if image is None:
            return self._bench.image_problem or "open an image first"
        if session.phase not in (Phase.IDLE, Phase.PAUSED):
            return "training is running: stop or pause it first"
        if session.model is None:
            return "train a model or load a model file first: it tells where it is unsure"
        return fit_problem(session.model, image)

    def start(self) -> None:
        """Rank the slices of the volume in view."""
        bench = self._bench
        if self.problem():
            bench.session.tell(self.problem(), warning=True)
            return
        image, t = bench.image, bench.time_in_view()
        assert image is not None  # problem() looked
        assert bench.session.model is not None
        try:
            labels = bench.strokes().handed_out(t) if bench.annotation is not None else None
        except UNet3dError as error:
            bench.session.tell(str(error), warning=True)
            return
        if labels is None:
            labels = np.zeros(image.spatial_shape, np.uint8)

        def keep(found: tuple[Suggestion, ...]) -> str:
            self.suggestions, self.shown, self._image, self._t = found, None, image, t
            self.found.emit()
            return "click a slice to go there" if found else "everything is annotated"

        self.job.start(SuggestTask(bench.session.model, image.volume(t), labels, bench.session.predict_config), keep)

    def go_to(self, number: int) -> None:
        """Show a suggested slice; its most uncertain place is brought into view."""
        if not 0 <= number < len(self.suggestions):
            return
        if any(layer not in self._bench.viewer.layers for layer in self._image.layers):
            self._bench.session.tell("the image of these suggestions is gone: ask for new ones", warning=True)
            return
        one = self.suggestions[number]
        go_to(self._bench.viewer, self._image, one.axis, one.index, self._t)
        bring_into_view(self._bench.viewer, self._image, one.centre)
        self.shown = number
        self.found.emit()

    def go_to_next(self) -> None:
        """Show the suggestion after the one shown last; asks for some where there are none."""
        if self.suggestions:
            self.go_to(0 if self.shown is None else (self.shown + 1) % len(self.suggestions))
        else:
            self.start()


def slice_text(suggestion: Suggestion) -> str:
    """Such as ``Z 12``: axis and index, counted from 0."""
    return f"{SPATIAL_AXES[suggestion.axis].upper()} {suggestion.index}"
