"""Where the blocks of a picture lie, for a width in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qtpy.QtCore import QPointF, QRectF
from qtpy.QtGui import QFontMetricsF

from napari_unet3d.widgets._network_drawing._blocks import Picture, Place, sizes

_MARGIN: Final = 4.0
_PADDING: Final = 5.0
"""Between the text of a block and its edge."""

_GAP: Final = 22.0
"""Between two levels: room for the arrows and the strides."""

_SKIP: Final = 26.0
"""Shortest skip."""


@dataclass(frozen=True)
class Layout:
    """Rectangles of blocks, and the height of it all.

    Attributes
    ----------
    boxes
        By place.
    line
        Height of a line of text.
    """

    boxes: dict[Place, QRectF]
    line: float
    height: float

    def place_at(self, point: QPointF) -> Place | None:
        """The block under a point."""
        return next((place for place, box in self.boxes.items() if box.contains(point)), None)


def lay_out(picture: Picture, width: float, metrics: QFontMetricsF) -> Layout:
    """Blocks of two lines of text, both sides leaning towards the bottleneck as far as there is room."""
    line = metrics.height()
    height = 2 * line + _PADDING
    top = line + _GAP  # over the first level stand image and output
    middle = width / 2
    last = picture.levels - 1
    widths = {
        place: max(metrics.horizontalAdvance(sizes(block.size)), metrics.horizontalAdvance("0000")) + 2 * _PADDING
        for place, block in picture.blocks.items()
    }
    boxes = {}
    for place in picture.blocks:
        side, level = place
        centre = middle
        if level < last:
            outermost = _MARGIN + widths[place] / 2
            innermost = max(outermost, middle - _SKIP / 2 - widths[place] / 2)
            # halfway in at most: skips as arrows one can see
            share = 0.8 * level / max(1, last - 1) if last > 1 else 0.0
            offset = middle - (outermost + share * (innermost - outermost))
            centre = middle - offset if side == "encoder" else middle + offset
        left = centre - widths[place] / 2
        boxes[place] = QRectF(left, top + level * (height + _GAP), widths[place], height)
    return Layout(boxes, line, top + picture.levels * (height + _GAP) - _GAP + _MARGIN)
