"""An editor for every type of field."""

from __future__ import annotations

import types
from typing import Any, Literal, Protocol, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from qtpy.QtCore import Signal, SignalInstance
from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QWidget

from napari_unet3d.widgets._config_form._number_box import NumberBox, NumberRange
from napari_unet3d.widgets._config_form._values import from_text, to_text


class Editor(Protocol):
    """What every editor can do, besides being a widget."""

    edited: SignalInstance
    """The user changed the value; True once they are done with it."""

    def value(self) -> Any:
        """What the user entered, to be checked by the model; `ConfigError` if it cannot be read."""

    def set_value(self, value: Any) -> None:
        """Show a value, silently."""


def editor_for(field: FieldInfo) -> QWidget:
    """The editor that fits the type of a field; anything unusual is a line of text."""
    annotation = field.annotation
    if annotation is bool:
        return CheckEditor()
    if get_origin(annotation) is Literal:
        return ChoiceEditor(get_args(annotation))
    if annotation in (int, float):
        return NumberBox(_range_of(field))
    if annotation is str:
        return LineEditor(is_text=True)
    return LineEditor(placeholder=_placeholder(annotation))


def _range_of(field: FieldInfo) -> NumberRange:
    whole = field.annotation is int
    low: Any = None
    high: Any = None
    low_open = high_open = False
    for bound in field.metadata:
        match bound:
            case Ge(ge=limit):
                low, low_open = limit, False
            case Gt(gt=limit):
                low, low_open = limit, True
            case Le(le=limit):
                high, high_open = limit, False
            case Lt(lt=limit):
                high, high_open = limit, True
    usual = field.default if isinstance(field.default, (int, float)) else 1.0
    return NumberRange(whole, low, high, low_open, high_open, usual)


def _placeholder(annotation: Any) -> str:
    """What an empty line means, where it may be empty."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return "empty" if is_union and type(None) in get_args(annotation) else ""


class CheckEditor(QCheckBox):
    """For yes and no."""

    edited = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.clicked.connect(lambda: self.edited.emit(True))

    def value(self) -> bool:
        return self.isChecked()

    def set_value(self, value: object) -> None:
        self.setChecked(bool(value))


class ChoiceEditor(QComboBox):
    """For one of a few values.

    Parameters
    ----------
    choices
        The values, shown with blanks for underscores.
    """

    edited = Signal(bool)

    def __init__(self, choices: tuple[Any, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(5)
        for choice in choices:
            self.addItem(str(choice).replace("_", " "), choice)
        self.activated.connect(lambda: self.edited.emit(True))
        self.currentTextChanged.connect(self.setStatusTip)

    def value(self) -> Any:
        return self.currentData()

    def set_value(self, value: object) -> None:
        self.setCurrentIndex(self.findData(value))


class LineEditor(QLineEdit):
    """For everything else, typed as in a recipe: ``16``, ``[16, 32, 64]``, ``auto``, or nothing.

    Parameters
    ----------
    is_text
        The value is the text itself, whatever it looks like.
    placeholder
        Shown while it is empty.
    """

    edited = Signal(bool)

    def __init__(self, *, is_text: bool = False, placeholder: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_text = is_text
        self.setPlaceholderText(placeholder)
        self.setMinimumWidth(60)
        self.textEdited.connect(lambda: self.edited.emit(False))
        self.editingFinished.connect(lambda: self.edited.emit(True))

    def value(self) -> Any:
        return self.text().strip() if self._is_text else from_text(self.text())

    def set_value(self, value: object) -> None:
        self.setText(to_text(value))
        self.setCursorPosition(0)
