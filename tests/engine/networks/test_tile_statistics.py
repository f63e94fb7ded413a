from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.blocks import normalization
from napari_unet3d.engine.networks.build import build_network


@pytest.mark.parametrize("dimensions", [2, 3])
def test_both_kinds_learn_alike_and_predict_differently_from_one_tile(dimensions: Any) -> None:
    running = normalization(UNetConfig(dimensions=dimensions), 2)
    batch = normalization(UNetConfig(dimensions=dimensions, norm_statistics="batch"), 2)
    x = 3 + 2 * torch.randn(1, 2, *[6] * dimensions)

    for _ in range(3):
        assert torch.equal(running(x), batch(x))
    gathered = running.state_dict()
    assert all(torch.equal(gathered[name], value) for name, value in batch.state_dict().items())
    brighter = 10 * x
    own = (brighter - brighter.flatten(2).mean(2).reshape(1, 2, *[1] * dimensions)) / brighter.flatten(2).std(
        2, correction=0
    ).reshape(1, 2, *[1] * dimensions)
    torch.testing.assert_close(batch.eval()(brighter), own, atol=1e-4, rtol=1e-4)
    assert running.eval()(brighter).mean() > 10  # still measured by what it was trained on
    assert all(torch.equal(gathered[name], value) for name, value in batch.state_dict().items())


def test_a_network_predicts_by_its_tile_what_it_said_in_training() -> None:
    """At batch size 1, as in Çiçek 2016: running statistics lag behind, those of the tile do not."""
    torch.manual_seed(0)
    network = build_network(UNetConfig(levels=2, filters=4, norm_statistics="batch"))
    lagging = build_network(network.config.updated(norm_statistics="running"))
    lagging.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 4, 8, 8)

    with torch.no_grad():
        trained = network.train()(image)
        torch.testing.assert_close(network.eval()(image), trained)
        torch.testing.assert_close(lagging.train()(image), trained)
        assert (lagging.eval()(image) - trained).abs().max() > 0.1


def test_a_single_value_becomes_the_bias() -> None:
    layer = normalization(UNetConfig(norm_statistics="batch"), 2).eval()
    torch.nn.init.constant_(layer.get_parameter("bias"), 3.0)

    assert layer(torch.rand(1, 2, 1, 1, 1)).flatten().tolist() == pytest.approx([3, 3], abs=1e-5)
