"""What the colours of the annotation mean: a class, background, not annotated, held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import ThemeColours

_HEIGHT: Final = 12
_WIDTH: Final = 30
_MOST: Final = 4
"""Colours in one chip; more would be too thin to be told apart."""


class Chip(QWidget):
    """A small patch of colours beside each other; without colours an empty frame."""

    def __init__(self, *, hatched: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.colours: tuple[str, ...] = ()
        self._hatched = hatched
        self._line = QColor("gray")
        self.setFixedSize(QSize(_WIDTH, _HEIGHT))

    def set_colours(self, colours: Sequence[str]) -> None:
        """Show these, such as ``#f58231``."""
        self.colours = tuple(colours[:_MOST])
        self.update()

    def set_line(self, colour: str) -> None:
        """Colour of the frame."""
        self._line = QColor(colour)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw it."""
        painter = QPainter(self)
        frame = QRectF(0.5, 0.5, _WIDTH - 1, _HEIGHT - 1)
        for number, colour in enumerate(self.colours):
            share = frame.width() / len(self.colours)
            painter.fillRect(QRectF(frame.x() + number * share, frame.y(), share, frame.height()), QColor(colour))
        if self._hatched:
            painter.setClipRect(frame)
            for shade, shift in (("white", 0), ("black", 2)):
                painter.setPen(QPen(QColor(shade), 1.5))
                for x in range(-_HEIGHT, _WIDTH, 8):
                    painter.drawLine(x + shift, _HEIGHT, x + shift + _HEIGHT, 0)
        style = Qt.PenStyle.SolidLine if self.colours else Qt.PenStyle.DashLine
        painter.setPen(QPen(self._line, 1, style))
        painter.drawRect(frame)
        painter.end()


class Legend(QWidget):
    """The states of a voxel of the annotation, each with a chip in its colours."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.structures, self.background, self.nothing = Chip(), Chip(), Chip()
        self.held_out = Chip(hatched=True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        for row, (chip, text) in enumerate(
            (
                (self.structures, "a structure"),
                (self.background, "background: a class too"),
                (self.nothing, "<b>not annotated</b>: not learnt from"),
                (self.held_out, "held out: only measured on"),
            )
        ):
            label = wrapped(QLabel(text))
            grid.addWidget(chip, row, 0, Qt.AlignmentFlag.AlignVCenter)
            grid.addWidget(label, row, 1)

    def set_classes(self, classes: Sequence[ClassInfo]) -> None:
        """Show the colours of these classes; the first is the background."""
        self.background.set_colours([entry.colour for entry in classes[:1]])
        self.structures.set_colours([entry.colour for entry in classes[1:]])
        self.structures.setToolTip(", ".join(entry.name for entry in classes[1:]))
        self.held_out.set_colours([entry.colour for entry in classes[1:2]])

    def set_theme(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        for chip in (self.structures, self.background, self.nothing, self.held_out):
            chip.set_line(colours.faint_text)
