from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch

from napari_unet3d.engine.uncertainty import entropy, margin


@pytest.mark.parametrize("measure", [entropy, margin])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_a_sure_prediction_has_no_uncertainty(
    measure: Callable[[torch.Tensor, int], torch.Tensor], classes: int
) -> None:
    sure = torch.zeros(classes, 2, 2, 2)
    sure[-1] = 1
    assert measure(sure, 0).tolist() == torch.zeros(2, 2, 2).tolist()


def test_by_hand() -> None:
    probabilities = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [0.7, 0.2, 0.1, 0.0]])
    torch.testing.assert_close(margin(probabilities), torch.tensor([1.0, 1.0, 0.5]))
    # log 2 / log 4 for the second
    torch.testing.assert_close(entropy(probabilities)[:2], torch.tensor([1.0, 0.5]))


def test_entropy_is_that_of_scipy() -> None:
    probabilities = torch.rand(3, 5, 4, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    expected = scipy.stats.entropy(probabilities.numpy(), axis=1) / np.log(5)
    np.testing.assert_allclose(entropy(probabilities).numpy(), expected, rtol=1e-5)


def test_decisions_of_a_sigmoid_head_by_hand() -> None:
    # voxels in columns: sure of one, of none, of both; undecided about one; about both
    structures = torch.tensor([[1.0, 0.0, 1.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0, 0.5]])
    probabilities = torch.cat([1 - structures.amax(0, keepdim=True), structures])
    assert entropy(probabilities, 0, "sigmoid").tolist() == pytest.approx([0, 0, 0, 0.5, 1])
    assert margin(probabilities, 0, "sigmoid").tolist() == pytest.approx([0, 0, 0, 1, 1])
    quarter = torch.tensor([0.75, 0.25])
    torch.testing.assert_close(margin(quarter, 0, "sigmoid"), torch.tensor(0.5))


@pytest.mark.parametrize("measure", [entropy, margin])
def test_one_structure_is_as_sure_as_two_classes(measure: Callable[..., torch.Tensor]) -> None:
    p = torch.rand(1, 50, generator=torch.Generator().manual_seed(0))
    both = torch.cat([1 - p, p])
    torch.testing.assert_close(measure(both, 0, "sigmoid"), measure(both, 0, "softmax"))
