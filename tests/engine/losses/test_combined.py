from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from napari_unet3d.engine.config import LOSS_TERMS, TrainConfig, label_count, validated
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.losses import Loss, build_loss
from napari_unet3d.engine.losses.term import Term
from napari_unet3d.engine.losses.voxels import Annotated, annotated_voxels, output_strides, pooled_voxels, verdict
from napari_unet3d.engine.volume import IGNORE_INDEX

TERMS = ["cross_entropy", "dice", "generalised_dice", "iou", "focal"]
"""Terms that see voxels one by one; for the structural similarity see `test_ssim`."""
COMBINED = ["cross_entropy_dice", "cross_entropy_generalised_dice"]
LOSSES = [*TERMS, *COMBINED]


def loss_of(name: str, class_weights: Sequence[float] | None = None, head: Head = "softmax", **settings: Any) -> Loss:
    return build_loss(TrainConfig.model_validate({"loss": name, **settings}), class_weights, head=head)


def sparse_case(seed: int, classes: int, shape: Sequence[int], share: float = 0.2) -> tuple[Tensor, Tensor]:
    """Random logits (B K ...) and a target with some annotated voxels of every class."""
    random = torch.Generator().manual_seed(seed)
    batch, *space = shape
    logits = 3 * torch.randn((batch, classes, *space), generator=random)
    target = torch.randint(0, max(classes, 2), (batch, *space), generator=random)
    hidden = torch.rand(target.shape, generator=random) > share
    hidden.flatten()[: max(classes, 2)] = False
    target.flatten()[: max(classes, 2)] = torch.arange(max(classes, 2))
    return logits, target.masked_fill(hidden, IGNORE_INDEX)


def sigmoid_case(seed: int, structures: int, shape: Sequence[int], share: float = 0.2) -> tuple[Tensor, Tensor]:
    """As `sparse_case`, without a channel for the background."""
    logits, target = sparse_case(seed, structures + 1, shape, share)
    return logits[:, 1:].contiguous(), target


def logits_of(target: Tensor) -> Tensor:
    """Logits, B 2 and the axes, of a network that is sure of a target."""
    return torch.stack([30 - 60.0 * target, 60.0 * target - 30], 1)


def value_and_gradients(loss: Loss, outputs: Sequence[Tensor], target: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [output.detach().clone().requires_grad_() for output in outputs]
    total = loss(leaves, target).total
    torch.autograd.backward(total)
    return total.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


# --- values -----------------------------------------------------------------------------------------------


@pytest.fixture
def two_voxels() -> tuple[Tensor, Tensor]:
    """Probabilities 1/4, 3/4 where class 1 is annotated, 1/2, 1/2 where class 0 is, and one voxel more."""
    logits = torch.tensor([[0.0, 0.0, 5.0], [log(3), 0.0, -5.0]]).reshape(1, 2, 1, 1, 3)
    return logits, torch.tensor([1, 0, IGNORE_INDEX]).reshape(1, 1, 1, 3)


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("cross_entropy", None, (-log(0.75) - log(0.5)) / 2),
        ("cross_entropy", (1, 3), (-3 * log(0.75) - log(0.5)) / 4),
        ("focal", None, (-log(0.75) / 16 - log(0.5) / 4) / 2),
        ("focal", (1, 3), (-3 * log(0.75) / 16 - log(0.5) / 4) / 4),
        # class 0: overlap .5, probability .75, truth 1; class 1: overlap .75, probability 1.25, truth 1
        ("dice", None, 1 - (2 / 2.75 + 2.5 / 3.25) / 2),
        ("generalised_dice", None, 1 - (2 * 1.25 + 1) / (1.75 + 2.25 + 1)),
        ("iou", None, 1 - (1.5 / 2.25 + 1.75 / 2.5) / 2),
    ],
)
def test_hand_worked_values(
    two_voxels: tuple[Tensor, Tensor], name: str, weights: tuple[float, float] | None, expected: float
) -> None:
    logits, target = two_voxels
    value = loss_of(name, weights)([logits], target)
    assert value.total.item() == pytest.approx(expected, rel=1e-6)
    assert list(value.terms) == [name]


