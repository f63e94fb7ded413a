from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_unet3d.engine.config import TrainConfig, UNetConfig
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.losses import build_loss
from napari_unet3d.engine.moving_average import MovingAverage
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.outputs import NetworkOutputs
from napari_unet3d.engine.training_data import Batch

CPU = torch.device("cpu")


def make_learner(precision: Any = "float32", **settings: Any) -> Learner:
    torch.manual_seed(0)
    network = build_network(UNetConfig(levels=2, filters=4, dropout=0.2))
    config = TrainConfig(**settings)
    return Learner(network, config, build_loss(config, None), CPU, precision)


def make_batch() -> Batch:
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(-1, 2, (1, 4, 8, 8)))
    return Batch(torch.from_numpy(rng.normal(size=(1, 1, 4, 8, 8)).astype(np.float32)), target)


def snapshot(learner: Learner) -> dict[str, Tensor]:
    return learner.to_state()[0]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_step_changes_weights_statistics_moments_and_average() -> None:
    learner = make_learner()
    before = snapshot(learner)
    outcome = learner.learn(make_batch(), 1e-2, seed=0)
    after = snapshot(learner)
    assert not outcome.is_bad
    assert outcome.loss == pytest.approx(outcome.terms["cross_entropy"] + outcome.terms["dice"])
    assert any(name.startswith("optimizer.") for name in after)
    assert not any(torch.equal(before[k], after[k]) for k in before if k.endswith(("weight", "running_mean")))
    assert all(
        torch.equal(after[k], after[k.replace("average.", "weights.")]) for k in after if k.startswith("average")
    )


def test_loss_that_is_not_finite_leaves_no_trace() -> None:
    learner = make_learner()
    learner.learn(make_batch(), 1e-2, seed=0)
    before = snapshot(learner)
    batch = make_batch()
    outcome = learner.learn(batch._replace(input=batch.input * math.inf), 1e-2, seed=1)
    assert outcome.is_bad
    assert math.isnan(outcome.loss)
    assert equal(before, snapshot(learner))


def test_gradient_that_is_not_finite_leaves_no_trace() -> None:
    learner = make_learner()
    learner.learn(make_batch(), 1e-2, seed=0)
    before = snapshot(learner)
    weight = next(learner._network.body.parameters())
    handle = weight.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]  # torch's
    outcome = learner.learn(make_batch(), 1e-2, seed=1)
    assert outcome.is_bad
    assert math.isfinite(outcome.loss)
    assert equal(before, snapshot(learner))
    handle.remove()
    assert not learner.learn(make_batch(), 1e-2, seed=1).is_bad


