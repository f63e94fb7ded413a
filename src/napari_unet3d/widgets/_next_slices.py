"""Where to paint next: slices ranked by what the model is unsure of, one click away."""

from __future__ import annotations

from typing import Any, Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QLabel, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_unet3d.widgets._dock import button, set_reason
from napari_unet3d.widgets._job_bar import JobBar
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._workbench.suggesting import Suggesting, slice_text

_HINT: Final = "The model looks over the volume and tells which slices would teach it most."


class NextSlices(QWidget):
    """A button that ranks slices, and the list of them; a click on a row takes the viewer there.

    Parameters
    ----------
    suggesting
        Finds the slices and goes there.
    """

    def __init__(self, suggesting: Suggesting, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._suggesting = suggesting
        self.find_button = button(
            "Find slices to paint",
            "Rank the slices of the volume in view, on all axes, by what painting them should help",
            suggesting.start,
        )
        self.bar = JobBar(suggesting.job)
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["slice", "why"])
        self.table.setToolTip("Best first; click a row to go to the slice")
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setWordWrap(True)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header, rows = self.table.horizontalHeader(), self.table.verticalHeader()
        assert header is not None
        assert rows is not None
        rows.hide()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        rows.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.geometriesChanged.connect(self._fit_height)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(wrapped(QLabel(_HINT)))
        layout.addWidget(self.find_button)
        layout.addWidget(self.bar)
        layout.addWidget(self.table)
        self.table.cellClicked.connect(lambda row, column: suggesting.go_to(row))
        self.table.cellActivated.connect(lambda row, column: suggesting.go_to(row))
        suggesting.found.connect(self._show)
        suggesting.job.changed.connect(self.refresh)
        self._show()
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Show whether slices can be looked for."""
        set_reason(self.find_button, self._suggesting.problem())

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self.bar.set_colours(colours)

    def resizeEvent(self, event: Any) -> None:
        """Rows of wrapped text get another height."""
        super().resizeEvent(event)
        self._fit_height()

    def _show(self) -> None:
        found = self._suggesting.suggestions
        self.table.setRowCount(len(found))
        for row, one in enumerate(found):
            for column, text in enumerate((slice_text(one), one.reason)):
                item = QTableWidgetItem(text)
                item.setToolTip(f"{slice_text(one)}: {one.reason}")
                self.table.setItem(row, column, item)
        if self._suggesting.shown is not None:
            self.table.selectRow(self._suggesting.shown)
        self.table.setVisible(bool(found))
        self._fit_height()

    def _fit_height(self) -> None:
        header, rows = self.table.horizontalHeader(), self.table.verticalHeader()
        if header is not None and rows is not None:
            self.table.resizeRowsToContents()
            self.table.setFixedHeight(header.height() + rows.length() + 4)