@pytest.mark.parametrize(("name", "terms"), [(name, terms) for name, terms in LOSS_TERMS.items() if len(terms) > 1])
def test_a_combined_loss_is_the_weighted_sum_of_its_terms(name: str, terms: tuple[str, ...]) -> None:
    logits, target = sparse_case(0, 3, (1, 13, 14), share=1.0)
    alone = {term: loss_of(term)([logits], target).total for term in terms}
    value = loss_of(name)([logits], target)
    assert value.terms == alone
    torch.testing.assert_close(value.total, torch.stack(list(alone.values())).sum())

    weights = (0.0, 0.5, 3.0)[: len(terms)]
    weighted = loss_of(name, loss_weights=weights)([logits], target)
    assert weighted.terms == {t: w * alone[t] for t, w in zip(terms, weights, strict=True) if w}
    torch.testing.assert_close(weighted.total, torch.stack(list(weighted.terms.values())).sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": "hybrid", "loss_weights": (1, 1)},
            "has 2 entries but loss = hybrid has the terms focal, ms_ssim, iou",
        ),
        ({"loss": "dice", "loss_weights": (0,)}, "leaves nothing to learn from"),
        ({"loss": "dice", "loss_weights": (-1,)}, "greater than or equal to 0"),
        ({"loss": "lovasz"}, "generalised_dice"),
    ],
)
def test_useless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validated(TrainConfig, settings)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6, 7)], ids=["3D", "2D"])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 4.0)], ids=["equal", "weighted"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_cross_entropy_equals_torch(
    shape: tuple[int, ...], weights: tuple[float, ...] | None, channels_last: bool
) -> None:
    logits, target = sparse_case(0, 3, shape)
    if channels_last:
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    total, (gradient,) = value_and_gradients(loss_of("cross_entropy", weights), [logits], target)

    leaf = logits.clone().requires_grad_()
    scale = None if weights is None else torch.tensor(weights)
    expected = functional.cross_entropy(leaf, target, weight=scale, ignore_index=IGNORE_INDEX)
    torch.autograd.backward(expected)
    assert leaf.grad is not None
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
def test_focal_equals_its_formula(gamma: float) -> None:
    logits, target = sparse_case(1, 4, (2, 3, 4, 5))
    weights = np.array([1.0, 2.0, 0.5, 3.0])
    rows = logits.movedim(1, -1)[target != IGNORE_INDEX].double().numpy()
    classes = target[target != IGNORE_INDEX].numpy()
    p = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    p_true = p[np.arange(len(p)), classes]
    expected = (weights[classes] * (1 - p_true) ** gamma * -np.log(p_true)).sum() / weights[classes].sum()

    value = loss_of("focal", tuple(weights), focal_gamma=gamma)([logits], target)
    assert value.total.item() == pytest.approx(expected, rel=1e-5)


def test_dice_equals_its_formula() -> None:
    logits, target = sparse_case(2, 3, (2, 3, 4, 5))
    rows = logits.movedim(1, -1)[target != IGNORE_INDEX].double().numpy()
    classes = target[target != IGNORE_INDEX].numpy()
    p = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    dice = [(2 * p[classes == k, k].sum() + 1) / (p[:, k].sum() + (classes == k).sum() + 1) for k in range(3)]
    value = loss_of("dice")([logits], target)
    assert value.total.item() == pytest.approx(1 - np.mean(dice), rel=1e-5)


def test_generalised_dice_and_iou_equal_their_formulas() -> None:
    logits, target = sparse_case(2, 3, (2, 3, 4, 5))
    rows = logits.movedim(1, -1)[target != IGNORE_INDEX].double().numpy()
    truth = np.eye(3)[target[target != IGNORE_INDEX].numpy()]
    p = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    both, union = (p * truth).sum(0), (p + truth - p * truth).sum(0)
    iou = loss_of("iou")([logits], target).total.item()
    assert iou == pytest.approx(1 - np.mean((both + 1) / (union + 1)), rel=1e-5)

    smallest = truth.sum(0).min()
    weights = 1 / truth.sum(0) ** 2
    smooth = 1 / smallest**2
    expected = 1 - (2 * (weights * both).sum() + smooth) / ((weights * (p + truth).sum(0)).sum() + smooth)
    assert loss_of("generalised_dice")([logits], target).total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_dice_and_focal_equal_monai_where_everything_is_annotated() -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is a second opinion, not a requirement")
    logits, target = sparse_case(3, 3, (2, 4, 5, 6), share=1.0)
    labels = target[:, None]
    dice = monai.DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    torch.testing.assert_close(loss_of("dice")([logits], target).total, dice(logits, labels))
    focal = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, reduction="none")
    expected = focal(logits, labels).sum(1).mean()
    torch.testing.assert_close(loss_of("focal")([logits], target).total, expected)
    # its Jaccard index adds the smoothing to sums that are twice ours
    jaccard = monai.DiceLoss(softmax=True, to_onehot_y=True, batch=True, jaccard=True, smooth_nr=2.0, smooth_dr=2.0)
    torch.testing.assert_close(loss_of("iou")([logits], target).total, jaccard(logits, labels))


