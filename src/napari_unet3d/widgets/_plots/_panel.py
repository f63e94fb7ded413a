"""One panel: axes, curves, and a legend below that tells the values."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any, Final

import pyqtgraph as pg
from qtpy.QtCore import QPointF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPen, QWheelEvent
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_unet3d.widgets._plots._curves import Abscissa, Curve, CurvePoint, CurveStyle, nearest
from napari_unet3d.widgets._scrolling import wrapped
from napari_unet3d.widgets._theme import READABLE_SHAPE, ThemeColours, theme_colours

_HEIGHT: Final = 120
_FAINT: Final = 0.35


class _PlotWidget(pg.PlotWidget):  # type: ignore[misc]
    """A plot that leaves the wheel to the column it lies in, and asks for little room."""

    def sizeHint(self) -> QSize:
        return QSize(260, _HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 80)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


class CurvesPanel(QWidget):
    """Curves over steps or seconds.

    Parameters
    ----------
    title
        What the vertical axis shows.
    styles
        The curves.
    empty_text
        Shown until the first point.
    value_range
        Lowest and highest value to show; None: as the values are.
    smoothed
        Draw the smoothed course, and the values faintly behind it.
    """

    hovered = Signal(object)
    """Where the pointer is along the horizontal axis; None: it left."""

    def __init__(
        self,
        title: str,
        styles: Sequence[CurveStyle],
        *,
        empty_text: str,
        value_range: tuple[float, float] | None = None,
        smoothed: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._smoothed = smoothed
        self._colours = theme_colours("dark")
        self._abscissa: Abscissa = "steps"
        self._hover: float | None = None
        self._styles: tuple[CurveStyle, ...] = ()
        self._curves: dict[str, Curve] = {}
        self._lines: dict[str, tuple[Any, Any]] = {}
        self._best: CurvePoint | None = None
        self._title = QLabel(f"<b>{html.escape(title)}</b>")
        self._plot = _PlotWidget()
        self._item = self._plot.getPlotItem()
        self._legend = wrapped(QLabel())
        self._legend.setTextFormat(Qt.TextFormat.RichText)
        self._empty = wrapped(QLabel(empty_text))
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._build(value_range)
        self.set_styles(styles)

    def _build(self, value_range: tuple[float, float] | None) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        for widget in (self._title, self._empty, self._plot, self._legend):
            layout.addWidget(widget)
        self._empty.setMinimumHeight(48)
        self._plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._plot.setMinimumHeight(_HEIGHT)
        self._item.setMenuEnabled(False)
        self._item.hideButtons()
        self._item.setMouseEnabled(x=False, y=False)
        self._item.showGrid(x=True, y=True, alpha=0.12)
        # the scores' axis and the losses' axis begin at the same place
        self._item.getAxis("left").setWidth(36)
        if value_range is not None:
            self._item.setYRange(*value_range, padding=0.03)
        self._marker = pg.InfiniteLine(angle=90, movable=False)
        self._best_line = pg.InfiniteLine(angle=90, movable=False)
        for line in (self._best_line, self._marker):
            line.hide()
            self._item.addItem(line, ignoreBounds=True)
        self._plot.scene().sigMouseMoved.connect(self._on_mouse_moved)
        self._plot.viewport().setMouseTracking(True)

    # --- points -------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether no curve has a point yet."""
        return not any(map(len, self._curves.values()))

    def add(self, point: CurvePoint) -> None:
        """Add values; keys without a curve are skipped."""
        for key, value in point.values.items():
            if key in self._curves:
                self._curves[key].add(point.step, point.seconds, value)

    def mark_best(self, point: CurvePoint) -> None:
        """Where the weights that are kept come from."""
        self._best = point

    def clear(self) -> None:
        """Forget all points."""
        self._curves = {style.key: Curve() for style in self._styles}
        self._best = None

    def set_styles(self, styles: Sequence[CurveStyle]) -> None:
        """Names and colours of the curves; points of curves that stay are kept."""
        self._styles = tuple(styles)
        self._curves = {style.key: self._curves.get(style.key, Curve()) for style in styles}
        for raw, course in self._lines.values():
            self._item.removeItem(raw)
            self._item.removeItem(course)
        self._lines = {
            style.key: (self._item.plot(antialias=True), self._item.plot(antialias=True)) for style in styles
        }
        self._paint()

    # --- drawing ------------------------------------------------------------------------------------------

    def follow_range_of(self, other: CurvesPanel) -> None:
        """Show the same stretch of the horizontal axis as another panel."""
        self._item.setXLink(other._item)

    def set_abscissa(self, abscissa: Abscissa) -> None:
        """What runs along the horizontal axis."""
        self._abscissa = abscissa

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        self._colours = colours
        self._plot.setBackground(colours.background)
        for name in ("left", "bottom"):
            axis = self._item.getAxis(name)
            axis.setPen(colours.border)
            axis.setTextPen(colours.faint_text)
        self._empty.setStyleSheet(f"color: {colours.faint_text};")
        self._marker.setPen(pg.mkPen(colours.faint_text, width=1))
        self._best_line.setPen(pg.mkPen(colours.accent, width=1, style=Qt.PenStyle.DashLine))
        self._paint()

    def refresh(self) -> None:
        """Draw what arrived since the last time."""
        is_empty = self.is_empty
        self._empty.setVisible(is_empty)
        self._plot.setVisible(not is_empty)
        self._legend.setVisible(not is_empty)
        for key, (raw, course) in self._lines.items():
            curve = self._curves[key]
            positions = curve.along(self._abscissa)
            if self._smoothed:
                raw.setData(positions, curve.values)
                course.setData(positions, curve.smoothed)
            else:
                course.setData(positions, curve.values)
        if self._best is not None:
            self._best_line.setValue(self._best.step if self._abscissa == "steps" else self._best.seconds)
        self._best_line.setVisible(self._best is not None)
        self._tell()

    def _paint(self) -> None:
        for style, (raw, course) in zip(self._styles, self._lines.values(), strict=True):
            colour = self._colour(style)
            faint = QColor(colour)
            faint.setAlphaF(_FAINT)
            raw.setPen(QPen(faint, 0))
            course.setPen(pg.mkPen(colour, width=2))
            if not self._smoothed:
                course.setSymbol("o")
                course.setSymbolSize(4)
                course.setSymbolBrush(colour)
                course.setSymbolPen(None)
        self._tell()

    def _colour(self, style: CurveStyle) -> str:
        return self._colours.readable(style.colour or self._colours.accent, READABLE_SHAPE)

    # --- values -------------------------------------------------------------------------------------------

    def values_at(self, position: float | None) -> dict[str, float]:
        """Value of each curve at the point next to a position; None: at its last point."""
        found = {}
        for key, curve in self._curves.items():
            index = len(curve) - 1 if position is None else nearest(curve.along(self._abscissa), position)
            if len(curve) and index is not None:
                found[key] = (curve.smoothed if self._smoothed else curve.values)[index]
        return found

    def position_near(self, position: float) -> float | None:
        """The point of any curve next to a position."""
        found = []
        for curve in self._curves.values():
            positions = curve.along(self._abscissa)
            index = nearest(positions, position)
            if index is not None:
                found.append(positions[index])
        return min(found, key=lambda x: abs(x - position), default=None)

    def show_hover(self, position: float | None) -> None:
        """Point at a moment, and tell the values there; None: the latest."""
        self._hover = position
        near = None if position is None else self.position_near(position)
        if near is not None:
            self._marker.setValue(near)
        self._marker.setVisible(near is not None)
        self._tell()

    @property
    def legend_text(self) -> str:
        """The legend as plain text."""
        return ", ".join([*(f"{name} {value}" for _, name, value in self._entries()), *self._kept()])

    def _tell(self) -> None:
        entries = [
            f'<span style="color: {colour};">■</span> {html.escape(name)} {value}'
            for colour, name, value in self._entries()
        ]
        entries += [f'<span style="color: {self._colours.accent};">┊</span> {text}' for text in self._kept()]
        # lines break between the entries only
        self._legend.setText("&nbsp;&nbsp; ".join(_unbroken(entry) for entry in entries))

    def _entries(self) -> list[tuple[str, str, str]]:
        """Colour, name and value where the pointer is."""
        values = self.values_at(self._hover)
        return [(self._colour(style), style.name, _number(values.get(style.key))) for style in self._styles]

    def _kept(self) -> list[str]:
        return [] if self._best is None else [f"kept: step {self._best.step}"]

    def _on_mouse_moved(self, position: QPointF) -> None:
        box = self._item.getViewBox()
        inside = box.sceneBoundingRect().contains(position)
        self.hovered.emit(float(box.mapSceneToView(position).x()) if inside else None)

    def leaveEvent(self, event: Any) -> None:
        """Back to the latest values."""
        self.hovered.emit(None)
        super().leaveEvent(event)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def _unbroken(markup: str) -> str:
    """The same with blanks that do not break, outside tags."""
    return re.sub(r" (?![^<]*>)", "&nbsp;", markup)
