"""How much of each class there is: a table, to the clipboard, to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.widgets._dock import button, set_reason
from napari_unet3d.widgets._job_bar import JobBar
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours
from napari_unet3d.widgets._workbench.measuring import Measuring

if TYPE_CHECKING:
    from napari_unet3d.io.class_table import ClassRow

_CSV: Final = "Tables (*.csv)"
_POWERS: Final = {"2": "²", "3": "³"}


class ClassVolumes(QWidget):
    """Measures a labels layer and shows voxels, volume and share of each class.

    Parameters
    ----------
    measuring
        Does the work and keeps the table.
    layer
        Gives the labels layer that the user chose, or None.
    """

    def __init__(self, measuring: Measuring, layer: Callable[[], Any], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._measuring = measuring
        self._layer = layer
        self.measure_button = button(
            "Measure", "Count the voxels of each class of the labels layer chosen above", self._on_measure
        )
        self.bar = JobBar(measuring.job)
        self.of_layer = wrapped(QLabel())
        self.table = QTableWidget(0, 4)
        self.table.setToolTip("Share is that of all labelled voxels; ids that are 0 count nowhere")
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header, rows = self.table.horizontalHeader(), self.table.verticalHeader()
        assert header is not None
        assert rows is not None
        rows.hide()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(30)
        self.copy_button = button("Copy", "Copy the table, with tabs between columns, for a spreadsheet", self.copy)
        self.save_button = button("Save as CSV…", "Write the table with ids and connected pieces", self._on_save)
        row = QHBoxLayout()
        row.addWidget(self.copy_button)
        row.addWidget(self.save_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.measure_button)
        layout.addWidget(self.bar)
        layout.addWidget(self.of_layer)
        layout.addWidget(self.table)
        layout.addLayout(row)
        measuring.measured.connect(self._show)
        measuring.job.changed.connect(self.refresh)
        self._show()
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Show what can be done."""
        measuring = self._measuring
        set_reason(self.measure_button, measuring.problem(self._layer()))
        missing = "" if measuring.rows else "measure a labels layer first"
        set_reason(self.copy_button, missing)
        set_reason(self.save_button, missing or ("wait for the table" if measuring.job.is_running else ""))

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self.bar.set_colours(colours)

    def copy(self) -> None:
        """Put the table on the clipboard: a line of titles and one for each class, columns between tabs."""
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(as_text(self._measuring.rows))

    def _on_measure(self) -> None:
        self._measuring.start(self._layer())

    def _on_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the table", "classes.csv", _CSV)
        if name:
            self._measuring.save(Path(name))

    def _show(self) -> None:
        rows = self._measuring.rows
        self.of_layer.setText(f"{self._measuring.layer_name}:" if rows else "")
        self.of_layer.setVisible(bool(rows))
        self.table.setVisible(bool(rows))
        unit = unit_text(rows[0].unit) if rows else ""
        self.table.setHorizontalHeaderLabels(["class", "voxels", unit, "share"])
        self.table.setRowCount(len(rows))
        for number, one in enumerate(rows):
            texts = (one.name, f"{one.voxels:,}", number_text(one.volume), f"{one.share:.1%}")
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(f"id {one.id}, {one.name}: {one.pieces} connected pieces")
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(number, column, item)
        header, lines = self.table.horizontalHeader(), self.table.verticalHeader()
        if header is not None and lines is not None:
            shown = min(len(rows), 12) * lines.defaultSectionSize()
            self.table.setFixedHeight(header.sizeHint().height() + shown + 4)


def number_text(value: float) -> str:
    """Four digits or more, with commas between thousands: 23,944 and 0.05."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def unit_text(unit: str) -> str:
    """``um3`` as µm³."""
    text = unit[:-1] + _POWERS.get(unit[-1:], unit[-1:])
    return "µ" + text[1:] if text.startswith("um") else text


def as_text(rows: Sequence[ClassRow]) -> str:
    """The table with tabs between columns: id, class, voxels, volume, share, pieces."""
    if not rows:
        return ""
    kind = "area" if rows[0].unit.endswith("2") else "volume"
    lines = [["id", "class", "voxels", f"{kind} ({rows[0].unit})", "share", "connected pieces"]]
    lines += [[str(r.id), r.name, str(r.voxels), f"{r.volume:.6g}", f"{r.share:.6g}", str(r.pieces)] for r in rows]
    return "\n".join("\t".join(" ".join(cell.split()) for cell in line) for line in lines) + "\n"
