from __future__ import annotations

import math

import pytest
import torch

from napari_unet3d.engine.networks.guidance import guided, presence_of_channels


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_the_probability_of_a_sigmoid_is_multiplied() -> None:
    logits = torch.tensor([logit(0.8), logit(0.1)]).reshape(1, 1, 1, 1, 2)
    # a class is as present as where it is most: 0.25
    presence = torch.tensor([[0.0, 0.0], [logit(0.25), logit(0.01)]]).reshape(1, 2, 1, 1, 2)

    p = guided(logits, presence, is_sigmoid=True).sigmoid()

    assert p.flatten().tolist() == pytest.approx([0.2, 0.025])


def test_two_logits_of_one_class_are_set_against_each_other() -> None:
    presence = torch.tensor([[3.0], [1.0]]).reshape(1, 2, 1, 1, 1)

    assert presence_of_channels(presence, 1).flatten().tolist() == [-2]
    assert torch.equal(presence_of_channels(presence, 2), presence)


def test_the_products_of_a_softmax_sum_to_one() -> None:
    p = torch.tensor([0.5, 0.3, 0.2])
    present = torch.tensor([0.9, 0.9, 0.1])

    q = guided(p.log().reshape(1, 3, 1, 1), present.logit().reshape(1, 3, 1, 1), is_sigmoid=False).softmax(1)

    torch.testing.assert_close(q.flatten(), p * present / (p * present).sum())


@pytest.mark.parametrize("is_sigmoid", [True, False])
def test_what_is_present_stays_and_what_is_absent_goes(is_sigmoid: bool) -> None:
    logits = torch.randn(2, 3, 2, 4, 4)
    sure = torch.full((2, 3, 1, 1, 1), 1e4)

    torch.testing.assert_close(guided(logits, sure, is_sigmoid=is_sigmoid), logits)
    sure[:, 2] = -1e4
    gone = guided(logits, sure, is_sigmoid=is_sigmoid)
    assert torch.isfinite(gone).all()
    assert (gone[:, 2] < -9e3).all()
    torch.testing.assert_close(gone[:, :2], logits[:, :2])


@pytest.mark.parametrize("is_sigmoid", [True, False])
def test_the_type_of_the_logits_is_kept_and_gradients_are_finite(is_sigmoid: bool) -> None:
    logits = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)
    presence = torch.tensor([-200.0, 200.0]).reshape(1, 2, 1, 1).requires_grad_()

    result = guided(logits, presence, is_sigmoid=is_sigmoid)
    result.float().sum().backward()  # type: ignore[no-untyped-call]

    assert result.dtype == torch.bfloat16
    assert presence.grad is not None
    assert torch.isfinite(presence.grad).all()
