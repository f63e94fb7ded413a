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
