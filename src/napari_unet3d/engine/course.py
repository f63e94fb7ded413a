"""The course of a training run: how far it is, at what rate it learns, when it validates and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn

from napari_unet3d.engine.best_model import BestModel
from napari_unet3d.engine.config import RunRecord, TrainConfig
from napari_unet3d.engine.loss_plateau import LossPlateau
from napari_unet3d.engine.schedule import Replay, Schedule
from napari_unet3d.engine.time_budget import TimeBudget
from napari_unet3d.engine.validation_plan import ValidationPlan

_PATIENCE: Final = 10  # looks without improvement that end a run without another budget


class Course:
    """Keeps time, schedule, plan of validations, best model and plateau of the loss together.

    Parameters
    ----------
    config
        Budget, patience, rate.
    record
        A recorded run to repeat, instead of the budget.
    clock
        Gives the time in seconds.
    started_at
        Moment from which a budget of seconds counts; None: that of the call of `start`.
    """

    def __init__(
        self, config: TrainConfig, record: RunRecord | None, clock: Callable[[], float], started_at: float | None
    ) -> None:
        self._config = config
        self.time = TimeBudget(clock, None if record else config.seconds, started_at)
        self.schedule = Schedule(
            config.warmup,
            config.decay,
            steps=config.steps,
            by_clock=config.seconds is not None,
            replay=Replay(record.schedule, record.steps) if record else None,
        )
        self.validations = ValidationPlan(config.steps, record.validated_steps if record else None)
        self.best = BestModel()
        self.has_validation = False
        """Whether there is anything to measure on; new annotation may change that."""
        self.stop_reason = ""
        """Why the run shall end after the present step; empty while it shall not."""
        self._plateau = LossPlateau()

    @property
    def step(self) -> int:
        """Steps taken so far, those of a resumed run included."""
        return self.schedule.step

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self._config.learning_rate * self.schedule.factor

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None where the end is open."""
        if self.time.until is not None and not self.schedule.has_open_end:
            return self.time.seconds_left
        steps = self.schedule.steps_left
        return None if steps is None else steps * self.time.step_seconds

    # --- what happens -------------------------------------------------------------------------------------

    def begin_steps(self) -> None:
        """The first step begins now."""
        self.validations.begin(self.time.seconds)
        self.time.begin_steps()

    def end_step(self, loss: float) -> None:
        """A step was taken: plan those that are left anew."""
        self.schedule.advance()
        self.time.end_step()
        self._plateau.add(loss)
        end = self.time.end
        if end is not None:
            step_seconds = self.time.step_seconds
            if self.has_validation:
                step_seconds = self.validations.step_cost(step_seconds, self.time.validation_seconds)
            self.schedule.plan(self.time.seconds, end, step_seconds)

    def extend(self, *, seconds: float | None, steps: int | None) -> None:
        """Raise the learning rate again, for so long from now on; without either the end is open."""
        self.time.extend(seconds)
        self._go_back_to_plateau(steps, by_clock=seconds is not None)

    def stop(self, reason: str) -> None:
        """End after the present step."""
        self.stop_reason = reason

    def notice_standstill(self) -> None:
        """End the run, or let an open one cool down, where nothing improves any more."""
        if self.schedule.is_cooling or self.schedule.is_replay:
            return
        patience = self._config.patience
        stale = self.best.stale if self.has_validation else self._plateau.stale
        if self.schedule.has_open_end and stale >= (patience or _PATIENCE):
            self.schedule.cool_down()
        elif patience and self.has_validation and stale >= patience:
            self.stop_reason = self.stop_reason or f"no improvement in {patience} validations"

    # --- what is due --------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether no further step shall be taken."""
        if self.stop_reason or self.schedule.is_done:
            return True
        return self.time.is_used_up and self.step > 0

    def validation_is_due(self, is_over: bool) -> bool:
        """Now and then and at the end; not where the owner waits for the end, nor where a repeated run had none."""
        if not self.has_validation or self.stop_reason:
            return False
        if is_over and not self.schedule.is_replay:
            return self.step > 0 and not self.validations.is_done(self.step)
        return self.validations.is_due(self.step, self.time.seconds, self.time.validation_seconds)

    @property
    def end_reason(self) -> str:
        """Why the run that is over ended."""
        return self.stop_reason or ("it stopped improving" if self.schedule.is_cooling else "the budget is used up")

    # --- keeping ------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Plain values from which `restore` goes on."""
        return {
            "schedule": self.schedule.to_state(),
            "seconds": self.time.seconds,
            "until": self.time.until,
            "best": self.best.to_state(),
            "plateau": self._plateau.to_state(),
            "validated": self.validations.done,
            "recorded_validations": self.validations.recorded,
        }

    def restore(self, values: Mapping[str, Any], best: nn.Module, before: TrainConfig) -> None:
        """Go on where another course stood, with the present budget if that differs from the one `before`.

        Parameters
        ----------
        values
            As `to_state` gives them.
        best
            The network with the best weights so far.
        before
            The training that left them.
        """
        self.schedule.restore(values["schedule"])
        self.best.restore(values["best"], best)
        self._plateau.restore(values["plateau"])
        self.validations.restore(values["validated"], values["recorded_validations"])
        now = self._config
        if (now.seconds, now.steps) == (before.seconds, before.steps):
            self.time.until = values["until"]
        elif now.steps is None or now.steps > self.step:
            self.time.until = now.seconds
            self._go_back_to_plateau(now.steps and now.steps - self.step, by_clock=now.seconds is not None)
        else:
            self.stop(f"{self.step} of {now.steps} steps were taken before")

    def _go_back_to_plateau(self, steps: int | None, *, by_clock: bool) -> None:
        self.schedule.extend(steps=steps, by_clock=by_clock)
        self.best.stale = self._plateau.stale = 0
