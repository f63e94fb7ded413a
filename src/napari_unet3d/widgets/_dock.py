"""What every dock has: a scrolling column, the viewer's theme, a line for messages."""

from __future__ import annotations

from typing import Any, Final

from magicgui.widgets import create_widget
from qtpy.QtWidgets import QComboBox, QLabel, QMainWindow, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.widgets._scrolling import ColumnScrollArea, guard_wheel, wrapped
from napari_unet3d.widgets._theme import ThemeColours, follow_theme
from napari_unet3d.widgets._workbench.bench import workbench_of

_LEAST_LETTERS: Final = 8
"""That a box shows of the name of a layer; it grows with the dock."""


class Dock(QWidget):
    """Base of the docks: a view of the viewer's session. Closing it ends nothing.

    Parameters
    ----------
    viewer
        The napari viewer.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._connections: list[tuple[Any, Any]] = []
        self._message = wrapped(QLabel())
        self._is_warning = False
        self._colours: ThemeColours | None = None
        self._is_in_window = False
        content = QWidget()
        self.column = QVBoxLayout(content)
        self.column.setContentsMargins(6, 6, 6, 6)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._area = ColumnScrollArea(content)
        layout.addWidget(self._area)
        self._pickers: list[Any] = []
        self.destroyed.connect(_Disconnect(self._connections))

    def finish(self) -> None:
        """Call when everything is built."""
        self.column.addStretch()
        guard_wheel(self)
        follow_theme(self._viewer, self, self.set_colours)

    def follow(self, signal: Any, slot: Any) -> None:
        """Connect to a signal of the session as long as the dock lives."""
        signal.connect(slot)
        self._connections.append((signal, slot))

    def showEvent(self, event: Any) -> None:
        """Once in a window, list its layers, and tell the workbench when it is gone: nothing of napari's does."""
        super().showEvent(event)
        window = None if self._is_in_window else self.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None:
            self._is_in_window = True
            self.reset_choices()  # which layers there are is known from here on
            window.destroyed.connect(workbench_of(self._viewer).close)

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the theme."""
        self._colours = colours
        self._colour_message()

    def show_message(self, text: str, *, warning: bool = False) -> None:
        """Show a sentence in the line for messages."""
        self._is_warning = warning
        self._message.setText(text)
        self._message.setVisible(bool(text))
        self._colour_message()

    def _colour_message(self) -> None:
        colour = self._colours.warning if self._is_warning and self._colours else ""
        self._message.setStyleSheet(f"color: {colour};" if colour else "")

    def reset_choices(self, *args: Any) -> None:
        """Refill the boxes that list layers; napari calls it when layers come, go or change their names."""
        for picker in self._pickers:
            chosen = picker.value
            with picker.changed.blocked():  # a renamed layer is taken for another one
                picker.reset_choices()
                if chosen in picker.choices:
                    picker.value = chosen
            if picker.value != chosen:
                picker.changed.emit(picker.value)


def first_layer(box: Any) -> Any:
    """What a layer box shows, else the first layer it lists, else None."""
    return box.value if box.value is not None else next((layer for layer in box.choices if layer is not None), None)


def layer_box(kind: str) -> Any:
    """A box that lists the viewer's layers of a kind, such as ``Image``, and none; long names do not widen it."""
    box = create_widget(annotation=f"napari.layers.{kind}", options={"nullable": True})
    for inner in (box.native, *box.native.findChildren(QComboBox)):
        if isinstance(inner, QComboBox):
            inner.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            inner.setMinimumContentsLength(_LEAST_LETTERS)
    return box


class _Disconnect:
    """Takes back connections once a dock is gone; knows nothing of the dock."""

    def __init__(self, connections: list[tuple[Any, Any]]) -> None:
        self._connections = connections

    def __call__(self, *args: Any) -> None:
        for signal, slot in self._connections:
            signal.disconnect(slot, missing_ok=True)
        self._connections.clear()


def button(text: str, tooltip: str, clicked: Any) -> QPushButton:
    """A push button; `set_reason` disables it with an explanation."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.setProperty("purpose", tooltip)
    made.clicked.connect(lambda: clicked())
    return made


def set_reason(widget: QPushButton, reason: str) -> None:
    """Disable a button with the reason as tooltip; without a reason enable it."""
    widget.setEnabled(not reason)
    widget.setToolTip(reason or str(widget.property("purpose")))
