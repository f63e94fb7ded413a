"""One field of a form: name, editor, way back to the default, and what is wrong."""

from __future__ import annotations

import html
from typing import Any, cast

from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QToolButton, QWidget

from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.widgets._config_form._editors import Editor, editor_for
from napari_unet3d.widgets._config_form._values import to_text
from napari_unet3d.widgets._scrolling import wrapped


class FieldRow(QWidget):
    """A row of the form.

    Parameters
    ----------
    path
        Name of the field, with those of the sections it lies in: ``augment.rotation``.
    field
        Type, bounds and help of the field.
    """

    edited = Signal(bool)

    def __init__(self, path: str, field: FieldInfo, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.path = path
        self._default: Any = None
        self._help = _help(path, field)
        name = readable(path)
        self.editor_widget = editor_for(field)
        self.editor_widget.setAccessibleName(name)
        self.editor_widget.setObjectName(path)
        self._label = wrapped(QLabel(name))
        self._label.setBuddy(self.editor_widget)
        self._reset = QToolButton()
        self._reset.setText("↺")
        self._reset.setAutoRaise(True)
        self._reset.setAccessibleName(f"{name}: back to the default")
        self._problem = wrapped(QLabel())
        self._problem.setObjectName(f"{path}.problem")
        self._lay_out()
        self.set_disabled_reason(None)
        self.editor.edited.connect(self.edited)
        self._reset.clicked.connect(self._on_reset_clicked)

    def _lay_out(self) -> None:
        for widget in (self._reset, self._problem):
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(widget is self._reset)
            widget.setSizePolicy(policy)
            widget.hide()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(4)
        layout.setVerticalSpacing(1)
        layout.setColumnStretch(0, 10)
        layout.setColumnStretch(1, 13)
        layout.addWidget(self._label, 0, 0)
        layout.addWidget(self.editor_widget, 0, 1)
        layout.addWidget(self._reset, 0, 2, Qt.AlignmentFlag.AlignCenter)
        layout.addWidget(self._problem, 1, 0, 1, 3)
        self._label.setMinimumWidth(90)

    @property
    def editor(self) -> Editor:
        """The editor."""
        return cast(Editor, self.editor_widget)

    @property
    def problem(self) -> str:
        """What is wrong with the value; empty if nothing is."""
        return self._problem.text()

    def show_problem(self, text: str) -> None:
        """Say what is wrong beside the field; empty for nothing."""
        self._problem.setText(text)
        self._problem.setVisible(bool(text))

    def set_problem_colour(self, colour: str) -> None:
        """Colour of what is wrong, ``#rrggbb``."""
        self._problem.setStyleSheet(f"color: {colour};")

    def show_value(self, value: Any) -> None:
        """Show a value; what the user typed stays if it means the same."""
        if not self._shows(value):
            self.editor.set_value(value)
        self.mark_changed()

    def set_default(self, value: Any) -> None:
        """What the way back leads to."""
        self._default = value
        self.mark_changed()
        self._reset.setToolTip(f"Back to {to_text(value) or 'empty'}")

    def mark_changed(self) -> None:
        """Offer the way back if anything but the default is entered."""
        self._reset.setVisible(not self._shows(self._default))

    def set_disabled_reason(self, reason: str | None) -> None:
        """Disable the row and say why in its tooltip, or enable it."""
        for widget in (self._label, self.editor_widget, self._reset):
            widget.setEnabled(reason is None)
        tip = self._help if reason is None else f"{self._help}<p><b>{html.escape(reason)}</b></p>"
        self._label.setToolTip(tip)
        self.editor_widget.setToolTip(tip)

    def _on_reset_clicked(self) -> None:
        self.editor.set_value(self._default)
        self.editor_widget.setFocus()
        self.edited.emit(True)

    def _shows(self, value: Any) -> bool:
        try:
            return _same(self.editor.value(), value)
        except ConfigError:
            return False


def readable(path: str) -> str:
    """``augment.deformation_grid`` as ``Deformation grid``."""
    name = path.rpartition(".")[2].replace("_", " ")
    return name[:1].upper() + name[1:]


def _help(path: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    return f"<p>{html.escape(text)}</p><p><i>{path}</i></p>"


def _same(one: Any, other: Any) -> bool:
    """Equal values of equal kind; lists and tuples count as the same, True and 1 do not."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
