"""Events as lines and as bars."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from napari_unet3d.cli.progress import BarReporter, LineReporter, duration, make_reporter
from napari_unet3d.engine.progress import (
    ClassScore,
    Event,
    Finished,
    Note,
    Predicted,
    Preparing,
    Saved,
    Started,
    Stepped,
    Validated,
)

WHOLE = (slice(0, 1), slice(0, 1), slice(0, 1))
SCORES = (ClassScore(1, 0.9, 0.9, 0.9, 0.9), ClassScore(4, math.nan, math.nan, math.nan, math.nan))


def stepped(step: int, left: float | None = 48.0) -> Stepped:
    return Stepped(step, 0.25, 1e-3, seconds=12.0, seconds_left=left)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Clock:
    """Stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(*events: tuple[float, Event]) -> list[str]:
    clock, text = Clock(), io.StringIO()
    with LineReporter(Console(file=text, width=20), clock) as reporter:
        for now, event in events:
            clock.now = now
            reporter.show(event)
    return text.getvalue().splitlines()


def test_lines_come_every_few_seconds_and_at_validations() -> None:
    assert lines_of(
        (0, stepped(1)),
        (1, stepped(2)),
        (5, stepped(3, left=None)),
        (6, stepped(4)),
        (6, Validated(4, 12.0, SCORES, 0.9, is_best=True)),
        (7, stepped(5)),
        (8, Saved(Path("m.safetensors"), 5)),
    ) == [
        "step 1, 12 s, 48 s left: loss 0.250",
        "step 3, 12 s, until it stops improving: loss 0.250",
        "step 4, 12 s, 48 s left: loss 0.250; IoU on held-out slices: class 1 0.900, class 4 -; "
        "mean of structures 0.900, best so far",
        "saved step 5 in m.safetensors",
    ]


def test_lines_of_a_prediction_end_with_the_last_tile() -> None:
    assert lines_of(
        (0, Started("cpu", "as asked for", "float32", 2)),
        (0, Preparing("features", 0.25)),
        (0, Predicted(1, 3, None, WHOLE)),
        (1, Predicted(2, 3, 9.0, WHOLE)),
        (2, Note("[red]brackets are no markup[/red]", "warning")),
        (3, Predicted(3, 3, 0.0, WHOLE)),
        (3, Finished("done", 3, 3.0)),
    ) == [
        "device: cpu (as asked for), precision: float32, CPU threads: 2",
        "features: 25%",
        "warning: [red]brackets are no markup[/red]",
        "predicted 3 of 3 tiles, 0 s left",
        "finished after 3 s",
    ]


def test_the_best_validation_is_remembered() -> None:
    reporter = LineReporter(Console(file=io.StringIO()))
    best = Validated(1, 1.0, SCORES, 0.9, is_best=True)
    for event in (best, Validated(2, 2.0, SCORES, 0.8, is_best=False)):
        reporter.show(event)
    assert reporter.best is best


def test_bars_on_a_terminal_only() -> None:
    assert isinstance(make_reporter(Console(file=io.StringIO(), force_terminal=True)), BarReporter)
    assert isinstance(make_reporter(Console(file=io.StringIO(), force_terminal=False)), LineReporter)


def test_bar_shows_step_loss_score_and_time_left() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=140, color_system=None)
    with BarReporter(console) as reporter:
        reporter.show(Preparing("features", 0.5))
        reporter.show(Validated(1, 1.0, SCORES, 0.9, is_best=True))
        reporter.show(stepped(2))
        reporter.show(Saved(Path("m"), 2))
        reporter.show(stepped(3, left=None))
        reporter.show(Predicted(1, 4, None, WHOLE))
        reporter.show(Finished("the budget is used up", 3, 60.0))
    shown = text.getvalue()
    assert "predicting" in shown
    assert "1/4 tiles" in shown
    assert "finished after 1 min 00 s, 3 steps: the budget is used up" in shown


def test_bar_of_training() -> None:
    text = io.StringIO()
    with BarReporter(Console(file=text, force_terminal=True, width=140, color_system=None)) as reporter:
        reporter.show(Validated(1, 1.0, SCORES, 0.9, is_best=True))
        reporter.show(stepped(2))
    assert "step 2  loss 0.250  IoU 1: 0.900 4: -  48 s left" in text.getvalue()
