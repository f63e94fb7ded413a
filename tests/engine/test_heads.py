from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.config import UNet3PlusConfig, UNetConfig, label_count
from napari_unet3d.engine.heads import Head, class_logits, class_probabilities, with_background


def test_sigmoid_head_by_hand() -> None:
    # three voxels: the second structure, none, both (the surer one wins)
    probabilities = torch.tensor([[0.2, 0.4, 0.7], [0.9, 0.1, 0.8]])
    logits = class_logits(torch.special.logit(probabilities), "sigmoid")
    found = class_probabilities(logits, "sigmoid")
    torch.testing.assert_close(found[1:], probabilities)
    torch.testing.assert_close(found[0], torch.tensor([0.1, 0.6, 0.2]))
    assert logits.argmax(0).tolist() == found.argmax(0).tolist() == [2, 0, 2]


@given(seed=st.integers(0, 2**31), structures=st.integers(1, 4))
def test_background_is_where_no_structure_exceeds_one_half(seed: int, structures: int) -> None:
    output = torch.randn(structures, 50, generator=torch.Generator().manual_seed(seed))
    classes = class_logits(output, "sigmoid").argmax(0)
    assert torch.equal(classes == 0, (output.sigmoid() > 0.5).sum(0) == 0)
    assert torch.equal(class_probabilities(class_logits(output, "sigmoid"), "sigmoid").argmax(0), classes)


def test_one_channel_means_the_same_under_both_heads() -> None:
    output = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    soft, sigmoid = (class_probabilities(class_logits(output, head), head) for head in ("softmax", "sigmoid"))
    torch.testing.assert_close(soft, sigmoid)
    torch.testing.assert_close(soft[1], output[0].sigmoid())


def test_softmax_channels_are_the_classes() -> None:
    output = torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert class_logits(output, "softmax") is output
    assert torch.equal(class_probabilities(output, "softmax"), output.float().softmax(0))


def test_the_background_follows_averaged_structures() -> None:
    # one tile sure of one structure, the other of the other: neither is more likely than not
    tiles = [torch.tensor([[0.1], [0.9], [0.0]]), torch.tensor([[0.1], [0.0], [0.9]])]
    average = torch.stack(tiles).mean(0)
    assert average.argmax(0).tolist() != [0]
    assert with_background(average, "sigmoid").flatten().tolist() == pytest.approx([0.55, 0.45, 0.45])
    unchanged = average.clone()
    assert torch.equal(with_background(average, "softmax"), unchanged)


@pytest.mark.parametrize(
    ("classes", "head", "expected"), [(1, "softmax", 2), (1, "sigmoid", 2), (3, "softmax", 3), (3, "sigmoid", 4)]
)
@pytest.mark.parametrize("kind", [UNetConfig, UNet3PlusConfig])
def test_label_ids_of_a_head(kind: Any, classes: int, head: Head, expected: int) -> None:
    assert label_count(classes, head) == kind(classes=classes, head=head).label_count == expected