def test_an_error_in_the_middle_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner()
    before = snapshot(learner)

    def fail(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_update", fail)
        with pytest.raises(MemoryError):
            learner.learn(make_batch(), 1e-2, seed=0)
    assert equal(before, snapshot(learner))


def test_dropout_follows_from_the_seed_alone() -> None:
    losses = []
    for seed in (1, 1, 2):
        torch.rand(seed + 3)
        losses.append(make_learner().learn(make_batch(), 1e-2, seed=seed).loss)
    assert losses[0] == losses[1] != losses[2]


def test_falling_back_begins_with_the_averaged_weights() -> None:
    learner = make_learner("bfloat16")
    for seed in range(3):
        learner.learn(make_batch(), 1e-2, seed=seed)
    learner.fall_back()
    after = snapshot(learner)
    assert learner.precision == "float32"
    assert all(
        torch.equal(after[k], after[k.replace("average.", "weights.")]) for k in after if k.startswith("average")
    )
    assert not any(name.startswith("optimizer.") for name in after)  # moments may not be finite either
    assert not learner.learn(make_batch(), 1e-2, seed=4).is_bad


def test_float32_takes_features_that_are_kept_in_bfloat16() -> None:
    batch = make_batch()
    rounded = batch._replace(input=batch.input.bfloat16())
    same = batch._replace(input=batch.input.bfloat16().float())
    assert make_learner().learn(rounded, 1e-2, seed=0).loss == make_learner().learn(same, 1e-2, seed=0).loss


def test_unannotated_voxels_change_neither_loss_nor_gradient() -> None:
    """Through a whole step: the weights after it are the same to the bit."""
    results = []
    for noise in (0.0, 1e4, math.nan):
        learner = make_learner()
        batch = make_batch()
        outputs = learner._outputs

        def disturbed(
            values: Tensor, target: Tensor = batch.target, noise: float = noise, outputs: Any = outputs
        ) -> NetworkOutputs:
            ((logits,), _) = outputs(values)
            return NetworkOutputs([torch.where((target < 0)[:, None], torch.full_like(logits, noise), logits)])

        learner._outputs = disturbed  # type: ignore[method-assign]
        outcome = learner.learn(batch, 1e-2, seed=0)
        results.append((outcome.loss, snapshot(learner)))
    (loss, weights), *others = results
    for other_loss, other_weights in others:
        assert other_loss == loss
        assert equal(other_weights, weights)


def test_patch_without_annotation_has_no_loss() -> None:
    batch = make_batch()
    outcome = make_learner().learn(batch._replace(target=torch.full_like(batch.target, -1)), 1e-2, seed=0)
    assert outcome.loss == 0
    assert not outcome.is_bad


def test_moving_average_by_hand() -> None:
    network = build_network(UNetConfig(levels=2, filters=4))
    average = MovingAverage(network, decay=0.5)
    first = next(network.body.parameters())
    mine = next(average.network.body.parameters())
    found = []
    with torch.no_grad():
        for value in (1.0, 2.0, 3.0):
            first.fill_(value)
            average.update(network)
            found.append(float(mine.flatten()[0]))
    # copied; weight of the past 2 / 11, then 3 / 12
    expected = 2 / 11 * 1 + 9 / 11 * 2
    assert found == pytest.approx([1, expected, 3 / 12 * expected + 9 / 12 * 3])
    assert average.count == 3
    assert not average.network.training
    assert not mine.requires_grad


def test_moving_average_forgets_no_faster_than_its_decay() -> None:
    network = build_network(UNetConfig(levels=2, filters=4))
    average = MovingAverage(network, decay=0.2)
    average.count = 1000
    before = next(average.network.body.parameters()).clone()
    with torch.no_grad():
        first = next(network.body.parameters())
        first.zero_()
        average.update(network)
    torch.testing.assert_close(next(average.network.body.parameters()), 0.2 * before)


# --- float16 ----------------------------------------------------------------------------------------------


def test_float16_scales_its_gradients_and_looks_for_the_scale() -> None:
    """A scale that is too large overflows: such steps are skipped without a warning until it fits."""
    learner = make_learner("float16")
    learner._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = snapshot(learner)
    outcome = learner.learn(make_batch(), 1e-2, seed=0)
    assert not outcome.is_bad
    assert learner._scaler.get_scale() == 2.0**39
    after = snapshot(learner)
    assert torch.equal(before["weights.head.weight"], after["weights.head.weight"])
    learner._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    assert not learner.learn(make_batch(), 1e-2, seed=1).is_bad
    assert not torch.equal(after["weights.head.weight"], snapshot(learner)["weights.head.weight"])


def test_scaled_gradients_teach_what_plain_ones_do() -> None:
    scaled, plain = make_learner("float16", optimizer="sgd"), make_learner("float16", optimizer="sgd")
    scaled._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plain._scaler = torch.amp.GradScaler("cpu", enabled=False)
    for learner in (scaled, plain):
        learner.learn(make_batch(), 1e-1, seed=0)
    for name, value in snapshot(plain).items():
        if name.startswith("weights."):
            torch.testing.assert_close(snapshot(scaled)[name], value, atol=2e-4, rtol=1e-2)


def test_the_scale_goes_on_where_it_stood() -> None:
    learner = make_learner("float16")
    learner._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**7)
    learner.learn(make_batch(), 1e-2, seed=0)
    other = make_learner("float16")
    other.restore(*learner.to_state())
    assert other._scaler.get_scale() == 2.0**7
