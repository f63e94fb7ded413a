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


_ALL_GPUS: Final = "cuda:all"


class DeviceChoice(NamedTuple):
    """A device and, in a few words, why it was taken."""

    device: torch.device
    reason: str


def choose_device(name: str = "auto") -> DeviceChoice:
    """The device called `name`; ``auto`` takes CUDA, then MPS, then the CPU. Of several, the first.

    Raises
    ------
    DeviceError
        If the device is unknown or this machine or this PyTorch has none of it.
    """
    if name == _ALL_GPUS or "," in name:
        return DeviceChoice(choose_devices(name)[0].device, f"the first of {name}: this work takes one")
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


def choose_devices(name: str = "auto", processes: int | None = None) -> list[DeviceChoice]:
    """One device for each process that shall train.

    Parameters
    ----------
    name
        As of `choose_device`, or several GPUs: ``cuda:0,cuda:1`` or ``cuda:all``.
    processes
        How many; None: one for each device named. Several on one CPU share its cores, several GPUs are taken from the
        first on where none is numbered.

    Raises
    ------
    DeviceError
        If a device is unknown or missing, is named twice, or there are not as many devices as processes.
    """
    names = [part.strip() for part in name.split(",")]
    if name == _ALL_GPUS:
        choose_device("cuda")
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if len(names) == 1 and processes is not None and processes > 1:
        return _several(choose_device(names[0]), processes)
    choices = [choose_device(each) for each in names]
    if len(choices) > 1 and any(choice.device.type != "cuda" for choice in choices):
        raise DeviceError(f"--device {name} names several devices, but not only GPUs; for a CPU give --processes N")
    if len({choice.device.index or 0 for choice in choices}) < len(choices):
        raise DeviceError(f"--device {name} names a GPU twice; give each once")
    if processes not in (None, len(choices)):
        raise DeviceError(
            f"--device {name} has {len(choices)} GPUs but --processes is {processes}; leave one of them away"
        )
    return choices


def _several(choice: DeviceChoice, processes: int) -> list[DeviceChoice]:
    """So many devices of a kind."""
    device = choice.device
    if device.type == "cpu":
        return [choice] * processes
    available = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    if processes > available:
        raise DeviceError(
            f"{processes} processes need as many GPUs, but {device} stands for {available}; use --device cuda:all, "
            f"--device cpu, or --processes {available}"
        )
    return [DeviceChoice(torch.device("cuda", index), choice.reason) for index in range(processes)]


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
