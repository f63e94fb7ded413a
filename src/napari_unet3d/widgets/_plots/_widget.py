"""Losses above, scores below, over the same steps or seconds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final, cast

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_unet3d.widgets._plots._curves import Abscissa, CurvePoint, CurveStyle
from napari_unet3d.widgets._plots._panel import CurvesPanel
from napari_unet3d.widgets._scrolling import guard_wheel
from napari_unet3d.widgets._theme import ThemeColours

_SECOND_LOSSES: Final = ("#e69f00", "#009e73", "#cc79a7")
"""For losses without a colour after the first (Okabe and Ito 2008, for every kind of colour vision)."""


class CurvesPlot(QWidget):
    """Live curves of a run: losses with their smoothed course, and scores from 0 to 1.

    The owner adds points as they come and calls `refresh` when it wants them drawn, ten times a second at most.
    Points that pile up are averaged, so that a run of any length is drawn in the same time.

    Parameters
    ----------
    losses
        Curves of the upper panel; those without a colour get one.
    scores
        Curves of the lower panel, such as one for each class.
    loss_title, score_title
        Over the panels.
    empty_text
        Shown instead of the upper panel until the first loss.
    empty_scores_text
        Shown instead of the lower panel until the first score.
    """

    def __init__(
        self,
        losses: Sequence[CurveStyle] = (CurveStyle("loss", "loss"),),
        scores: Sequence[CurveStyle] = (),
        *,
        loss_title: str = "Loss",
        score_title: str = "IoU on held-out slices",
        empty_text: str = "Curves appear once training starts.",
        empty_scores_text: str = "Scores appear after the first look at held-out slices.",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._losses = CurvesPanel(loss_title, _coloured(losses), empty_text=empty_text, smoothed=True)
        self._scores = CurvesPanel(score_title, scores, empty_text=empty_scores_text, value_range=(0, 1))
        self._scores.follow_range_of(self._losses)
        self._abscissa = QComboBox()
        self._abscissa.addItems(["steps", "seconds"])
        self._abscissa.setAccessibleName("Horizontal axis")
        self._abscissa.setToolTip("What runs along the horizontal axis")
        self._abscissa_row = QWidget()
        row = QHBoxLayout(self._abscissa_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addStretch()
        row.addWidget(QLabel("over"))
        row.addWidget(self._abscissa)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self._losses, self._scores):
            layout.addWidget(widget)
            widget.hovered.connect(self._on_hovered)
        layout.addWidget(self._abscissa_row, alignment=Qt.AlignmentFlag.AlignRight)
        self._abscissa.currentTextChanged.connect(self._on_abscissa_changed)
        guard_wheel(self)
        self.refresh()

    @property
    def losses(self) -> CurvesPanel:
        """The upper panel."""
        return self._losses

    @property
    def scores(self) -> CurvesPanel:
        """The lower panel."""
        return self._scores

    def set_score_styles(self, styles: Sequence[CurveStyle]) -> None:
        """Names and colours of the scores, for example of the classes; scores that stay keep their points."""
        self._scores.set_styles(styles)
        self.refresh()

    def add_losses(self, point: CurvePoint) -> None:
        """Losses of a step; drawn by the next `refresh`."""
        self._losses.add(point)

    def add_scores(self, point: CurvePoint, *, is_best: bool = False) -> None:
        """Scores at a step, `is_best` where these are the weights to keep; drawn by the next `refresh`."""
        self._scores.add(point)
        if is_best:
            self._scores.mark_best(point)

    def set_curves(self, losses: Iterable[CurvePoint], scores: Iterable[CurvePoint]) -> None:
        """Draw a whole history, such as that of a loaded model, in place of what was there."""
        self.clear()
        for point in losses:
            self.add_losses(point)
        for point in scores:
            self.add_scores(point)
        self.refresh()

    def clear(self) -> None:
        """Forget all points; drawn by the next `refresh`."""
        self._losses.clear()
        self._scores.clear()

    def refresh(self) -> None:
        """Draw what arrived since the last time."""
        self._losses.refresh()
        self._scores.refresh()
        is_empty = self._losses.is_empty and self._scores.is_empty
        self._scores.setHidden(is_empty)
        self._abscissa_row.setHidden(is_empty)

    def set_colours(self, colours: ThemeColours) -> None:
        """Follow the viewer's theme."""
        for panel in (self._losses, self._scores):
            panel.set_colours(colours)

    def _on_abscissa_changed(self, text: str) -> None:
        for panel in (self._losses, self._scores):
            panel.set_abscissa(cast(Abscissa, text))
            panel.show_hover(None)
        self.refresh()

    def _on_hovered(self, position: float | None) -> None:
        for panel in (self._losses, self._scores):
            panel.show_hover(position)


def _coloured(losses: Sequence[CurveStyle]) -> list[CurveStyle]:
    """Losses with colours of their own; the first has that of the theme."""
    if not losses:
        return []
    first, *others = losses
    spare = itertools.cycle(_SECOND_LOSSES)
    return [first, *(style if style.colour else style._replace(colour=next(spare)) for style in others)]
