"""Where the time goes is measured, and told at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from napari_unet3d.engine.progress import Finished
from napari_unet3d.engine.stage_times import STAGES, StageTimes


def test_stages_add_up_even_where_they_fail(make_clock: Callable[..., Any]) -> None:
    clock = make_clock()
    times = StageTimes(clock)
    for seconds in (1.0, 2.5):
        with times.measure("data"):
            clock.now += seconds
    with suppress(MemoryError), times.measure("forward"):
        clock.now += 4
        raise MemoryError
    assert times.seconds == {"data": 3.5, "augmentation": 0, "forward": 4, "backward": 0, "validation": 0}


def test_a_run_tells_where_its_time_went(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(steps=2)
    finished = list(trainer.fit())[-1]
    assert isinstance(finished, Finished)
    assert tuple(finished.stages) == STAGES
    assert all(seconds > 0 for seconds in finished.stages.values())
    assert sum(finished.stages.values()) < finished.seconds
    assert trainer.model().recipe.record.stage_seconds == finished.stages


def test_a_resumed_run_goes_on_counting(make_trainer: Callable[..., Any]) -> None:
    first = make_trainer(steps=2)
    list(first.fit())
    before = first.model(with_state=True)
    resumed = make_trainer(steps=3, resume=before)
    (*_, finished) = resumed.fit()
    assert finished.stages["forward"] > before.recipe.record.stage_seconds["forward"]
