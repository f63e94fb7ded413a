"""The widget that paints a picture."""

from __future__ import annotations

import html
import math
from typing import Final

from qtpy.QtCore import QEvent, QLineF, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QHelpEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.describe import Description
from napari_unet3d.widgets._network_drawing._blocks import Block, Picture, block_text, picture_of, sizes, stride_text
from napari_unet3d.widgets._network_drawing._layout import Layout, lay_out
from napari_unet3d.widgets._theme import ThemeColours, theme_colours

_NARROWEST: Final = 200
_ARROW: Final = 5.0
_CENTRE: Final = Qt.AlignmentFlag.AlignCenter


class NetworkDrawing(QWidget):
    """Draws a network as in the papers: encoder on the left, decoder on the right, a row for each level.

    Each block tells its channels and the Z Y X voxels of a patch there; pointing at it tells its layers.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._picture: Picture | None = None
        self._dimensions = 3
        self._colours = theme_colours("dark")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Drawing of the network")

    def set_network(self, network: Description, patch: Triple) -> None:
        """Draw a network with the sizes of a patch (Z Y X).

        Raises
        ------
        ConfigError
            If a network without padding cannot take the patch; the old drawing stays.
        """
        self._picture = picture_of(network, patch)
        self._dimensions = network.config.dimensions
        lines = [block_text(block)[0] for block in self._picture.blocks.values()]
        self.setAccessibleDescription("; ".join(lines))
        self.updateGeometry()
        self.update()

    def clear(self) -> None:
        """Draw nothing."""
        self._picture = None
        self.setAccessibleDescription("")
        self.updateGeometry()
        self.update()

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        self._colours = colours
        self.update()

    def sizeHint(self) -> QSize:
        """As narrow as a dock, as high as the levels need."""
        height = 0 if self._picture is None else math.ceil(self._layout(self._picture).height)
        return QSize(280, height)

    def minimumSizeHint(self) -> QSize:
        """Narrower than a dock."""
        return QSize(_NARROWEST, self.sizeHint().height())

    def changeEvent(self, event: QEvent | None) -> None:
        """Fonts decide the height."""
        if event is not None and event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self.updateGeometry()
        super().changeEvent(event)

    # --- pointing at it -----------------------------------------------------------------------------------

    def event(self, event: QEvent | None) -> bool:
        """Tell the layers of the block under the pointer."""
        if isinstance(event, QHelpEvent):
            text = self.tip_at(QPointF(event.pos()))
            if text:
                QToolTip.showText(event.globalPos(), text, self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def tip_at(self, point: QPointF) -> str:
        """What there is to say about the block at a point; empty where there is none."""
        if self._picture is None:
            return ""
        place = self._layout(self._picture).place_at(point)
        if place is None:
            return ""
        first, *layers = (html.escape(line) for line in block_text(self._picture.blocks[place]))
        return f"<p><b>{first}</b></p><p>{'<br>'.join(layers)}</p>"

    def _layout(self, picture: Picture) -> Layout:
        return lay_out(picture, max(self.width(), _NARROWEST), QFontMetricsF(self.font()))

    # --- painting -----------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Arrows first, blocks over them."""
        if self._picture is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(self.font())
        layout = self._layout(self._picture)
        self._paint_skips(painter, self._picture, layout)
        self._paint_ways(painter, self._picture, layout)
        self._paint_ends(painter, self._picture, layout)
        most = max(block.channels for block in self._picture.blocks.values())
        for place, block in self._picture.blocks.items():
            self._paint_block(painter, block, layout.boxes[place], most)
        painter.end()

    def _paint_block(self, painter: QPainter, block: Block, box: QRectF, most: int) -> None:
        # the more channels, the stronger the colour
        share = 0.18 + 0.42 * math.log2(1 + block.channels) / math.log2(1 + most)
        painter.setPen(QPen(QColor(self._colours.accent), 1.2))
        painter.setBrush(QColor(self._colours.blend(self._colours.accent, share)))
        painter.drawRoundedRect(box, 3, 3)
        upper, lower = QRectF(box), QRectF(box)
        upper.setBottom(box.center().y() + 1)
        lower.setTop(box.center().y() - 1)
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(QColor(self._colours.text))
        painter.drawText(upper, _CENTRE, str(block.channels))
        font.setBold(False)
        painter.setFont(font)
        painter.drawText(lower, _CENTRE, sizes(block.size))
        if block.has_side_head:
            painter.setBrush(QColor(self._colours.warning))
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawEllipse(QPointF(box.right(), box.top()), 4, 4)

    def _paint_skips(self, painter: QPainter, picture: Picture, layout: Layout) -> None:
        for source, target in picture.skips:
            start, end = layout.boxes[source], layout.boxes[target]
            is_level = source[1] == target[1]
            colour = self._colours.faint_text if is_level else self._colours.border
            if source[0] == "decoder":  # from a coarser level, up along the outer edge
                line = QLineF(start.right() - 4, start.top(), end.right() - 4, end.bottom())
            elif source[1] > target[1]:  # from the bottleneck
                line = QLineF(start.right(), start.center().y(), end.center().x(), end.bottom())
            else:
                line = QLineF(start.right(), start.center().y(), end.left(), end.center().y())
            self._arrow(painter, line, colour, dashed=True)
            crop = picture.crops[source[1]]
            if is_level and any(crop):
                text = QRectF(start.right(), start.center().y() - layout.line, end.left() - start.right(), layout.line)
                self._note(painter, text, f"crop {stride_text(crop, self._dimensions)}")

    def _paint_ways(self, painter: QPainter, picture: Picture, layout: Layout) -> None:
        """Down on the left, up on the right, with the strides."""
        last = picture.levels - 1
        for level, stride in enumerate(picture.strides):
            text = stride_text(stride, self._dimensions)
            is_lowest = level + 1 == last
            start, end = self._attach(layout.boxes["encoder", level], layout.boxes["encoder", level + 1])
            self._arrow(painter, QLineF(start, end), self._colours.text)
            self._note_beside(painter, start, end, f"÷ {text}", left=is_lowest)
            lower = layout.boxes["encoder" if is_lowest else "decoder", level + 1]
            start, end = self._attach(layout.boxes["decoder", level], lower)
            self._arrow(painter, QLineF(end, start), self._colours.text)
            self._note_beside(painter, start, end, f"× {text}", left=not is_lowest)

    @staticmethod
    def _attach(upper: QRectF, lower: QRectF) -> tuple[QPointF, QPointF]:
        """Ends of the shortest line between two boxes, one above the other if they overlap sideways."""
        left, right = max(upper.left(), lower.left()), min(upper.right(), lower.right())
        if left <= right:
            x = (left + right) / 2
            return QPointF(x, upper.bottom()), QPointF(x, lower.top())
        is_left = upper.center().x() < lower.center().x()
        x_upper = upper.center().x()
        x_lower = lower.left() + 6 if is_left else lower.right() - 6
        return QPointF(x_upper, upper.bottom()), QPointF(x_lower, lower.top())

    def _paint_ends(self, painter: QPainter, picture: Picture, layout: Layout) -> None:
        """Image and output over the first level."""
        first, last = layout.boxes["encoder", 0], layout.boxes[picture.last]
        apart = 0 if picture.last[0] == "decoder" else first.width() / 4
        enters, leaves = first.center().x() - apart, last.center().x() + apart
        above = layout.line + 2
        self._arrow(painter, QLineF(enters, above, enters, first.top()), self._colours.text)
        self._arrow(painter, QLineF(leaves, last.top(), leaves, above), self._colours.text)
        channels = "1 channel" if picture.in_channels == 1 else f"{picture.in_channels} channels"
        classes = "1 class" if picture.classes == 1 else f"{picture.classes} classes"
        left = QRectF(0, 0, self.width() / 2, layout.line)
        right = QRectF(self.width() / 2, 0, self.width() / 2, layout.line)
        painter.setPen(QColor(self._colours.text))
        painter.drawText(left, Qt.AlignmentFlag.AlignLeft, f"image, {channels}")
        painter.drawText(right, Qt.AlignmentFlag.AlignRight, classes)

    def _note_beside(self, painter: QPainter, start: QPointF, end: QPointF, text: str, *, left: bool) -> None:
        """A note beside an arrow: towards the middle, where the room is, but outside of the lowest pair."""
        room = QRectF(start.x() - 76 if left else start.x() + 6, start.y(), 70, end.y() - start.y())
        side = Qt.AlignmentFlag.AlignRight if left else Qt.AlignmentFlag.AlignLeft
        self._note(painter, room, text, side | Qt.AlignmentFlag.AlignVCenter)

    def _note(self, painter: QPainter, box: QRectF, text: str, where: Qt.AlignmentFlag = _CENTRE) -> None:
        painter.setPen(QColor(self._colours.faint_text))
        painter.drawText(box, where, text)

    def _arrow(self, painter: QPainter, line: QLineF, colour: str, *, dashed: bool = False) -> None:
        style = Qt.PenStyle.DashLine if dashed else Qt.PenStyle.SolidLine
        painter.setPen(QPen(QColor(colour), 1.2, style))
        painter.drawLine(line)
        if line.length() < _ARROW:
            return
        along = QPointF(line.dx(), line.dy()) / line.length() * _ARROW
        across = QPointF(-along.y(), along.x()) * 0.6
        tip = line.p2()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colour))
        painter.drawPolygon(QPolygonF([tip, tip - along + across, tip - along - across]))
