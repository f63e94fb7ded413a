from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.schedule import Replay, Schedule


def factors(schedule: Schedule) -> list[float]:
    found = []
    while not schedule.is_done:
        found.append(schedule.factor)
        schedule.advance()
    return found


def test_trapezoid_over_a_budget_of_steps() -> None:
    schedule = Schedule(0.2, 0.5, steps=10)
    # progress .0 .1 .2 ...; rises over the first two steps, falls over the last five
    assert factors(schedule) == pytest.approx([0.005, 0.505, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert schedule.step == 10
    assert schedule.progress == pytest.approx(1)


def test_without_warm_up_and_decay_the_rate_is_constant() -> None:
    assert factors(Schedule(0, 0, steps=4)) == [1, 1, 1, 1]


@given(st.integers(1, 5000), st.floats(0, 0.5), st.floats(0, 1))
def test_a_budget_of_steps_takes_exactly_these_steps(steps: int, warmup: float, decay: float) -> None:
    found = factors(Schedule(warmup, decay, steps=steps))
    assert len(found) == steps
    assert all(0 <= factor <= 1 for factor in found)
    assert found[0] > 0


def test_budget_of_seconds_ends_with_the_time() -> None:
    schedule = Schedule(0.1, 0.5, by_clock=True)
    now = 0.0
    while not schedule.is_done:
        schedule.advance()
        now += 0.25
        schedule.plan(now, 20.0, 0.25)
    assert now == pytest.approx(20.0, abs=0.5)
    assert schedule.progress == pytest.approx(1)


def test_slow_first_step_uses_up_little_of_a_budget_of_seconds() -> None:
    schedule = Schedule(0.1, 0.5, by_clock=True)
    schedule.advance()
    schedule.plan(3.0, 60.0, 3.0)  # as if only 19 steps were left
    schedule.advance()
    schedule.plan(3.1, 60.0, 0.1)
    assert schedule.steps_left == pytest.approx(569)
    assert schedule.progress < 0.06


def test_plans_once_a_second_after_the_first_steps() -> None:
    schedule = Schedule(0.1, 0.5, by_clock=True)
    for step in range(1, 51):
        schedule.advance()
        schedule.plan(0.1 * step, 100.0, 0.1 + 0.001 * step)
    # ten steps in the first second, and one plan in each of the four others
    assert len(schedule.knots) == 1 + 10 + 4


def test_open_end_stays_on_the_plateau_until_it_cools_down() -> None:
    schedule = Schedule(0.1, 0.4)
    for _ in range(400):
        schedule.advance()
    assert schedule.has_open_end
    assert schedule.factor == 1
    assert schedule.steps_left is None
    assert not schedule.is_done
    schedule.cool_down()
    assert schedule.is_cooling
    assert not schedule.has_open_end
    found = factors(schedule)
    assert len(found) == 100  # a quarter of 400
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1)
    assert found[-1] == pytest.approx(0.01)


def test_open_end_without_decay_can_be_ended_too() -> None:
    schedule = Schedule(0.1, 0.0)
    schedule.advance()
    schedule.cool_down()
    assert len(factors(schedule)) == 20


def test_cool_down_does_nothing_to_a_budget() -> None:
    schedule = Schedule(0.1, 0.5, steps=10)
    before = list(schedule.knots)
    schedule.cool_down()
    assert schedule.knots == before
    assert not schedule.is_cooling


def test_extending_raises_the_rate_again() -> None:
    schedule = Schedule(0.1, 0.5, steps=10)
    factors(schedule)
    assert schedule.factor == 0
    schedule.extend(steps=7)
    assert not schedule.is_done
    found = factors(schedule)
    assert len(found) == 7
    assert found[0] == 1


def test_extending_by_the_clock_ends_with_the_time() -> None:
    schedule = Schedule(0.1, 0.5, steps=10)
    factors(schedule)
    schedule.extend(by_clock=True)
    now = 0.0
    while not schedule.is_done:
        schedule.advance()
        now += 0.5
        schedule.plan(now, 10.0, 0.5)
    assert now == pytest.approx(10.0, abs=0.6)


def test_replay_repeats_the_rates_and_ends_with_the_last_recorded_step() -> None:
    recorded = Schedule(0.1, 0.5, by_clock=True)
    rates = []
    for step in range(1, 40):  # cut short by the clock, before progress is 1
        rates.append(recorded.factor)
        recorded.advance()
        recorded.plan(step * 0.3, 15.0, 0.3 + 0.01 * step)
    assert recorded.progress < 1
    again = Schedule(0.1, 0.5, by_clock=True, replay=Replay(recorded.knots, recorded.step))
    repeated = []
    while not again.is_done:
        repeated.append(again.factor)
        again.advance()
        again.plan(again.step * 7.0, 15.0, 7.0)  # the clock does not matter
    assert repeated == rates
    assert again.knots[: len(recorded.knots)] == recorded.knots[: len(again.knots)]


def test_replay_repeats_an_extension_before_the_first_step() -> None:
    recorded = Schedule(0.1, 0.5, steps=10)
    recorded.extend(steps=3)
    rates = factors(recorded)
    assert factors(Schedule(0.1, 0.5, replay=Replay(recorded.knots, recorded.step))) == rates


@pytest.mark.parametrize("kind", ["steps", "open", "cooling", "clock", "extended by the clock", "replay"])
def test_goes_on_from_its_state(kind: str) -> None:
    def make() -> Schedule:
        if kind == "steps":
            return Schedule(0.1, 0.5, steps=60)
        if kind in ("open", "cooling"):
            return Schedule(0.1, 0.5)
        if kind == "replay":
            return Schedule(0.1, 0.5, replay=Replay([(0, 0.0, 0.01), (20, 0.3, 0.02)], 50))
        return Schedule(0.1, 0.5, by_clock=True)

    schedule = make()
    for step in range(1, 13):
        schedule.advance()
        schedule.plan(step, 60.0, 1.0)
    if kind == "cooling":
        schedule.cool_down()
    if kind == "extended by the clock":
        schedule = Schedule(0.1, 0.5, steps=12)
        factors(schedule)
        schedule.extend(by_clock=True)
    restored = make() if kind != "extended by the clock" else Schedule(0.1, 0.5, steps=12)
    restored.restore(json.loads(json.dumps(schedule.to_state())))
    for step in range(13, 40):
        assert restored.factor == schedule.factor
        assert restored.is_done == schedule.is_done
        assert restored.steps_left == schedule.steps_left
        for each in (schedule, restored):
            each.advance()
            each.plan(step + 100, 160.0, 1.0)
    assert restored.knots[-1] == schedule.knots[-1]
    assert restored.is_cooling == schedule.is_cooling
