from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet3d.engine.checkpoint import (
    pack_generator,
    pack_module,
    pack_optimizer,
    unpack_generator,
    unpack_module,
    unpack_optimizer,
)
from napari_unet3d.engine.errors import ModelFileError


def trained(kind: Any, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3)).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's
    optimizer = kind(module.parameters(), lr=0.1, **options)
    for _ in range(3):
        step(module, optimizer)
    return module, optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.linspace(-1, 1, 125).reshape(1, 1, 5, 5, 5)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.AdamW, {}), (torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9})]
)
def test_module_and_optimiser_go_on_alike(kind: Any, options: dict[str, Any]) -> None:
    module, optimizer = trained(kind, **options)
    tensors = pack_module("weights", module) | pack_optimizer(optimizer)
    # as in a file: the memory layout is lost
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    other = nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3)).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's
    fresh = kind(other.parameters(), lr=0.1, **options)
    unpack_module("weights", tensors, other)
    unpack_optimizer(tensors, fresh)
    step(module, optimizer)
    step(other, fresh)
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for parameter, entries in fresh.state.items():
        for value in entries.values():
            assert not isinstance(value, torch.Tensor) or value.ndim == 0 or value.stride() == parameter.stride()


def test_packed_tensors_are_copies() -> None:
    module, optimizer = trained(torch.optim.AdamW)
    tensors = pack_module("weights", module) | pack_optimizer(optimizer)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    step(module, optimizer)
    assert all(torch.equal(before[name], tensors[name]) for name in before)


def test_unused_optimiser_packs_nothing() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    assert pack_optimizer(optimizer) == {}
    unpack_optimizer({}, optimizer)
    assert optimizer.state_dict()["state"] == {}


def test_other_modules_are_refused() -> None:
    module, optimizer = trained(torch.optim.AdamW)
    with pytest.raises(ModelFileError, match="--weights-from instead of --resume"):
        unpack_module("weights", pack_module("weights", module), nn.Conv3d(1, 4, 3))
    with pytest.raises(ModelFileError, match="does not fit"):
        unpack_optimizer(pack_optimizer(optimizer), torch.optim.AdamW(nn.Linear(3, 3).parameters()))
    with pytest.raises(ModelFileError, match="more parameters"):
        unpack_optimizer(pack_optimizer(optimizer), torch.optim.AdamW([torch.zeros(3, 1, 3, 3, 3, requires_grad=True)]))


def test_generator_goes_on_alike() -> None:
    rng = np.random.default_rng(3)
    rng.integers(5, size=3)  # leaves half a word behind
    again = unpack_generator(json.loads(json.dumps(pack_generator(rng))))
    assert rng.integers(2**62) == again.integers(2**62)
    assert rng.normal() == again.normal()


@pytest.mark.parametrize("values", [{}, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64", "state": 5}])
def test_damaged_generator_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match="random numbers"):
        unpack_generator(values)
