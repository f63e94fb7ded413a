"""Where and in which arithmetic networks run."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple, TypeAlias

import psutil
import torch
from torch import nn

from napari_unet3d.engine.errors import DeviceError

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DeviceChoice(NamedTuple):
    """A device and, in a few words, why it was taken."""

    device: torch.device
    reason: str


def choose_device(name: str = "auto") -> DeviceChoice:
    """The device called `name`; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    DeviceError
        If the device is unknown or this machine or this PyTorch has none of it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return DeviceChoice(torch.device("cuda"), f"GPU found: {torch.cuda.get_device_name()}")
        if torch.backends.mps.is_available():
            return DeviceChoice(torch.device("mps"), "Apple GPU found")
        return DeviceChoice(torch.device("cpu"), _why_no_gpu())
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}; give auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(f"device {name!r} is not there ({_why_no_gpu()}); use --device auto or cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f"device {name!r} is not there; this machine has {torch.cuda.device_count()} GPUs")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("device 'mps' is not there: no Apple GPU; use --device auto or cpu")
    elif device.type != "cpu":
        raise DeviceError(f"unknown device {name!r}; give auto, cpu, cuda, cuda:N or mps")
    return DeviceChoice(device, "as asked for")


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return "no GPU in use: this PyTorch is a CPU build"
    return "no GPU in use: PyTorch finds no CUDA driver or device"


def choose_precision(asked: str, device: torch.device) -> Precision:
    """The arithmetic for a device: `asked`, or for ``auto`` the fastest one that trains safely.

    On a CPU a short trial decides between float32 and bfloat16, because only some processors have bfloat16 units.
    """
    if asked != "auto":
        return asked  # type: ignore[return-value]  # a Literal in the configuration
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu":
        return _fastest_cpu_precision()
    return "float32"


@functools.cache
def _fastest_cpu_precision() -> Precision:
    seconds = {precision: _trial_seconds(precision) for precision in ("float32", "bfloat16")}
    return "bfloat16" if seconds["bfloat16"] < 0.8 * seconds["float32"] else "float32"


def _trial_seconds(precision: str) -> float:
    """Best of three forward passes of one convolution, about 10 ms each."""
    layer = nn.Conv3d(16, 16, 3, padding=1)
    layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch's stub
    image = torch.ones(1, 16, 16, 32, 32).to(memory_format=torch.channels_last_3d)
    passes = []
    with torch.inference_mode(), autocast(torch.device("cpu"), precision):
        for _ in range(4):
            start = time.perf_counter()
            layer(image)
            passes.append(time.perf_counter() - start)
    return min(passes[1:])


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision on a device; float32 switches it off."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def memory_format(dimensions: int) -> torch.memory_format:
    """Channels last: what convolutions run fastest in, on CPUs and GPUs."""
    return torch.channels_last_3d if dimensions == 3 else torch.channels_last


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
