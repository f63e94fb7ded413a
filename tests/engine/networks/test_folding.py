"""Folded networks predict what they predicted before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.folding import fold_normalization

CASES: dict[str, dict[str, Any]] = {
    "batch": {"norm": "batch"},
    "renormalisation": {"norm": "batch_renorm"},
    "without bias": {"norm": "batch", "bias": False},
    "transposed": {"norm": "batch", "upsampling": "transposed", "up_norm_activation": True},
    "residual": {"norm": "batch", "residual": True},
    "two dimensions": {"norm": "batch", "dimensions": 2},
}


def _norms(network: nn.Module) -> list[nn.Module]:
    kinds = nn.modules.batchnorm._BatchNorm | nn.GroupNorm
    return [module for module in network.modules() if isinstance(module, kinds)]


def _settled(**settings: Any) -> nn.Module:
    """A network whose running statistics and weights are nothing special."""
    torch.manual_seed(0)
    network = build_network(UNetConfig(levels=2, filters=4, **settings))
    for norm in _norms(network):
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_predictions_stay(settings: dict[str, Any]) -> None:
    network = _settled(**settings)
    image = torch.randn(2, 1, 4, 12, 8)
    with torch.no_grad():
        before = network(image)
        fold_normalization(network)
        torch.testing.assert_close(network(image), before, atol=1e-4, rtol=1e-4)
    assert _norms(network) == []
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("settings", [{"norm": "instance"}, {"norm": "group"}, {"norm_statistics": "batch"}])
def test_what_looks_at_its_input_stays(settings: dict[str, Any]) -> None:
    network = _settled(**settings)
    count = len(_norms(network))
    fold_normalization(network)
    assert len(_norms(network)) == count > 0
