from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from napari_unet3d.engine.time_budget import TimeBudget

Make = Callable[..., Any]


def test_counts_from_the_given_start(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock, 60.0, started_at=clock.now - 5)
    clock.now += 2
    budget.start()
    assert budget.seconds == 7
    assert budget.seconds_left == 53


def test_without_start_nothing_is_used(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock)
    clock.now += 9
    assert budget.seconds == 0
    budget.start(already_used=4.0)
    clock.now += 1
    assert budget.seconds == 5
    assert budget.end is None
    assert budget.seconds_left is None
    assert not budget.is_used_up


def test_pauses_count_neither_for_the_run_nor_for_the_step(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock, 60.0)
    budget.start()
    budget.begin_steps()
    clock.now += 1
    with budget.pause():
        clock.now += 500
    clock.now += 1
    budget.end_step()
    assert budget.seconds == 2
    assert budget.step_seconds == 2


def test_validation_is_no_part_of_a_step(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock, 60.0)
    budget.start()
    budget.begin_steps()
    clock.now += 1
    with budget.validation():
        clock.now += 7
    clock.now += 1
    budget.end_step()
    assert budget.step_seconds == 2
    assert budget.validation_seconds == 7
    assert budget.seconds == 9


def test_slow_first_step_is_forgotten(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock)
    budget.start()
    budget.begin_steps()
    found = []
    for duration in (9.0, 1.0, 2.0, 3.0):
        clock.now += duration
        budget.end_step()
        found.append(budget.step_seconds)
    assert found == pytest.approx([9, 1, 1.5, 2])  # the mean of all but the first


def test_end_leaves_time_for_validation_and_saving(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock, 100.0)
    budget.start()
    assert budget.end == 100 - 0.5 - 1
    with budget.validation():
        clock.now += 3
    budget.outside(2.0)
    budget.outside(1.0)
    assert budget.end == 100 - 0.5 - 1 - 3 - 2
    budget.outside(1000.0)  # a notebook cell that dozed off takes a tenth at most
    assert budget.end == 100 - 0.5 - 1 - 3 - 10


def test_used_up_where_another_step_would_end_too_late(make_clock: Make) -> None:
    clock = make_clock()
    budget = TimeBudget(clock, 20.0)
    budget.start()
    budget.begin_steps()
    clock.now += 4
    budget.end_step()
    clock.now += 11.2  # 15.2 + 4 < 20 - 0.7
    assert not budget.is_used_up
    clock.now += 0.2
    assert budget.is_used_up
    budget.extend(10.0)
    assert budget.until == pytest.approx(25.4)
    assert not budget.is_used_up
    budget.extend(None)
    assert budget.until is None
