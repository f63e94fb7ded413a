from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_unet3d.engine.config import UNet3PlusConfig
from napari_unet3d.engine.presence import presence_loss
from napari_unet3d.engine.volume import IGNORE_INDEX


def network(**changes: Any) -> UNet3PlusConfig:
    return UNet3PlusConfig(guidance=True, **changes)


def unannotated(*shape: int) -> Tensor:
    return torch.full(shape, IGNORE_INDEX)


def bce(logit: float, present: float) -> float:
    return float(F.binary_cross_entropy_with_logits(torch.tensor(logit), torch.tensor(float(present))))


# --- one patch of 4 x 4 x 8 voxels: two blocks of 4 x 4 x 4, whose slices have 16 voxels each ---------------

PRESENCE = torch.tensor([[0.5, 1.0], [-1.0, 2.0], [3.0, -2.0]]).reshape(1, 3, 1, 1, 2)


def test_nothing_annotated_teaches_nothing() -> None:
    presence = torch.full((1, 3, 1, 1, 2), torch.nan).requires_grad_()

    loss = presence_loss(presence, unannotated(1, 4, 4, 8), network(classes=3))

    assert loss.item() == 0


def test_one_stroke_teaches_presence_but_no_absence() -> None:
    target = unannotated(1, 4, 4, 8)
    target[0, 0, 0, 5] = 1  # in the second block

    loss = presence_loss(PRESENCE, target, network(classes=3))

    assert loss.item() == pytest.approx(bce(2.0, 1))


def test_a_painted_slice_teaches_presence_and_absence() -> None:
    target = unannotated(1, 4, 4, 8)
    target[0, 2] = 0
    target[0, 2, 1, 1] = 1  # in the first block, which alone must tell of it

    loss = presence_loss(PRESENCE, target, network(classes=3))

    expected = [bce(1.0, 1), bce(-1.0, 1), bce(3.0, 0)]  # absent is what no well annotated block claims
    assert loss.item() == pytest.approx(sum(expected) / 3)


def test_a_quarter_of_a_slice_is_enough_to_deny() -> None:
    target = unannotated(1, 4, 4, 8)
    target[0, 2, 0, :4] = 0
    enough = presence_loss(PRESENCE, target, network(classes=3))
    target[0, 2, 0, 3] = IGNORE_INDEX
    too_few = presence_loss(PRESENCE, target, network(classes=3))

    assert enough.item() == pytest.approx((bce(0.5, 1) + bce(-1.0, 0) + bce(3.0, 0)) / 3)
    assert too_few.item() == pytest.approx(bce(0.5, 1))


def test_the_blocks_are_those_of_the_image_axes() -> None:
    target = unannotated(2, 2, 4, 6)
    target[1, 1, 2, 5] = 1
    presence = torch.zeros(2, 2, 2, 2, 2)
    presence[1, 1, 1, 1, 1] = 4.0  # block of Z 1, Y 2..3, X 3..5 in the second image

    loss = presence_loss(presence, target, network(classes=2))

    assert loss.item() == pytest.approx(bce(4.0, 1))


def test_one_class_is_present_against_absent() -> None:
    presence = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1, 1)
    absent, present = (torch.full((1, 4, 4, 4), index) for index in (0, 1))

    assert presence_loss(presence, present, network(classes=1)).item() == pytest.approx(bce(2.0, 1))
    assert presence_loss(presence, absent, network(classes=1)).item() == pytest.approx(bce(2.0, 0))


def test_channels_of_a_sigmoid_head_are_the_structures() -> None:
    presence = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1, 1)
    target = torch.full((1, 4, 4, 4), 2)

    loss = presence_loss(presence, target, network(classes=2, head="sigmoid"))

    assert loss.item() == pytest.approx((bce(1.0, 0) + bce(3.0, 1)) / 2)


def test_planes_of_a_flat_network_are_regions_of_their_own() -> None:
    target = unannotated(1, 3, 4, 4)
    target[0, 1] = 1
    presence = torch.tensor([[9.0, 0.5, 9.0], [9.0, -2.0, 9.0]]).reshape(1, 2, 3, 1, 1)

    loss = presence_loss(presence, target, network(classes=2, dimensions=2))

    assert loss.item() == pytest.approx((bce(0.5, 0) + bce(-2.0, 1)) / 2)


def test_the_gradient_reaches_only_what_is_asked() -> None:
    presence = PRESENCE.clone().requires_grad_()
    target = unannotated(1, 4, 4, 8)
    target[0, 2, :, :4] = 0  # the first block alone

    presence_loss(presence, target, network(classes=3)).backward()  # type: ignore[no-untyped-call]

    assert presence.grad is not None
    assert (presence.grad[0, :, 0, 0, 0] != 0).all()
    assert (presence.grad[0, :, 0, 0, 1] == 0).all()
