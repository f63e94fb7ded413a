"""Autosaves of tests go into a folder of the test; a mouse that draws."""

from __future__ import annotations

import itertools
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


@pytest.fixture(autouse=True)
def every_move_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """napari puts off, and vispy drops, moves of the mouse that follow one another too fast for a hand."""
    monkeypatch.setattr("napari._vispy.canvas.qthrottled", lambda function, timeout: function)
    monkeypatch.setattr("vispy.app.base.default_timer", itertools.count().__next__)


@pytest.fixture
def drag() -> Callable[[Any, Sequence[QPoint]], None]:
    """Press the left button at the first of some places of the canvas, move to the others, release."""

    def drag(canvas: Any, places: Sequence[QPoint]) -> None:
        button, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        QTest.mousePress(canvas, button, none, places[0])
        for place in places[1:]:
            # not moving the pointer of the screen, of which the display server tells when it likes
            at, there = QPointF(place), QPointF(canvas.mapToGlobal(place))
            move = QMouseEvent(QEvent.Type.MouseMove, at, there, Qt.MouseButton.NoButton, button, none)
            QApplication.sendEvent(canvas, move)
        QTest.mouseRelease(canvas, button, none, places[-1])

    return drag
