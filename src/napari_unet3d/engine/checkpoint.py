"""The state of a training run as named tensors and plain values, for model files; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from napari_unet3d.engine.errors import ModelFileError


def pack_module(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights and buffers, on the CPU, under names that begin with `prefix`."""
    return {f"{prefix}.{name}": value.detach().cpu().clone() for name, value in module.state_dict().items()}


def unpack_module(prefix: str, tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Put packed weights and buffers into a module.

    Raises
    ------
    ModelFileError
        If they do not fit.
    """
    state = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise ModelFileError(
            "the training state does not fit the network; use --weights-from instead of --resume"
        ) from None


def pack_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of every parameter, by its number."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for number, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def unpack_optimizer(tensors: Mapping[str, Tensor], optimizer: Optimizer) -> None:
    """Put packed moments into an optimiser whose settings are already right.

    Raises
    ------
    ModelFileError
        If they belong to other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    known = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, entries in state.items():
        if place >= len(parameters):
            raise ModelFileError("the training state has more parameters than the network; use --weights-from")
        for name, value in entries.items():
            entries[name] = _laid_out_like(parameters[place], value)
    optimizer.load_state_dict({"state": state, "param_groups": known["param_groups"]})


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of a packed moment, in the memory layout of its parameter, which files do not keep."""
    if value.ndim == 0:  # the count of steps
        return value.clone()
    if value.shape != parameter.shape:
        raise ModelFileError("the training state does not fit the network; use --weights-from instead of --resume")
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def pack_generator(rng: np.random.Generator) -> dict[str, Any]:
    """State of a NumPy generator as plain values."""
    return dict(rng.bit_generator.state)


def unpack_generator(values: Mapping[str, Any]) -> np.random.Generator:
    """A NumPy generator that goes on where the packed one stood.

    Raises
    ------
    ModelFileError
        If the values are of another kind of generator.
    """
    rng = np.random.default_rng()
    try:
        rng.bit_generator.state = dict(values)
    except (ValueError, TypeError, KeyError):
        raise ModelFileError("the state of the random numbers in the model file is damaged") from None
    return rng
