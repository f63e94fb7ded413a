"""Batch renormalisation: as batch normalisation at first and in evaluation, as with running statistics later."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.renormalization import BatchRenorm2d, BatchRenorm3d

SHAPE = (2, 3, 4, 5, 6)


def patch(seed: int, mean: float = 1.0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 + mean


def settled(mean: float = 1.0) -> BatchRenorm3d:
    """A layer that has seen 250 batches, so that the limits are at their widest."""
    layer = BatchRenorm3d(3)
    for seed in range(250):
        layer(patch(seed, mean))
    return layer


def test_the_first_batches_are_normalised_plainly() -> None:
    layer, plain = BatchRenorm3d(3), nn.BatchNorm3d(3)
    for seed in range(100):
        x = patch(seed)
        torch.testing.assert_close(layer(x), plain(x))


def test_the_first_batch_gives_the_running_statistics_and_later_ones_change_them_slowly() -> None:
    layer = BatchRenorm3d(3)
    first, second = patch(0), patch(1)
    layer(first)
    torch.testing.assert_close(layer.running_mean, first.mean((0, 2, 3, 4)))
    torch.testing.assert_close(layer.running_var, first.var((0, 2, 3, 4)))
    layer(second)
    torch.testing.assert_close(layer.running_mean, 0.9 * first.mean((0, 2, 3, 4)) + 0.1 * second.mean((0, 2, 3, 4)))


def test_training_gives_what_prediction_gives() -> None:
    layer = settled()
    x = patch(99, mean=1.5)
    predicted = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), predicted)
    # while batch normalisation takes away in training what it keeps when it predicts
    plain = nn.BatchNorm3d(3)
    plain.load_state_dict(layer.state_dict())
    assert (plain.train()(x) - predicted).abs().max() > 0.2


def test_the_correction_is_limited() -> None:
    layer = settled()
    far = patch(99, mean=100.0)  # about fifty deviations away
    assert layer(far).mean().item() == pytest.approx(5.0, abs=0.1)


def test_gradients_flow_through_the_statistics_of_the_batch() -> None:
    layer = settled()
    x = patch(99).requires_grad_()
    weights = patch(7)
    (layer(x) * weights).sum().backward()
    assert x.grad is not None
    # neither a shift nor a stretch of a channel changes what batch normalisation gives
    torch.testing.assert_close(x.grad.sum((0, 2, 3, 4)), torch.zeros(3), atol=1e-3, rtol=0)


def test_statistics_agree_with_their_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(x: Tensor, mean: Tensor, var: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
        flat = x.transpose(0, 1).flatten(1)
        mean.lerp_(flat.mean(1), momentum)
        var.lerp_(flat.var(1), momentum)
        return flat.mean(1), flat.var(1, correction=0)

    expected = settled()
    monkeypatch.setattr(torch, "batch_norm_update_stats", slowly)
    found = settled()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_are_built_with_it(dimensions: Literal[2, 3]) -> None:
    config = UNetConfig(dimensions=dimensions, levels=2, filters=2, norm="batch_renorm")
    network = build_network(config)
    kind = BatchRenorm3d if dimensions == 3 else BatchRenorm2d
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert layers
    assert all(isinstance(module, kind) for module in layers)
