"""The curves and notes of a training run, as they go into the model file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from napari_unet3d.engine.progress import ClassScore, Note
from napari_unet3d.engine.trained_model import History, StepRecord, ValidationRecord

_SECONDS: Final = 0.5  # between two points of the loss curve


class RunHistory:
    """Gathers what happens; `history` gives it.

    Parameters
    ----------
    before
        History of the run that goes on.
    """

    def __init__(self, before: History | None = None) -> None:
        before = before or History()
        self._steps = list(before.steps)
        self._validations = list(before.validations)
        self._notes = list(before.notes)
        self._losses: list[float] = []

    def note(self, text: str, level: Literal["info", "warning"] = "info") -> Note:
        """Remember what the user is told."""
        if text not in self._notes:
            self._notes.append(text)
        return Note(text, level)

    def step(self, step: int, seconds: float, loss: float, learning_rate: float) -> None:
        """A step: a point of the curve every half second; non-finite losses are left out."""
        if math.isfinite(loss):
            self._losses.append(loss)
        if self._losses and (not self._steps or seconds - self._steps[-1].seconds >= _SECONDS):
            mean = sum(self._losses) / len(self._losses)
            self._steps.append(StepRecord(step=step, seconds=seconds, loss=mean, learning_rate=learning_rate))
            self._losses.clear()

    def validation(
        self,
        step: int,
        seconds: float,
        scores: Sequence[ClassScore],
        mean_iou: float,
        agreement: float | None = None,
    ) -> None:
        """A validation."""
        self._validations.append(
            ValidationRecord(
                step=step,
                seconds=seconds,
                iou=tuple(_or_none(score.iou) for score in scores),
                dice=tuple(_or_none(score.dice) for score in scores),
                mean_iou=_or_none(mean_iou),
                agreement=agreement,
            )
        )

    def history(self) -> History:
        """All so far."""
        return History(steps=tuple(self._steps), validations=tuple(self._validations), notes=tuple(self._notes))


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
