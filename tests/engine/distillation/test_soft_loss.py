"""The soft term by hand, against PyTorch's, and its gradient over temperatures."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch.nn import functional

from napari_unet3d.engine.distillation.scores import same_form
from napari_unet3d.engine.distillation.soft_loss import centre_of, hint_loss, soft_loss

HEADS = [("softmax", 1), ("softmax", 2), ("softmax", 4), ("sigmoid", 1), ("sigmoid", 3)]


def random_logits(channels: int, size: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, size, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("head", "channels"), HEADS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equal_logits_give_zero(head: Literal["softmax", "sigmoid"], channels: int, temperature: float) -> None:
    logits = random_logits(channels).requires_grad_()
    loss = soft_loss([logits], same_form(logits.detach(), head), temperature, head=head)
    assert loss.item() == 0
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    assert float(logits.grad.abs().max()) < 1e-7  # type: ignore[union-attr]


def test_a_shift_of_all_logits_is_no_difference() -> None:
    logits = random_logits(3)
    assert soft_loss([logits + 7], logits, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 log(3/2) + 1/4 log(1/2)
    teacher = torch.full((1, 1, 1, 1, 1), -math.log(3.0))
    student = torch.zeros(1, 2, 1, 1, 1)
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_loss([student], teacher, 1.0).item() == pytest.approx(wanted, rel=1e-6)
    # the same probabilities at T = 2 need scores twice as large, and count four times
    assert soft_loss([student], 2 * teacher, 2.0).item() == pytest.approx(4 * wanted, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_several_classes_against_pytorch(temperature: float) -> None:
    student, teacher = random_logits(4), random_logits(4, seed=1)
    flat_s, flat_t = (values.movedim(1, -1).reshape(-1, 4) for values in (student, teacher))
    wanted = functional.kl_div(
        (flat_s / temperature).log_softmax(1), (flat_t / temperature).softmax(1), reduction="batchmean"
    )
    found = soft_loss([student], teacher, temperature)
    torch.testing.assert_close(found, temperature**2 * wanted)


def test_sigmoids_against_pytorch() -> None:
    student, teacher = random_logits(3), random_logits(3, seed=1)
    q = torch.distributions.Bernoulli(logits=student / 2)
    p = torch.distributions.Bernoulli(logits=teacher / 2)
    wanted = 4 * torch.distributions.kl_divergence(p, q).sum(1).mean()
    torch.testing.assert_close(soft_loss([student], teacher, 2.0, head="sigmoid"), wanted)


@pytest.mark.parametrize(("head", "channels"), HEADS)
def test_the_gradient_hardly_depends_on_the_temperature(head: Literal["softmax", "sigmoid"], channels: int) -> None:
    teacher = same_form(random_logits(channels, seed=1), head)
    norms = []
    for temperature in (4.0, 8.0, 16.0, 64.0):
        logits = random_logits(channels).requires_grad_()
        soft_loss([logits], teacher, temperature, head=head).backward()  # type: ignore[no-untyped-call]  # torch's
        norms.append(float(logits.grad.norm()))  # type: ignore[union-attr]
    assert max(norms) < 1.15 * min(norms)


def test_low_precision_is_compared_in_float32() -> None:
    student, teacher = random_logits(3).bfloat16(), random_logits(3, seed=1)
    found = soft_loss([student], teacher, 2.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, soft_loss([student.float()], teacher, 2.0))


def test_a_smaller_output_stands_for_the_centre() -> None:
    teacher = random_logits(3, size=8)
    student = teacher[..., 2:6, 2:6, 2:6]
    assert float(soft_loss([student], teacher, 1.0)) == 0
    assert torch.equal(centre_of(teacher, (4, 4, 4)), student)


def test_coarser_outputs_are_compared_with_mean_probabilities() -> None:
    # two of eight voxels are certain, the others undecided: the mean is 5/8
    teacher = torch.zeros(1, 1, 2, 2, 2)
    teacher[0, 0, 0, 0] = 100.0
    fine = teacher.clone()
    coarse = torch.full((1, 1, 1, 1, 1), math.log(5 / 3))
    strides = [(1, 1, 1), (2, 2, 2)]
    assert soft_loss([fine, coarse], teacher, 1.0, strides).item() == pytest.approx(0, abs=1e-6)
    # a wrong coarse output counts half of a wrong fine one: shares 2/3 and 1/3
    wrong = soft_loss([fine, torch.zeros_like(coarse)], teacher, 1.0, strides)
    alone = 5 / 8 * math.log(5 / 4) + 3 / 8 * math.log(3 / 4)
    assert float(wrong) == pytest.approx(alone / 3, rel=1e-4)


def test_hint() -> None:
    features = random_logits(5)
    activity = features.pow(2).mean(1, keepdim=True)
    assert float(hint_loss(features, (3 * activity).log())) == pytest.approx(0, abs=1e-6)  # its length does not matter
    one = torch.zeros(1, 1, 1, 1, 2)
    one[..., 0] = 1
    # active at different voxels: |(1, 0) - (0, 1)|^2
    assert float(hint_loss(one, one.flip(-1).clamp_min(1e-30).log())) == pytest.approx(2)