@pytest.mark.parametrize("missing", [None, 1], ids=["all classes", "one without annotation"])
@pytest.mark.filterwarnings("ignore")
def test_generalised_dice_equals_monai_where_everything_is_annotated(missing: int | None) -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is a second opinion, not a requirement")
    logits, target = sparse_case(3, 3, (2, 4, 5, 6), share=1.0)
    target[target == missing] = 0
    smallest = min(n for n in torch.bincount(target.flatten()).tolist() if n)
    dice = monai.GeneralizedDiceLoss(
        softmax=True, to_onehot_y=True, batch=True, smooth_nr=1 / smallest**2, smooth_dr=1 / smallest**2
    )
    expected = dice(logits, target[:, None])
    torch.testing.assert_close(loss_of("generalised_dice")([logits], target).total, expected)


def test_generalised_dice_counts_large_and_small_classes_alike() -> None:
    # 9990 voxels of class 0 and 10 of class 1; half of either are told wrong
    target = torch.zeros(1, 100, 100, dtype=torch.long)
    target.view(-1)[:10] = 1
    said = target.clone()
    said.view(-1)[:5] = 0
    missed = loss_of("generalised_dice")([logits_of(said)], target).total.item()
    # weights 1 / 100 and 1 / 9990^2, as 1 and about 1e-6: 1 - (2 * 5 + .01 + 1) / (5 + 10 + .02 + 1)
    assert missed == pytest.approx(1 - (11 + 2e-6 * 9990) / (16 + 2e-6 * 9990), abs=1e-3)
    assert loss_of("dice")([logits_of(said)], target).total.item() < missed


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_large_logits_give_finite_losses_and_gradients(name: str, head: Head, size: float) -> None:
    logits, target = sparse_case(21, 2, (1, 3, 4, 5))
    total, (gradient,) = value_and_gradients(loss_of(name, head=head), [size * logits.sign()], target)
    assert torch.isfinite(total)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [*LOSSES, "ms_ssim", "hybrid"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_patch_of_one_class_gives_finite_losses_and_gradients(name: str, head: Head) -> None:
    logits, _ = sparse_case(22, 3, (1, 2, 12, 12))
    for value in range(3):
        target = torch.full((1, 2, 12, 12), value)
        total, (gradient,) = value_and_gradients(loss_of(name, head=head), [logits], target)
        assert 0 < total < 20
        assert torch.isfinite(gradient).all()
        assert torch.count_nonzero(gradient) > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_patch_without_annotation_does_not_matter_beside_others(name: str, head: Head) -> None:
    logits, target = sparse_case(23, 3, (2, 3, 4, 5))
    target[1] = IGNORE_INDEX
    total, (gradient,) = value_and_gradients(loss_of(name, head=head), [logits], target)
    alone, (alone_gradient,) = value_and_gradients(loss_of(name, head=head), [logits[:1]], target[:1])
    assert torch.equal(total, alone)
    assert torch.equal(gradient[:1], alone_gradient)
    assert torch.count_nonzero(gradient[1]) == 0


@pytest.mark.parametrize("name", [*LOSSES, "ms_ssim", "hybrid"])
def test_autocast_does_not_reach_the_loss(name: str) -> None:
    logits, target = sparse_case(24, 3, (1, 12, 13), share=1.0)
    rounded = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss_of(name)([rounded], target).total
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss_of(name)([rounded.float()], target).total)


# --- one sigmoid for each structure -----------------------------------------------------------------------


