"""Small parts of a run: best model, plateau, bad steps, plan of validation, history."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from napari_unet3d.engine.bad_steps import BadSteps
from napari_unet3d.engine.best_model import BestModel
from napari_unet3d.engine.loss_plateau import LossPlateau
from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.progress import ClassScore, Note
from napari_unet3d.engine.run_history import RunHistory
from napari_unet3d.engine.validation_plan import ValidationPlan


def layer(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


# --- best model -------------------------------------------------------------------------------------------


def test_best_model_keeps_a_copy() -> None:
    best, module = BestModel(), layer(1.0)
    assert best.consider(3, 0.5, module)
    nn.init.constant_(module.weight, 9.0)  # type: ignore[arg-type]  # a tensor
    assert not best.consider(4, 0.4, module)
    assert best.weights is not None
    assert best.weights["weight"].item() == 1.0
    assert (best.step, best.stale) == (3, 1)


def test_scores_that_say_nothing_give_way() -> None:
    best = BestModel()
    kept = [best.consider(step, score, layer(step)) for step, score in enumerate([math.nan, math.nan, 0.0, math.nan])]
    assert kept == [True, True, True, False]
    assert (best.step, best.stale) == (2, 1)


def test_equal_scores_are_no_improvement() -> None:
    best = BestModel()
    assert [best.consider(step, 1.0, layer(step)) for step in range(3)] == [True] * 3
    assert (best.step, best.stale) == (2, 2)


def test_later_weights_are_kept_that_are_as_good_within_the_noise() -> None:
    best = BestModel()
    kept = [best.consider(step, score, layer(step)) for step, score in enumerate([0.80, 0.79, 0.785, 0.775])]
    assert kept == [True, True, True, False]  # .775 is compared with the highest, not with the last that was kept
    assert (best.step, best.stale) == (2, 3)
    assert best.weights is not None
    assert best.weights["weight"].item() == 2.0


@pytest.mark.parametrize("scores", [[], [math.nan], [0.3, 0.2]])
def test_best_model_goes_on(scores: list[float]) -> None:
    best = BestModel()
    for step, score in enumerate(scores):
        best.consider(step, score, layer(step))
    other = BestModel()
    other.restore(json.loads(json.dumps(best.to_state())), layer(0.0))
    assert (other.step, other.stale, other.weights is None) == (best.step, best.stale, best.weights is None)
    for each in (best, other):
        each.consider(10, 0.25, layer(5.0))
    assert other.step == best.step
    assert torch.equal(other.weights["weight"], best.weights["weight"])  # type: ignore[index]  # both have some


# --- plateau ----------------------------------------------------------------------------------------------


def test_plateau_counts_means_that_are_no_lower() -> None:
    plateau = LossPlateau()
    found = []
    for mean in (1.0, 0.9, 0.895, 0.9, 0.8):  # 0.895 is less than a percent below 0.9
        for wobble in range(50):
            plateau.add(mean + (-1) ** wobble * 0.3)
        plateau.add(math.nan)
        found.append(plateau.stale)
    assert found == [0, 0, 1, 2, 0]


def test_plateau_goes_on() -> None:
    whole, part = LossPlateau(), LossPlateau()
    for step in range(170):
        if step == 77:
            restored = LossPlateau()
            restored.restore(json.loads(json.dumps(part.to_state())))
            part = restored
        for each in (whole, part):
            each.add(1.0)
    assert part.to_state() == whole.to_state()
    assert part.stale == 2


# --- bad steps --------------------------------------------------------------------------------------------


def test_bad_steps_in_a_row_persist() -> None:
    bad = BadSteps()
    found = []
    for is_bad in (1, 1, 1, 1, 0, 1, 1, 1, 1, 1):
        bad.count(bool(is_bad))
        found.append(bad.persist)
    assert found == [False] * 9 + [True]
    bad.forgive()
    assert not bad.persist
    assert bad.total == 9


def test_bad_steps_are_told_once() -> None:
    bad = BadSteps()
    told = []
    for step in range(1, 601):
        bad.count(step % 50 == 0 or step > 580)
        if bad.worth_telling(step):
            told.append(step)
    # 11 of 580 are not much; 18 of 587 are more than 3 %, and from then on no word
    assert told == [587]


# --- plan -------------------------------------------------------------------------------------------------


def test_validations_of_a_budget_in_steps() -> None:
    plan = ValidationPlan(steps=200)
    assert [step for step in range(41) if plan.is_due(step, 0.0, 0.0)] == [10, 20, 30, 40]
    assert [step for step in range(13) if ValidationPlan(steps=12).is_due(step, 0.0, 0.0)] == [5, 10]
    plan.add(20, 1.0)
    assert not plan.is_due(20, 1.0, 0.0)


def test_validations_of_a_repeated_run() -> None:
    plan = ValidationPlan(steps=200, recorded=(3, 50))
    assert [step for step in range(60) if plan.is_due(step, 0.0, 0.0)] == [3, 50]


def test_validations_by_the_clock_take_a_small_share() -> None:
    plan = ValidationPlan()
    plan.begin(10.0)
    assert not plan.is_due(1, 10.5, 0.0)
    assert plan.is_due(2, 11.1, 0.0)
    plan.add(2, 12.0)
    assert not plan.is_due(3, 36.9, 2.0)  # 2 s of validation for 25 s of training
    assert plan.is_due(3, 37.1, 2.0)
    assert plan.step_cost(1.0, 2.0) == pytest.approx(1.08)
    assert plan.step_cost(1.0, 0.02) == pytest.approx(1.02)


# --- history ----------------------------------------------------------------------------------------------


def test_curve_has_a_point_every_half_second() -> None:
    history = RunHistory()
    for step in range(10):
        history.step(step, 0.2 * step, loss=float(step) if step != 3 else math.nan, learning_rate=0.1)
    points = history.history().steps
    assert [(point.step, point.loss) for point in points] == [(0, 0.0), (3, 1.5), (6, 5.0), (9, 8.0)]


def test_history_goes_on_and_repeats_no_note() -> None:
    history = RunHistory()
    assert history.note("a", "warning") == Note("a", "warning")
    scores = [ClassScore(1, 0.5, 0.6, 0.7, 0.8), ClassScore(2, math.nan, math.nan, math.nan, math.nan)]
    history.validation(4, 2.0, scores, math.nan)
    again = RunHistory(history.history())
    again.note("a")
    again.note("b")
    found = again.history()
    assert found.notes == ("a", "b")
    (validation,) = found.validations
    assert (validation.iou, validation.dice, validation.mean_iou) == ((0.5, None), (0.6, None), None)


# --- memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
