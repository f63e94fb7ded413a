from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from napari_unet3d.engine import device
from napari_unet3d.engine.device import (
    autocast,
    choose_device,
    choose_devices,
    choose_precision,
    free_memory,
    memory_format,
)
from napari_unet3d.engine.errors import DeviceError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


@pytest.fixture
def two_gpus(machine: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 2)
    machine.setattr(torch.cuda, "get_device_name", lambda: "Fine GPU")
    return machine


@pytest.fixture(autouse=True)
def _no_remembered_trial() -> Iterator[None]:
    device._fastest_cpu_precision.cache_clear()
    yield
    device._fastest_cpu_precision.cache_clear()


def test_auto_takes_the_cpu_and_says_why(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.version, "cuda", None)
    assert choose_device() == (CPU, "no GPU in use: this PyTorch is a CPU build")
    machine.setattr(torch.version, "cuda", "12.8")
    assert choose_device() == (CPU, "no GPU in use: PyTorch finds no CUDA driver or device")


def test_auto_prefers_cuda_then_mps(two_gpus: pytest.MonkeyPatch) -> None:
    two_gpus.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == (CUDA, "GPU found: Fine GPU")
    two_gpus.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").device == MPS


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_asked_for_gpu_is_taken(two_gpus: pytest.MonkeyPatch, name: str) -> None:
    assert choose_device(name) == (torch.device(name), "as asked for")


def test_a_gpu_too_many_is_refused(two_gpus: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"'cuda:2' is not there; this machine has 2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_missing_cuda_is_refused(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(DeviceError, match=rf"'{name}' is not there \(no GPU .*; use --device auto or cpu"):
        choose_device(name)


def test_missing_mps_is_refused(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="no Apple GPU; use --device auto or cpu"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:x", "cuda:-1", "meta", "xpu", "c\nd"])
def test_unknown_devices_are_refused(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(DeviceError, match=r"unknown device .* give auto, cpu, cuda, cuda:N or mps") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


# --- precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_asked_for_precision_is_taken(precision: str) -> None:
    assert choose_precision(precision, CPU) == precision


@pytest.mark.parametrize(("supported", "precision"), [(True, "bfloat16"), (False, "float16")])
def test_gpus_without_bfloat16_take_float16(two_gpus: pytest.MonkeyPatch, supported: bool, precision: str) -> None:
    two_gpus.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert choose_precision("auto", CUDA) == precision


def test_apple_gpus_take_float32() -> None:
    assert choose_precision("auto", MPS) == "float32"


@pytest.mark.parametrize(("seconds", "precision"), [(0.5, "bfloat16"), (0.9, "float32"), (2.0, "float32")])
def test_cpus_take_what_is_clearly_faster(monkeypatch: pytest.MonkeyPatch, seconds: float, precision: str) -> None:
    trials = {"float32": 1.0, "bfloat16": seconds}
    monkeypatch.setattr(device, "_trial_seconds", trials.pop)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("auto", CPU) == precision  # tried once only: the trials are used up


def test_the_trial_runs_here() -> None:
    assert choose_precision("auto", CPU) in ("float32", "bfloat16")


def test_autocast_follows_the_precision() -> None:
    layer, image = torch.nn.Conv3d(1, 1, 1), torch.ones(1, 1, 2, 2, 2)
    for precision, dtype in device.DTYPES.items():
        with autocast(CPU, precision):
            assert layer(image).dtype == dtype
    assert layer(image).dtype == torch.float32


def test_float32_switches_an_outer_autocast_off() -> None:
    with autocast(CPU, "bfloat16"), autocast(CPU, "float32"):
        assert torch.nn.Linear(1, 1)(torch.ones(1)).dtype == torch.float32


def test_memory() -> None:
    assert memory_format(3) is torch.channels_last_3d
    assert memory_format(2) is torch.channels_last
    assert free_memory(CPU) > 1_000_000


def test_free_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5, 9))
    assert free_memory(CUDA) == 5


# --- several ----------------------------------------------------------------------------------------------


def devices(*arguments: Any) -> list[str]:
    return [str(choice.device) for choice in choose_devices(*arguments)]


@pytest.mark.parametrize(
    ("name", "processes", "expected"),
    [
        ("auto", None, ["cuda"]),
        ("auto", 1, ["cuda"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda:all", None, ["cuda:0", "cuda:1"]),
        ("cuda:all", 2, ["cuda:0", "cuda:1"]),
        ("cuda:1, cuda:0", None, ["cuda:1", "cuda:0"]),
        ("cpu", 3, ["cpu", "cpu", "cpu"]),
        ("cpu", None, ["cpu"]),
    ],
)
def test_a_device_for_each_process(
    two_gpus: pytest.MonkeyPatch, name: str, processes: int | None, expected: list[str]
) -> None:
    assert devices(name, processes) == expected


@pytest.mark.parametrize(
    ("name", "processes", "message"),
    [
        ("cuda", 3, "3 processes need as many GPUs, but cuda stands for 2"),
        ("cuda:1", 2, "cuda:1 stands for 1"),
        ("cuda:0,cuda:0", None, "names a GPU twice"),
        ("cuda:0,cuda", None, "names a GPU twice"),
        ("cpu,cpu", None, "not only GPUs; for a CPU give --processes N"),
        ("cuda:0,cuda:1", 3, "has 2 GPUs but --processes is 3"),
        ("cuda:0,cuda:7", None, "'cuda:7' is not there"),
        ("cuda:0,", None, "unknown device ''"),
    ],
)
def test_devices_that_do_not_fit_the_processes(
    two_gpus: pytest.MonkeyPatch, name: str, processes: int | None, message: str
) -> None:
    with pytest.raises(DeviceError, match=re.escape(message)):
        choose_devices(name, processes)


@pytest.mark.parametrize(("name", "first"), [("cuda:all", "cuda:0"), ("cuda:1,cuda:0", "cuda:1")])
def test_work_for_one_device_takes_the_first(two_gpus: pytest.MonkeyPatch, name: str, first: str) -> None:
    assert choose_device(name) == (torch.device(first), f"the first of {name}: this work takes one")


def test_all_gpus_where_there_is_none(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="is not there"):
        choose_devices("cuda:all")


def test_an_apple_gpu_is_a_single_one(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="mps stands for 1"):
        choose_devices("auto", 2)