def test_sigmoid_head_by_hand() -> None:
    # structures 1 and 2 of classes 0, 1, 2; probabilities 3/4 and 1/2 where 1 is annotated, 1/4 and 1/4 where 0 is
    logits = torch.tensor([[log(3), -log(3)], [0.0, -log(3)]]).reshape(1, 2, 1, 1, 2)
    target = torch.tensor([1, 0]).reshape(1, 1, 1, 2)
    losses = [-log(3 / 4), -log(1 / 2), -log(3 / 4), -log(3 / 4)]

    def value(name: str, weights: Sequence[float] | None = None) -> float:
        return float(loss_of(name, weights, head="sigmoid")([logits], target).total)

    assert value("cross_entropy") == pytest.approx(sum(losses) / 4)
    # the weight is that of the voxel's class, in all of its decisions
    assert value("cross_entropy", (1, 3, 9)) == pytest.approx((3 * sum(losses[:2]) + sum(losses[2:])) / 8)
    # structure 1: both .75, probability 1, truth 1; structure 2: 0, .75 and 0
    assert value("dice") == pytest.approx(1 - (2.5 / 3 + 1 / 1.75) / 2)
    assert value("iou") == pytest.approx(1 - (1.75 / 2.25 + 1 / 1.75) / 2)
    assert value("generalised_dice") == pytest.approx(1 - (2 * 0.75 + 1) / (1 + 1 + 0.75 + 1))


def test_cross_entropy_of_a_sigmoid_head_equals_torch() -> None:
    logits, target = sigmoid_case(30, 3, (2, 3, 4, 5))
    seen = target != IGNORE_INDEX
    truth = functional.one_hot(target[seen], 4)[:, 1:].float()
    expected = functional.binary_cross_entropy_with_logits(logits.movedim(1, -1)[seen], truth)
    torch.testing.assert_close(loss_of("cross_entropy", head="sigmoid")([logits], target).total, expected)


@pytest.mark.filterwarnings("ignore")
def test_dice_of_a_sigmoid_head_equals_monai() -> None:
    monai = pytest.importorskip("monai.losses", reason="MONAI is a second opinion, not a requirement")
    logits, target = sigmoid_case(31, 3, (2, 3, 4, 5), share=1.0)
    truth = functional.one_hot(target, 4)[..., 1:].movedim(-1, 1)
    dice = monai.DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    torch.testing.assert_close(loss_of("dice", head="sigmoid")([logits], target).total, dice(logits, truth))


def test_structures_of_a_sigmoid_head_learn_apart() -> None:
    logits, target = sigmoid_case(32, 2, (1, 3, 4, 5))
    changed = torch.stack([logits[:, 0], -logits[:, 1]], 1)
    for name in ("cross_entropy", "focal", "dice", "iou"):
        loss = loss_of(name, head="sigmoid")
        (gradient,), (changed_gradient,) = (value_and_gradients(loss, [x], target)[1] for x in (logits, changed))
        assert torch.equal(gradient[:, 0], changed_gradient[:, 0])
        assert not torch.equal(gradient[:, 1], changed_gradient[:, 1])


def test_an_absent_structure_is_unlearnt_by_a_sigmoid_head() -> None:
    logits = torch.full((1, 2, 1, 2, 2), -1.0)
    target = torch.zeros(1, 1, 2, 2, dtype=torch.long)
    for name in LOSSES:
        _, (gradient,) = value_and_gradients(loss_of(name, head="sigmoid"), [logits], target)
        assert (gradient > 0).all()


