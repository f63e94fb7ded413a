"""Events as text: live bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from napari_unet3d.engine.progress import (
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

_LINE_EVERY: Final = 5.0  # seconds
_LOG_WIDTH: Final = 140


def make_console() -> Console:
    """Standard output; wide enough for tables where it is no terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, markup=False, emoji=False, width=max(console.width, _LOG_WIDTH))
    )


def make_reporter(console: Console) -> Reporter:
    """Bars on a terminal, lines elsewhere."""
    return BarReporter(console) if console.is_terminal else LineReporter(console)


# --- phrases ----------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """``48 s``, ``2 min 05 s`` or ``1 h 03 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_left(seconds: float | None) -> str:
    """The estimate, or that there is none."""
    return "until it stops improving" if seconds is None else f"{duration(seconds)} left"


def number(value: float) -> str:
    """Three decimals; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def losses(event: Stepped) -> str:
    """The loss; of a distillation its soft and hard terms besides."""
    both = [f"{name} {number(event.loss_terms[name])}" for name in ("soft", "hard") if name in event.loss_terms]
    return f"loss {number(event.loss)}" + (f" ({', '.join(both)})" if both else "")


def scores(event: Validated) -> str:
    """IoU of each class and of the structures, and agreement with a teacher."""
    classes = ", ".join(f"class {score.class_id} {number(score.iou)}" for score in event.scores)
    parts = []
    if event.agreement is not None:
        parts.append(f"agreement with the teacher {number(event.agreement)}")
    if event.agreement is None or not math.isnan(event.mean_iou):
        parts.append(f"IoU on held-out slices: {classes}; mean of structures {number(event.mean_iou)}")
    best = ", best so far" if event.is_best else ""
    return "; ".join(parts) + best


# --- reporters --------------------------------------------------------------------------------------------


class Reporter(AbstractContextManager["Reporter"]):
    """Shows events; remembers the best validation and the last step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.best: Validated | None = None
        self.steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Stepped):
            self.steps = event.step
            self.stepped(event)
        elif isinstance(event, Validated):
            self.best = event if event.is_best else self.best
            self.validated(event)
        elif isinstance(event, Predicted):
            self.predicted(event)
        elif isinstance(event, Preparing):
            self.preparing(event)
        elif isinstance(event, Saved):
            self.saved(event)
        elif isinstance(event, Started):
            shared = f", processes: {event.processes}" if event.processes > 1 else ""
            self.say(
                f"device: {event.device} ({event.device_reason}), precision: {event.precision}, "
                f"CPU threads: {event.threads}{shared}"
            )
        elif isinstance(event, Note):
            self.say(f"{'warning: ' if event.level == 'warning' else ''}{event.text}")
        elif isinstance(event, Finished):
            self.finished(event)

    def say(self, text: str) -> None:
        """Print one line, never broken."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def finished(self, event: Finished) -> None:
        """The end of the work."""
        self.close()
        steps = f", {event.step} steps" if self.steps else ""
        reason = "" if event.reason == "done" else f": {event.reason}"
        self.say(f"finished after {duration(event.seconds)}{steps}{reason}")
        if event.stages:
            parts = [f"{name} {seconds:.1f} s" for name, seconds in event.stages.items()]
            other = max(0.0, event.seconds - sum(event.stages.values()))
            self.say(f"time: {', '.join(parts)}, other {other:.1f} s")

    def preparing(self, event: Preparing) -> None:
        """Progress before the first step."""
        raise NotImplementedError

    def stepped(self, event: Stepped) -> None:
        """One training step."""
        raise NotImplementedError

    def validated(self, event: Validated) -> None:
        """Scores."""
        raise NotImplementedError

    def predicted(self, event: Predicted) -> None:
        """One tile."""
        raise NotImplementedError

    def saved(self, event: Saved) -> None:
        """The model file was rewritten."""
        raise NotImplementedError

    def close(self) -> None:
        """End all live display."""


class LineReporter(Reporter):
    """Plain lines: one for each validation and each saved file, else one every few seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console)
        self._clock = clock
        self._last_line = -math.inf
        self._step: Stepped | None = None

    def preparing(self, event: Preparing) -> None:
        if self._is_due() or event.fraction >= 1:
            self._line(f"{event.stage}: {event.fraction:.0%}")

    def stepped(self, event: Stepped) -> None:
        self._step = event
        if self._is_due() or event.step == 1:
            self._line(self._progress())

    def validated(self, event: Validated) -> None:
        self._line(f"{self._progress()}; {scores(event)}")

    def predicted(self, event: Predicted) -> None:
        if self._is_due() or event.done == event.total:
            left = "" if event.seconds_left is None else f", {time_left(event.seconds_left)}"
            self._line(f"predicted {event.done} of {event.total} tiles{left}")

    def saved(self, event: Saved) -> None:
        self._line(f"saved step {event.step} in {event.path}")

    def _progress(self) -> str:
        step = self._step
        if step is None:
            return "before the first step"
        time = f"{duration(step.seconds)}, {time_left(step.seconds_left)}"
        return f"step {step.step}, {time}: {losses(step)}"

    def _is_due(self) -> bool:
        return self._clock() - self._last_line >= _LINE_EVERY

    def _line(self, text: str) -> None:
        self._last_line = self._clock()
        self.say(text)


class BarReporter(Reporter):
    """A live bar with step, loss, IoU and time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._iou = ""

    def preparing(self, event: Preparing) -> None:
        self._update(event.stage, event.fraction, 1.0, "")

    def stepped(self, event: Stepped) -> None:
        left = event.seconds_left
        total = None if left is None else event.seconds + left
        detail = f"step {event.step}  {losses(event)}{self._iou}  {time_left(left)}"
        self._update("training", event.seconds, total, detail)

    def validated(self, event: Validated) -> None:
        each = " ".join(f"{score.class_id}: {number(score.iou)}" for score in event.scores)
        agreement = "" if event.agreement is None else f"  agreement {number(event.agreement)}"
        self._iou = agreement if math.isnan(event.mean_iou) and agreement else f"{agreement}  IoU {each}"

    def predicted(self, event: Predicted) -> None:
        left = "" if event.seconds_left is None else time_left(event.seconds_left)
        self._update("predicting", event.done, event.total, f"{event.done}/{event.total} tiles  {left}")

    def saved(self, event: Saved) -> None:
        """Nothing: the bar goes on, and the end says where the file is."""

    def close(self) -> None:
        self._bar.stop()

    def _update(self, name: str, completed: float, total: float | None, detail: str) -> None:
        if name not in self._tasks:
            for task in self._tasks.values():
                self._bar.update(task, visible=False)
            self._tasks[name] = self._bar.add_task(name, total=total, detail=detail)
            self._bar.start()
        self._bar.update(self._tasks[name], completed=completed, total=total, detail=detail)
