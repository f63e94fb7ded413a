"""What each term of a step can and cannot see."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from napari_unet3d.engine.config import DistillConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.distillation.learner import DistillationLearner
from napari_unet3d.engine.distillation.scores import score_channels
from napari_unet3d.engine.losses import build_loss
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.training_data import Batch
from napari_unet3d.engine.volume import IGNORE_INDEX

SINGLE_VOXELS = UNetConfig(levels=1, filters=4, kernel=1, norm="none", activation="silu", classes=3)
"""A network in which no voxel sees another one."""


@pytest.fixture
def make_learner() -> Callable[..., DistillationLearner]:
    def make(network: UNetConfig = SINGLE_VOXELS, **distill: Any) -> DistillationLearner:
        torch.manual_seed(0)
        config, built = TrainConfig(device="cpu"), build_network(network)
        strides = [grid.stride for grid in built.description.output_grids]
        loss = build_loss(config, None, strides, network.head)
        settings = DistillConfig.model_validate(distill)
        return DistillationLearner(built, config, loss, torch.device("cpu"), "float32", settings)

    return make


def make_batch(network: UNetConfig = SINGLE_VOXELS, *, hint: bool = False) -> Batch:
    """Two patches of 4 x 8 x 8 with one annotated plane each."""
    generator = torch.Generator().manual_seed(1)
    target = torch.full((2, 4, 8, 8), IGNORE_INDEX)
    target[:, 1] = torch.randint(network.label_count, (2, 8, 8), generator=generator)
    soft = torch.randn(2, score_channels(network) + hint, 4, 8, 8, generator=generator)
    return Batch(torch.randn(2, 1, 4, 8, 8, generator=generator), target, soft)


def gradient_of(learner: DistillationLearner, batch: Batch, term: str) -> Tensor:
    """Of a term at each voxel of the input, B C Z Y X."""
    batch = batch._replace(input=batch.input.clone().requires_grad_())
    loss = learner._loss_of(learner._network, batch).terms[term]
    (gradient,) = torch.autograd.grad(loss, batch.input)
    return gradient


HEADS = [
    SINGLE_VOXELS,
    SINGLE_VOXELS.updated(classes=2),
    SINGLE_VOXELS.updated(classes=1),
    SINGLE_VOXELS.updated(classes=2, head="sigmoid"),
]


@pytest.mark.parametrize("network", HEADS, ids=["three classes", "two", "one channel", "sigmoids"])
def test_the_hard_term_sees_annotated_voxels_only_and_the_soft_one_all(
    make_learner: Callable[..., DistillationLearner], network: UNetConfig
) -> None:
    learner, batch = make_learner(network), make_batch(network)
    hard, soft = gradient_of(learner, batch, "hard"), gradient_of(learner, batch, "soft")
    is_annotated = (batch.target != IGNORE_INDEX)[:, None]
    assert torch.count_nonzero(hard[~is_annotated]) == 0
    assert torch.count_nonzero(hard[is_annotated]) > 0.9 * is_annotated.sum()
    assert torch.count_nonzero(soft) > 0.9 * soft.numel()


def test_the_terms_are_weighed(make_learner: Callable[..., DistillationLearner]) -> None:
    learner, batch = make_learner(alpha=0.7), make_batch()
    loss = learner._loss_of(learner._network, batch)
    torch.testing.assert_close(loss.total, 0.3 * loss.terms["hard"] + 0.7 * loss.terms["soft"])


def test_without_annotation_the_hard_term_is_missing(make_learner: Callable[..., DistillationLearner]) -> None:
    learner, batch = make_learner(alpha=0.7), make_batch()
    batch = batch._replace(target=torch.full_like(batch.target, IGNORE_INDEX))
    loss = learner._loss_of(learner._network, batch)
    assert set(loss.terms) == {"soft"}
    torch.testing.assert_close(loss.total, 0.7 * loss.terms["soft"])
    assert learner.learn(batch, 1e-3, seed=0).is_bad is False


@pytest.mark.parametrize(("alpha", "unseen"), [(0.0, "soft"), (1.0, "target")])
def test_at_the_ends_of_alpha_one_term_does_not_matter(
    make_learner: Callable[..., DistillationLearner], alpha: float, unseen: str
) -> None:
    batch = make_batch()
    others = {"soft": -batch.soft, "target": torch.where(batch.target < 0, batch.target, 2 - batch.target)}  # type: ignore[operator]
    learners = [make_learner(alpha=alpha) for _ in range(2)]
    for learner, its in zip(learners, (batch, batch._replace(**{unseen: others[unseen]})), strict=True):
        learner.learn(its, 1e-3, seed=0)
    one, other = (learner.average.network.state_dict() for learner in learners)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_deep_supervision_and_hint(make_learner: Callable[..., DistillationLearner]) -> None:
    network = UNetConfig(levels=2, filters=4, deep_supervision=True, classes=3)
    learner, batch = make_learner(network, feature_hint=2.0), make_batch(network, hint=True)
    before = copy.deepcopy(learner._network.state_dict())
    loss = learner._loss_of(learner._network, batch)
    terms = loss.terms
    assert set(terms) == {"hard", "soft", "hint"}
    torch.testing.assert_close(loss.total, 0.3 * terms["hard"] + 0.7 * terms["soft"] + 2 * terms["hint"])
    learner.learn(batch, 1e-2, seed=0)
    changed = {name for name, value in learner._network.state_dict().items() if not torch.equal(value, before[name])}
    assert any("head" in name for name in changed)


def test_planes_of_a_two_dimensional_network_count_as_a_volume(
    make_learner: Callable[..., DistillationLearner],
) -> None:
    network = UNetConfig(dimensions=2, levels=2, filters=4, classes=3)
    learner, batch = make_learner(network, feature_hint=1.0), make_batch(network, hint=True)
    assert torch.isfinite(learner._loss_of(learner._network, batch).total)