def test_dice_leaves_out_classes_neither_annotated_nor_most_probable() -> None:
    two = torch.tensor([[2.0, -1.0], [-1.0, 2.0]]).reshape(1, 2, 1, 1, 2)
    target = torch.tensor([0, 1]).reshape(1, 1, 1, 2)
    unlikely = torch.cat([two, torch.full((1, 1, 1, 1, 2), -30.0)], 1)
    dice = loss_of("dice")
    torch.testing.assert_close(dice([unlikely], target).total, dice([two], target).total)

    likely = torch.cat([two, torch.full((1, 1, 1, 1, 2), 30.0)], 1)
    # classes 0 and 1: no probability, 1 voxel; class 2: probability 2, no voxel
    assert dice([likely], target).total.item() == pytest.approx(1 - (1 / 2 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("name", LOSSES)
def test_one_sigmoid_channel_equals_a_softmax_over_zero_and_its_logit(name: str) -> None:
    logits, target = sparse_case(4, 1, (2, 3, 4, 5))
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    loss = loss_of(name, (1.0, 2.0))
    total, (gradient,) = value_and_gradients(loss, [logits], target)
    expected, (wide_gradient,) = value_and_gradients(loss, [both], target)
    assert torch.equal(total, expected)
    assert torch.equal(gradient, wide_gradient[:, 1:])


def test_one_sigmoid_channel_equals_torch() -> None:
    logits, target = sparse_case(5, 1, (2, 3, 4, 5))
    seen = target != IGNORE_INDEX
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0][seen], target[seen].float())
    torch.testing.assert_close(loss_of("cross_entropy")([logits], target).total, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_low_precision_logits_are_computed_on_in_float32(name: str) -> None:
    logits, target = sparse_case(6, 3, (2, 3, 4, 5))
    rounded = logits.bfloat16()
    total, (gradient,) = value_and_gradients(loss_of(name), [rounded], target)
    expected, (full_gradient,) = value_and_gradients(loss_of(name), [rounded.float()], target)
    assert total.dtype == torch.float32
    assert torch.equal(total, expected)
    assert torch.equal(gradient, full_gradient.bfloat16())


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_derivatives(name: str) -> None:
    logits, target = sparse_case(7, 3, (1, 2, 2, 3), share=0.8)
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(name)([x], target).total, (leaf,))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradient_is_finite_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([100.0, -100.0]).reshape(1, 2, 1, 1, 1).expand(-1, -1, 1, 1, 2)
    target = torch.tensor([0, 1]).reshape(1, 1, 1, 2)
    total, (gradient,) = value_and_gradients(loss_of("focal", focal_gamma=gamma), [logits], target)
    assert total.item() == pytest.approx(100)
    assert torch.equal(gradient[..., 0], torch.zeros(1, 2, 1, 1))
    assert gradient[..., 1].flatten().tolist() == pytest.approx([0.5, -0.5])


# --- partial supervision ----------------------------------------------------------------------------------


@given(
    name=st.sampled_from(LOSSES),
    head=st.sampled_from(["softmax", "sigmoid"]),
    classes=st.sampled_from([1, 2, 4]),
    elsewhere=st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e30, -7.0]),
    seed=st.integers(0, 2**31),
    channels_last=st.booleans(),
)
@settings(max_examples=60)
def test_predictions_at_unannotated_voxels_change_nothing(
    name: str, head: Head, classes: int, elsewhere: float, seed: int, channels_last: bool
) -> None:
    logits, target = (sparse_case if head == "softmax" else sigmoid_case)(seed, classes, (2, 3, 4, 5))
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last_3d)
    hidden = (target == IGNORE_INDEX)[:, None].expand_as(logits)
    changed = torch.where(hidden, elsewhere, logits)
    loss = loss_of(name, range(1, label_count(classes, head) + 1), head)

    total, (gradient,) = value_and_gradients(loss, [logits], target)
    changed_total, (changed_gradient,) = value_and_gradients(loss, [changed], target)
    assert torch.equal(total, changed_total)
    assert torch.equal(gradient, changed_gradient)
    assert torch.count_nonzero(gradient[hidden]) == 0
    assert total > 0
    assert torch.count_nonzero(gradient) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_coarser_outputs_too_ignore_blocks_without_annotation(name: str) -> None:
    fine, _ = sparse_case(8, 3, (1, 4, 8, 8))
    coarse, _ = sparse_case(9, 3, (1, 2, 4, 4))
    target = torch.full((1, 4, 8, 8), IGNORE_INDEX)
    target[0, 1, :4, :4] = torch.arange(4) % 3
    seen = torch.zeros(1, 1, 2, 4, 4, dtype=torch.bool)
    seen[0, 0, 0, :2, :2] = True  # block of plane 1, rows and columns 0 to 3

    wild = coarse.masked_fill(~seen, float("nan"))
    total, gradients = value_and_gradients(loss_of(name), [fine, coarse], target)
    wild_total, wild_gradients = value_and_gradients(loss_of(name), [fine, wild], target)
    assert torch.equal(total, wild_total)
    assert all(torch.equal(a, b) for a, b in zip(gradients, wild_gradients, strict=True))
    assert torch.equal(gradients[1] != 0, seen.expand_as(coarse))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 3])
