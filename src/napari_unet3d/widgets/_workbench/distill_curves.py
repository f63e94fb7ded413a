"""What a distillation told as it went on: losses, agreement with the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TermPoint:
    """Losses of a step: their sum, and each term without its weight (hard: NaN where nothing was annotated)."""

    step: int
    seconds: float
    loss: float
    soft: float
    hard: float


@dataclass(frozen=True)
class AgreementPoint:
    """What a look at the student found, 0..1; `mean_iou` is NaN where nothing is held out."""

    step: int
    seconds: float
    agreement: float
    mean_iou: float
    is_best: bool


@dataclass(eq=False)
class DistillCurves:
    """Points gathered during a run; lists grow in place."""

    losses: list[TermPoint] = field(default_factory=list)
    agreements: list[AgreementPoint] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """Which student was kept, and how good it is."""
        kept = next((point for point in reversed(self.agreements) if point.is_best), None)
        if kept is None:
            return "done"
        iou = "" if math.isnan(kept.mean_iou) else f", IoU on held-out slices {kept.mean_iou:.3f}"
        return f"done; kept step {kept.step}: agreement with the teacher {kept.agreement:.1%}{iou}"
