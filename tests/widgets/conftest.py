"""Autosaves of tests go into a folder of the test; a mouse that draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from qtpy import QtTest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

QTest: Any = QtTest.QTest  # its type hints take the static methods for methods


@pytest.fixture(autouse=True)
def autosaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "autosave"
    monkeypatch.setattr("napari_unet3d.io.autosave.default_base", lambda: base)
    return base


@pytest.fixture
def drag() -> Callable[[Any, Sequence[QPoint]], None]:
    """Press the left button at the first of some places of a widget, move to the others, release."""

    def drag(widget: Any, places: Sequence[QPoint]) -> None:
        button, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        QTest.mousePress(widget, button, none, places[0])
        for place in places[1:]:
            # vispy drops moves that follow one another within 10 ms; a hand is slower
            widget._last_time = 0
            # not moving the pointer of the screen, of which the display server tells when it likes
            at, there = QPointF(place), QPointF(widget.mapToGlobal(place))
            QApplication.sendEvent(
                widget, QMouseEvent(QEvent.Type.MouseMove, at, there, Qt.MouseButton.NoButton, button, none)
            )
        QTest.mouseRelease(widget, button, none, places[-1])

    return drag
