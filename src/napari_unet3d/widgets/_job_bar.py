"""The line under a button that starts a long action: progress, cancel, and how it went."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_unet3d.widgets._dock import button
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._workbench.side_job import SideJob


class JobBar(QWidget):
    """Shows a `SideJob`: bar and cancel while it runs, a sentence afterwards.

    Parameters
    ----------
    job
        What to show.
    """

    def __init__(self, job: SideJob, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._job = job
        self._warning = ""
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setToolTip("How far the work is")
        self.cancel_button = button("Cancel", "End it; nothing is added", job.cancel)
        self.status = wrapped(QLabel())
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.status)
        job.changed.connect(self.refresh)
        self.refresh()

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self._warning = colours.warning
        self.refresh()

    def refresh(self) -> None:
        """Show the state of the job."""
        job = self._job
        fraction, text = job.progress
        is_open = job.is_running and fraction is None
        self.bar.setRange(0, 0 if is_open else 1000)
        self.bar.setValue(round(1000 * (fraction or 0)))
        for widget in (self.bar, self.cancel_button):
            widget.setVisible(job.is_running)
        self.status.setText(job.problem or text)
        self.status.setStyleSheet(f"color: {self._warning};" if job.problem and self._warning else "")
        self.status.setVisible(bool(self.status.text()))
