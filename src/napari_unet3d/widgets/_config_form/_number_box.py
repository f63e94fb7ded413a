"""A spin box for any number, whose steps suit the size of the number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from qtpy.QtCore import QSize, Signal
from qtpy.QtWidgets import QAbstractSpinBox, QWidget

from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.widgets._config_form._values import from_text, to_text

_RATE: Final = 0.01
"""Numbers that start below this are compared by factors: one step goes to the next of 1, 2, 5, 10."""

_SMALLEST_RATE: Final = 1e-9
_DIGITS: Final = 10


@dataclass(frozen=True)
class NumberRange:
    """What a number may be, and how it steps.

    Attributes
    ----------
    whole
        Whether it is an integer.
    low, high
        Bounds, None where there are none.
    low_open, high_open
        Whether the bound itself is excluded.
    usual
        The number the field starts with; the size of a step follows from it.
    """

    whole: bool
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    usual: float = 1.0

    @property
    def is_rate(self) -> bool:
        """Whether steps are factors instead of differences."""
        return not self.whole and 0 < self.usual < _RATE

    @property
    def difference(self) -> float:
        """One step of a number that is no rate."""
        if self.whole:
            return 1
        if self.high is not None and self.high <= 1:
            return 0.01 if self.usual >= 0.9 or 0 < self.usual < 0.05 else 0.05
        return 0.5 * 10 ** math.floor(math.log10(abs(self.usual))) if self.usual else 0.1

    def stepped(self, value: float, steps: int) -> float:
        """The number after so many steps up (down where negative), kept within the bounds."""
        for _ in range(abs(steps)):
            after = self._next_rate(value, steps > 0) if self.is_rate else self._next(value, steps > 0)
            if not self.allows(after):
                return self._bounded(after, value)
            value = after
        return value

    def allows(self, value: float) -> bool:
        """Whether the number lies within the bounds."""
        above = self.low is None or value > self.low or (value == self.low and not self.low_open)
        below = self.high is None or value < self.high or (value == self.high and not self.high_open)
        return above and below

    def _bounded(self, beyond: float, before: float) -> float:
        if self.low is not None and beyond <= self.low:
            return before if self.low_open else self.low
        if self.high is not None and beyond >= self.high:
            return before if self.high_open else self.high
        return before

    def _next(self, value: float, up: bool) -> float:
        step = self.difference if up else -self.difference
        return value + step if self.whole else round(value + step, _DIGITS)

    def _next_rate(self, value: float, up: bool) -> float:
        if value < _SMALLEST_RATE:
            return float(f"{self.usual / 10:.0e}") if up else 0.0
        decade = math.floor(math.log10(value) + 1e-9)
        marks = [float(f"{digit}e{decade + shift}") for shift in (-1, 0, 1) for digit in (1, 2, 5)]
        tolerance = value * 1e-6
        if up:
            return min(mark for mark in marks if mark > value + tolerance)
        return max(mark for mark in marks if mark < value - tolerance)


class NumberBox(QAbstractSpinBox):
    """A spin box that steps through a `NumberRange` but lets anything be typed: the form says what is wrong with it.

    Parameters
    ----------
    numbers
        The allowed numbers.
    """

    edited = Signal(bool)
    """The user changed the value; True once they are done with it."""

    def __init__(self, numbers: NumberRange, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._numbers = numbers
        line = self.lineEdit()
        assert line is not None
        self._line = line
        line.textEdited.connect(lambda: self.edited.emit(False))
        self.editingFinished.connect(lambda: self.edited.emit(True))

    def value(self) -> Any:
        """The number, or what was typed instead.

        Raises
        ------
        ConfigError
            If the text cannot be read at all.
        """
        return from_text(self._line.text())

    def set_value(self, value: object) -> None:
        """Show a number."""
        self._line.setText(to_text(value))

    def stepBy(self, steps: int) -> None:
        """One or more steps up or down; nothing while the text is no number."""
        value = self._number()
        if value is None:
            return
        self._line.setText(to_text(self._numbers.stepped(value, steps)))
        self._line.selectAll()
        self.edited.emit(False)

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:
        """Up and down unless the number is at its bound."""
        flags = QAbstractSpinBox.StepEnabledFlag.StepNone
        value = self._number()
        if value is None:
            return flags
        if self._numbers.stepped(value, 1) > value:
            flags |= QAbstractSpinBox.StepEnabledFlag.StepUpEnabled
        if self._numbers.stepped(value, -1) < value:
            flags |= QAbstractSpinBox.StepEnabledFlag.StepDownEnabled
        return flags

    def sizeHint(self) -> QSize:
        """Room for eight digits."""
        hint = super().sizeHint()
        return QSize(self.fontMetrics().horizontalAdvance("0" * 8) + 40, hint.height())

    def minimumSizeHint(self) -> QSize:
        """Room for three digits."""
        return QSize(self.fontMetrics().horizontalAdvance("0" * 3) + 40, super().minimumSizeHint().height())

    def _number(self) -> float | None:
        try:
            value = self.value()
        except ConfigError:
            return None
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
