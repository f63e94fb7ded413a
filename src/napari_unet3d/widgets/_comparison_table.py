"""Figures of models side by side: a column for each model, a row for each figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_unet3d.engine.classes import ClassInfo

if TYPE_CHECKING:
    from napari_unet3d.engine.distillation.comparison import ModelFigures, Scored


def rows_of(figures: Sequence[ModelFigures], classes: Sequence[ClassInfo]) -> list[tuple[str, list[str]]]:
    """Heading and one text for each model, of all rows that say anything."""
    names = {entry.id: entry.name for entry in classes}
    rows: list[tuple[str, list[str]]] = []
    for title, scored in (
        ("IoU held out", [entry.held_out for entry in figures]),
        ("IoU truth", [entry.truth for entry in figures]),
    ):
        if any(scored):
            rows.append((title, [_number(one.mean_iou) if one else "–" for one in scored]))
            rows += _class_rows(scored, names)
    rows += [
        ("agreement", [f"{entry.agreement:.1%}" for entry in figures]),
        ("parameters", [scaled(entry.parameters) for entry in figures]),
        ("operations", [scaled(entry.operations) for entry in figures]),
        ("file", [scaled(entry.file_bytes, "B") if entry.file_bytes else "–" for entry in figures]),
        ("seconds", [f"{entry.seconds:.2f}" for entry in figures]),
        ("memory", [scaled(entry.memory_bytes, "B") for entry in figures]),
    ]
    return rows


def verdict_of(figures: Sequence[ModelFigures]) -> str:
    """One sentence on what the student (last) is beside the teacher (first); empty without figures."""
    if len(figures) < 2:
        return ""
    teacher, student = figures[0], figures[-1]
    parts = []
    if student.operations and student.seconds:
        parts.append(
            f"1/{teacher.operations / student.operations:.1f} of the operations, "
            f"{teacher.seconds / student.seconds:.1f} times as fast"
        )
    for one, other in ((student.truth, teacher.truth), (student.held_out, teacher.held_out)):
        if one and other and other.mean_iou > 0 and not math.isnan(one.mean_iou):
            parts.append(f"keeps {one.mean_iou / other.mean_iou:.1%} of the IoU")
            break
    else:
        parts.append(f"labels {student.agreement:.1%} of the voxels alike")
    return f"The student: {', '.join(parts)}."


def scaled(value: float, unit: str = "") -> str:
    """``1.3 M`` and the like, in powers of 1000."""
    letters = ("", "k", "M", "G", "T")
    for letter in letters[:-1]:
        if value < 999.5:
            return f"{value:.3g} {letter}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g} {letters[-1]}{unit}"


def _class_rows(scored: Sequence[Scored | None], names: dict[int, str]) -> list[tuple[str, list[str]]]:
    first = next(one for one in scored if one)
    if len(first.classes) <= 2:  # then the mean is that of the only structure
        return []
    return [
        (
            f"   {names.get(entry.class_id, entry.class_id)}",
            [_number(one.classes[place].iou) if one else "–" for one in scored],
        )
        for place, entry in enumerate(first.classes)
    ]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


class ComparisonTable(QTableWidget):
    """Shows what a comparison found; as high as its rows, so that only the dock scrolls."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ContiguousSelection)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Comparison of teacher and student")
        for header in (self.verticalHeader(), self.horizontalHeader()):
            assert header is not None
            header.setHighlightSections(False)
        self.hide()

    def show_figures(
        self, figures: Sequence[ModelFigures], classes: Sequence[ClassInfo], meanings: Mapping[str, str]
    ) -> None:
        """Fill the table; without figures it is hidden. `meanings` says more about the models, by name."""
        self.setVisible(bool(figures))
        rows = rows_of(figures, classes) if figures else []
        self.setRowCount(len(rows))
        self.setColumnCount(len(figures))
        self.setVerticalHeaderLabels([title for title, _ in rows])
        for column, entry in enumerate(figures):
            heading = QTableWidgetItem(entry.name)
            heading.setToolTip(meanings.get(entry.name, entry.name))
            self.setHorizontalHeaderItem(column, heading)
        for row, (_, texts) in enumerate(rows):
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
        across, down = self.horizontalHeader(), self.verticalHeader()
        assert across is not None
        assert down is not None
        across.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        down.setDefaultSectionSize(self.fontMetrics().height() + 6)
        self.setFixedHeight(across.sizeHint().height() + down.length() + 4)
