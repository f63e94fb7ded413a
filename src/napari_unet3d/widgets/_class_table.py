"""The classes of the annotation: id, colour and name, to be added, renamed, recoloured and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.engine.classes import ClassInfo

_ID, _COLOUR, _NAME = range(3)
_LEAST_ROWS: Final = 2
_MOST_ROWS: Final = 6
"""Rows that are seen without scrolling."""


class ClassTable(QWidget):
    """A small table of classes; the first is the background and stays."""

    changed = Signal(object)
    """The user changed the classes, given as a tuple."""
    chosen = Signal(int)
    """The user wants to paint with this label id."""
    add_asked = Signal()
    """The user wants another class."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes: tuple[ClassInfo, ...] = ()
        self._table = QTableWidget(0, 3)
        self._table.setHorizontalHeaderLabels(["id", "colour", "name"])
        self._table.setToolTip("Click a row to paint with it; double-click a name or a colour to change it")
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header, rows = self._table.horizontalHeader(), self._table.verticalHeader()
        assert header is not None
        assert rows is not None
        rows.hide()
        header.setSectionResizeMode(_ID, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_COLOUR, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        self._row_height = rows.defaultSectionSize()
        self._table.itemChanged.connect(self._on_edited)
        self._table.cellClicked.connect(self._on_clicked)
        self._table.cellDoubleClicked.connect(self._on_double_clicked)
        self.add_button = QPushButton("Add class")
        self.add_button.setToolTip("Add a structure to paint, with the next free id")
        self.delete_button = QPushButton("Delete class")
        self.add_button.clicked.connect(lambda: self.add_asked.emit())
        self.delete_button.clicked.connect(self._on_delete)
        self._table.itemSelectionChanged.connect(self._show_buttons)
        buttons = QHBoxLayout()
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.delete_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        layout.addLayout(buttons)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._set_height()
        self._show_buttons()

    def set_classes(self, classes: Sequence[ClassInfo]) -> None:
        """Show these classes."""
        if tuple(classes) == self._classes:
            return
        self._classes = tuple(classes)
        self._table.blockSignals(True)
        self._table.setRowCount(len(classes))
        self._set_height()
        for row, entry in enumerate(classes):
            number = QTableWidgetItem(str(entry.id))
            number.setFlags(number.flags() & ~Qt.ItemFlag.ItemIsEditable)
            colour = QTableWidgetItem("")
            colour.setFlags(colour.flags() & ~Qt.ItemFlag.ItemIsEditable)
            colour.setBackground(QColor(entry.colour))
            colour.setToolTip(f"{entry.colour}; double-click to change")
            for column, item in ((_ID, number), (_COLOUR, colour), (_NAME, QTableWidgetItem(entry.name))):
                self._table.setItem(row, column, item)
        self._table.blockSignals(False)
        self._show_buttons()

    def _set_height(self) -> None:
        header = self._table.horizontalHeader()
        above = header.sizeHint().height() if header is not None else self._row_height
        shown = min(max(len(self._classes), _LEAST_ROWS), _MOST_ROWS)
        policy = Qt.ScrollBarPolicy
        scrolls = len(self._classes) > _MOST_ROWS
        self._table.setVerticalScrollBarPolicy(policy.ScrollBarAsNeeded if scrolls else policy.ScrollBarAlwaysOff)
        self._table.setFixedHeight(above + shown * self._row_height + 4)

    def _replace(self, row: int, **changes: str) -> None:
        entry = self._classes[row].updated(**changes)
        self.changed.emit((*self._classes[:row], entry, *self._classes[row + 1 :]))

    def _on_edited(self, item: QTableWidgetItem) -> None:
        row, name = item.row(), item.text().strip()
        if item.column() != _NAME or name == self._classes[row].name:
            return
        if name:
            self._replace(row, name=name)
        else:
            item.setText(self._classes[row].name)

    def _on_clicked(self, row: int, column: int) -> None:
        self.chosen.emit(self._classes[row].id)

    def _on_double_clicked(self, row: int, column: int) -> None:
        if column == _COLOUR:
            colour = QColorDialog.getColor(QColor(self._classes[row].colour), self, "Colour of the class")
            if colour.isValid():
                self._replace(row, colour=colour.name())

    def _on_delete(self) -> None:
        row = self._table.currentRow()
        if row > 0 and len(self._classes) > 2:
            self.changed.emit((*self._classes[:row], *self._classes[row + 1 :]))

    def _show_buttons(self) -> None:
        row = self._table.currentRow()
        reason = ""
        if len(self._classes) <= 2:
            reason = "background and one structure are needed"
        elif row <= 0:
            reason = "choose a structure in the table first; the background stays"
        self.delete_button.setEnabled(not reason)
        self.delete_button.setToolTip(reason or "Remove the class; its strokes stay but are not trained on")