def test_no_annotation_gives_zero_with_zero_gradient(name: str, classes: int) -> None:
    logits, _ = sparse_case(10, classes, (2, 4, 4, 4))
    coarse = torch.full((2, classes, 2, 2, 2), float("nan"))
    target = torch.full((2, 4, 4, 4), IGNORE_INDEX)
    total, gradients = value_and_gradients(loss_of(name), [logits, coarse], target)
    assert total == 0
    assert len(gradients) == 2
    assert all(torch.count_nonzero(gradient) == 0 for gradient in gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_a_voxel_of_weight_two_counts_twice_and_one_of_weight_zero_not_at_all(name: str) -> None:
    # class 2 is most probable at the last voxel only
    logits = torch.tensor([[1.0, -1.0, 0.0], [0.0, 2.0, 0.0], [-5.0, -5.0, 5.0]]).reshape(1, 3, 1, 1, 3)
    target = torch.tensor([0, 1, 0]).reshape(1, 1, 1, 3)
    weight = torch.tensor([1.0, 2.0, 0.0]).reshape(1, 1, 1, 3)
    twice = [0, 1, 1]
    expected = loss_of(name)([logits[..., twice]], target[..., twice]).total
    torch.testing.assert_close(loss_of(name)([logits], target, weight).total, expected)
    assert loss_of(name)([logits], target, 0 * weight).total == 0


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", TERMS)
def test_sums_add_up_over_parts(name: str, head: Head) -> None:
    (module,) = loss_of(name, (1.0, 2.0, 3.0, 4.0), head).terms.values()
    term = cast(Term, module)
    random = torch.Generator().manual_seed(12)
    logits = torch.randn((1, 3, 20), generator=random)
    positions, classes = torch.arange(20), torch.randint(0, 3, (20,), generator=random)
    weights = torch.rand(20, generator=random)

    def sums(part: slice) -> Tensor:
        return term.sums(verdict(logits, Annotated(positions[part], classes[part], weights[part]), head))

    torch.testing.assert_close(term.value(sums(slice(8)) + sums(slice(8, None))), term.value(sums(slice(None))))


# --- several outputs --------------------------------------------------------------------------------------


def test_outputs_weigh_one_half_and_one_quarter() -> None:
    target = torch.ones(1, 4, 4, 4, dtype=torch.long)
    sizes, losses = (4, 2, 1), (log(2), log(4), log(8))
    outputs = []
    for size, loss in zip(sizes, losses, strict=True):  # class 1 gets the probability exp(-loss)
        p = 0.5 ** (loss / log(2))
        outputs.append(torch.full((1, 1, size, size, size), log(p / (1 - p)) if p < 1 else 0.0))
    value = loss_of("cross_entropy")(outputs, target)
    assert value.total.item() == pytest.approx((4 * log(2) + 2 * log(4) + log(8)) / 7, rel=1e-6)


def test_outputs_of_equal_size_share_the_target() -> None:
    logits, target = sparse_case(13, 2, (1, 3, 4, 5))
    loss = loss_of("cross_entropy_dice")
    torch.testing.assert_close(loss([logits] * 3, target).total, loss([logits], target).total)


def test_strides_follow_the_sizes() -> None:
    assert output_strides([(8, 16, 16), (8, 8, 8), (4, 4, 4)]) == [(1, 1, 1), (1, 2, 2), (2, 4, 4)]
    # without padding: each finer level is twice the coarser one less 4
    assert output_strides([(28, 44, 44), (16, 24, 24), (10, 14, 14)]) == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]


def test_a_block_takes_the_class_of_most_annotated_voxels_and_the_higher_one_at_a_tie() -> None:
    target = torch.tensor(
        [
            [0, 0, -1, -1, 2, 0],
            [1, 0, -1, -1, 0, 2],
            [-1, -1, -1, 1, 1, -1],
            [-1, 2, -1, 1, 0, -1],
        ]
    ).reshape(1, 1, 4, 6)
    voxels = annotated_voxels(target, torch.arange(24.0).reshape(1, 1, 4, 6))
    coarse = pooled_voxels(voxels, (1, 4, 6), (1, 2, 2), 3)
    assert coarse.positions.tolist() == [0, 2, 3, 4, 5]
    assert coarse.classes.tolist() == [0, 2, 2, 1, 1]
    # mean of the weights 1 6 7 (0 is not annotated), of 4 5 10 11, of 19, of 15 21, of 16 22
    assert coarse.weights.tolist() == pytest.approx([14 / 3, 7.5, 19, 18, 19])


