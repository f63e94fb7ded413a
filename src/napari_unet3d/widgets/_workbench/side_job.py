"""A long action beside training and prediction, with progress, cancel and one sentence about how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.progress import Event, Note, Predicted, Preparing
from napari_unet3d.widgets._session import Progress
from napari_unet3d.widgets._workbench.times import clock_text
from napari_unet3d.widgets._workers import Ended, Job, Work

_CANCELLED: Final = "cancelled"


class SideJob(QObject):
    """Runs one work at a time and tells how far it is.

    Parameters
    ----------
    parent
        Owner in the sense of Qt.
    """

    changed = Signal()
    """`is_running`, `progress` or `problem` are others."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._job: Job | None = None
        self._use: Callable[[Any], str] | None = None
        self._note = ""
        self.progress = Progress()
        """How far the work is; after it, how it went."""
        self.problem = ""
        """Why the last work failed, with the remedy; empty if it did not."""

    @property
    def is_running(self) -> bool:
        """Whether a work is going on."""
        return self._job is not None

    def start(self, work: Work, use: Callable[[Any], str]) -> None:
        """Begin.

        Parameters
        ----------
        work
            Gives None where it was cancelled.
        use
            Called with the result, on the GUI thread, unless the work failed or was cancelled; gives the sentence
            that is shown at the end.
        """
        if self._job is not None:
            return
        self._use, self._note, self.problem = use, "", ""
        self.progress = Progress(None, "starting")
        self._job = job = Job(work, self)
        job.happened.connect(lambda event: self._on_event(job, event))
        job.ended.connect(lambda ended: self._on_ended(job, ended))
        job.start()
        self.changed.emit()

    def cancel(self) -> None:
        """End without a result, at once; the work itself ends after its present part, in the background."""
        if self._job is not None:
            self._job.stop()
            self._job, self._use = None, None
            self.progress = Progress(0.0, _CANCELLED)
            self.changed.emit()

    def _on_event(self, job: Job, event: Event) -> None:
        if job is not self._job:
            return
        if isinstance(event, Preparing):
            self.progress = Progress(event.fraction, event.stage)
        elif isinstance(event, Predicted):
            left = "" if event.seconds_left is None else f", {clock_text(event.seconds_left)} left"
            self.progress = Progress(event.done / event.total, f"{event.done} of {event.total} blocks{left}")
        elif isinstance(event, Note):
            self._note = event.text
        self.changed.emit()

    def _on_ended(self, job: Job, ended: Ended) -> None:
        job.deleteLater()
        if job is not self._job:
            return
        use, self._job, self._use = self._use, None, None
        if ended.error:
            self.problem = ended.error
            self.progress = Progress(0.0, "")
        elif ended.result is None:
            self.progress = Progress(0.0, _CANCELLED)
        elif use is not None:
            text = use(ended.result)
            self.progress = Progress(1.0, "; ".join(part for part in (text, self._note) if part))
        self.changed.emit()
