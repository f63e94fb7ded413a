"""A column that scrolls and stays 300 pixels narrow, and a wheel that scrolls it and nothing else."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QLabel,
    QScrollArea,
    QScrollBar,
    QSizePolicy,
    QWidget,
)

DOCK_WIDTH: Final = 300
"""Pixels in which every dock must do."""

_EDITORS: Final = (QAbstractSpinBox, QComboBox, QAbstractSlider)


class ColumnScrollArea(QScrollArea):
    """Scrolls its content up and down; the content is as wide as the area.

    Parameters
    ----------
    content
        The column.
    """

    def __init__(self, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # a wide child must not make the column wider than what can be seen of it
        content.setMinimumWidth(0)

    def sizeHint(self) -> QSize:
        """300 pixels wide, and as high as the content up to a usual window."""
        content = self.widget()
        height = content.sizeHint().height() if content is not None else 0
        return QSize(DOCK_WIDTH, min(height, 640))

    def minimumSizeHint(self) -> QSize:
        """Small: the rest is scrolled."""
        return QSize(220, 120)


class WheelGuard(QObject):
    """Keeps the wheel from changing a value that merely passes under the pointer.

    Spin boxes, combo boxes and sliders answer the wheel only once they have been clicked or reached with Tab;
    otherwise the column scrolls.
    """

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Hand wheel events of editors without focus to what they lie on."""
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget):
            return False
        if watched.hasFocus():
            return False
        event.ignore()
        return True


def guard_wheel(root: QWidget) -> None:
    """Guard all editors below a widget; call it again for editors that come later."""
    guard = root.findChild(WheelGuard, options=Qt.FindChildOption.FindDirectChildrenOnly)
    if guard is None:
        guard = WheelGuard(root)
    for kind in _EDITORS:
        for editor in root.findChildren(kind):
            if isinstance(editor, QScrollBar):
                continue
            editor.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # WheelFocus would give it the focus on the way
            editor.installEventFilter(guard)


def wrapped(label: QLabel) -> QLabel:
    """A label whose text takes more lines instead of more width."""
    label.setWordWrap(True)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    return label