@given(
    blocks=st.tuples(*[st.integers(1, 3)] * 3),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_pooling_equals_a_loop_over_blocks(
    blocks: tuple[int, int, int], stride: tuple[int, int, int], seed: int
) -> None:
    extent = [n * s for n, s in zip(blocks, stride, strict=True)]
    _, target = sparse_case(seed, 1, (2, *extent))
    coarse = pooled_voxels(annotated_voxels(target), extent, stride, 2)
    pooled = torch.full((2, *blocks), IGNORE_INDEX)
    pooled.flatten()[coarse.positions] = coarse.classes
    for b, z, y, x in np.ndindex(2, *blocks):
        corner = [slice(i * s, (i + 1) * s) for i, s in zip((z, y, x), stride, strict=True)]
        votes = [int((target[b][tuple(corner)] == k).sum()) for k in (0, 1)]
        expected = IGNORE_INDEX if sum(votes) == 0 else int(votes[1] >= votes[0])
        assert pooled[b, z, y, x] == expected


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_without_padding_sees_the_centre_of_the_target(name: str) -> None:
    # two levels without padding on 20 voxels: 7 coarse voxels cover the 14 in the middle, the output 10
    _, target = sparse_case(14, 2, (1, 20, 20, 20))
    fine, _ = sparse_case(15, 2, (1, 10, 10, 10))
    coarse, _ = sparse_case(16, 2, (1, 7, 7, 7))
    loss = loss_of(name)
    fine_loss = loss([fine], target[:, 5:15, 5:15, 5:15]).total
    covered = target[:, 3:17, 3:17, 3:17]
    block = pooled_voxels(annotated_voxels(covered), (14, 14, 14), (2, 2, 2), 2)
    pooled = torch.full((1, 7, 7, 7), IGNORE_INDEX)
    pooled.flatten()[block.positions] = block.classes
    expected = (2 * fine_loss + loss([coarse], pooled).total) / 3
    torch.testing.assert_close(loss([fine, coarse], target).total, expected)

    # a target that was already cropped to the finest output knows nothing of the coarse margin
    cropped = target[:, 5:15, 5:15, 5:15]
    unknown = functional.pad(cropped, [2] * 6, value=IGNORE_INDEX)
    torch.testing.assert_close(loss([fine, coarse], cropped).total, loss([fine, coarse], unknown).total)


def test_given_strides_are_used_where_sizes_do_not_tell() -> None:
    # without padding 4 coarse voxels become 2 * 4 - 4 = 4 fine ones
    _, target = sparse_case(17, 2, (1, 8, 8, 8))
    fine, coarse = (sparse_case(seed, 2, (1, 4, 4, 4))[0] for seed in (18, 19))
    told = build_loss(TrainConfig(loss="cross_entropy"), strides=[(1, 1, 1), (2, 2, 2)])
    block = pooled_voxels(annotated_voxels(target), (8, 8, 8), (2, 2, 2), 2)
    pooled = torch.full((1, 4, 4, 4), IGNORE_INDEX)
    pooled.flatten()[block.positions] = block.classes
    single = loss_of("cross_entropy")
    expected = (2 * single([fine], target).total + single([coarse], pooled).total) / 3
    torch.testing.assert_close(told([fine, coarse], target).total, expected)


@pytest.mark.parametrize(
    ("logits", "target"),
    [((1, 2, 4, 4, 5), (1, 4, 4, 4)), ((2, 2, 4, 4, 4), (1, 4, 4, 4)), ((1, 2, 4, 4), (1, 4, 4, 4))],
    ids=["larger than the target", "another batch", "another number of axes"],
)
def test_logits_that_do_not_fit_are_refused(logits: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        loss_of("dice")([torch.zeros(logits)], torch.zeros(target, dtype=torch.long))
