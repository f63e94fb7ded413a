"""Counting steps whose loss or gradient was not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_IN_A_ROW: Final = 5
_SHARE: Final = 0.03
_LEAST: Final = 10


class BadSteps:
    """Single ones are skipped; many are worth a word; several in a row mean that the arithmetic does not do."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.total = 0
        self._was_told = False

    def count(self, is_bad: bool) -> None:
        """A step was bad, or not."""
        self.in_a_row = self.in_a_row + 1 if is_bad else 0
        self.total += is_bad

    @property
    def persist(self) -> bool:
        """Whether it makes no sense to go on like this."""
        return self.in_a_row >= _IN_A_ROW

    def forgive(self) -> None:
        """Something was changed: count anew."""
        self.in_a_row = 0

    def worth_telling(self, steps: int) -> bool:
        """Whether more than a few of all `steps` were bad; true only once."""
        is_much = self.total >= _LEAST and self.total > _SHARE * steps and not self._was_told
        self._was_told |= is_much
        return is_much

    def to_state(self) -> dict[str, Any]:
        """Plain values."""
        return {"in_a_row": self.in_a_row, "total": self.total, "was_told": self._was_told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another count stood."""
        self.in_a_row, self.total, self._was_told = state["in_a_row"], state["total"], state["was_told"]
