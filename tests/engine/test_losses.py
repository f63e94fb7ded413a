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

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.losses import (
    Loss,
    Term,
    annotated_voxels,
    build_loss,
    output_strides,
    pooled_voxels,
)
from napari_unet3d.engine.volume import IGNORE_INDEX

LOSSES = ["cross_entropy", "dice", "cross_entropy_dice", "focal"]


def loss_of(name: str, class_weights: Sequence[float] | None = None, **settings: Any) -> Loss:
    return build_loss(TrainConfig.model_validate({"loss": name, **settings}), class_weights)


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
    ],
)
def test_hand_worked_values(
    two_voxels: tuple[Tensor, Tensor], name: str, weights: tuple[float, float] | None, expected: float
) -> None:
    logits, target = two_voxels
    value = loss_of(name, weights)([logits], target)
    assert value.total.item() == pytest.approx(expected, rel=1e-6)
    assert list(value.terms) == [name]


def test_cross_entropy_dice_is_the_sum_of_its_terms(two_voxels: tuple[Tensor, Tensor]) -> None:
    logits, target = two_voxels
    value = loss_of("cross_entropy_dice")([logits], target)
    alone = {name: loss_of(name)([logits], target).total for name in ("cross_entropy", "dice")}
    assert value.terms == alone
    assert value.total == sum(alone.values())


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
    classes=st.sampled_from([1, 2, 4]),
    elsewhere=st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e30, -7.0]),
    seed=st.integers(0, 2**31),
    channels_last=st.booleans(),
)
@settings(max_examples=60)
def test_predictions_at_unannotated_voxels_change_nothing(
    name: str, classes: int, elsewhere: float, seed: int, channels_last: bool
) -> None:
    logits, target = sparse_case(seed, classes, (2, 3, 4, 5))
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last_3d)
    hidden = (target == IGNORE_INDEX)[:, None].expand_as(logits)
    changed = torch.where(hidden, elsewhere, logits)
    loss = loss_of(name, None if classes == 1 else range(1, classes + 1))

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


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
def test_sums_add_up_over_parts(name: str) -> None:
    (module,) = loss_of(name, (1.0, 2.0, 3.0)).terms.values()
    term = cast(Term, module)
    random = torch.Generator().manual_seed(12)
    log_p = torch.randn(20, 3, generator=random).log_softmax(1)
    classes = torch.randint(0, 3, (20,), generator=random)
    weights = torch.rand(20, generator=random)
    first, second = (term.sums(log_p[part], classes[part], weights[part]) for part in (slice(8), slice(8, 20)))
    torch.testing.assert_close(term.value(first + second), term.value(term.sums(log_p, classes, weights)))


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
    # mean of the weights 0 1 6 7, of 4 5 10 11, of 19, of 15 21, of 16 22
    assert coarse.weights.tolist() == [3.5, 7.5, 19, 18, 19]


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
