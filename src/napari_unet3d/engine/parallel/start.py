"""Which kind of trainer a configuration and the surroundings ask for."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any

import torch

from napari_unet3d.engine.config import NetworkConfig, TrainConfig
from napari_unet3d.engine.device import choose_device, choose_devices
from napari_unet3d.engine.errors import ConfigError, DeviceError
from napari_unet3d.engine.parallel.group import Group, ProcessGroup
from napari_unet3d.engine.parallel.owner import ParallelTrainer
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume


def make_trainer(
    volumes: Sequence[AnnotatedVolume], network: NetworkConfig, config: TrainConfig, **options: Any
) -> Trainer | ParallelTrainer:
    """A trainer in this process, one that takes part in what torchrun started, or the owner of processes.

    Parameters
    ----------
    volumes, network, config, **options
        As of `Trainer`.

    Raises
    ------
    UNet3dError
        As `Trainer`.
    """
    if is_one_of_several():
        return Trainer(volumes, network, config, group=_joined_group(config), **options)
    devices = choose_devices(config.device, config.processes)
    if len(devices) > 1:
        check_batch_norm(config, devices[0].device)
        return ParallelTrainer(volumes, network, config, devices, **options)
    return Trainer(volumes, network, config, **options)


def is_one_of_several() -> bool:
    """Whether torchrun, or another program that sets the same variables, started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_follower() -> bool:
    """Whether another process started beside this one decides and tells what happens."""
    return is_one_of_several() and os.environ["RANK"] != "0"


def _joined_group(config: TrainConfig) -> Group:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    if config.processes not in (None, size):
        raise ConfigError(f"--processes {config.processes} but torchrun started {size}; leave --processes away")
    device = local_device(config.device, local)
    check_batch_norm(config, device)
    group = ProcessGroup(rank, size, device, "env://")
    atexit.register(group.close)
    return group


def local_device(name: str, local: int) -> torch.device:
    """The device of the process with this number on its machine.

    Raises
    ------
    DeviceError
        If there are fewer GPUs than processes on this machine.
    """
    choices = choose_devices(name)
    if len(choices) == 1 and choices[0].device.type == "cuda" and choices[0].device.index is None:
        choices = choose_devices("cuda:all")
    if choices[0].device.type == "mps":
        return choose_device("cpu").device
    if choices[0].device.type == "cpu":
        return choices[0].device
    if local >= len(choices):
        raise DeviceError(
            f"process {local + 1} on this machine has no GPU: --device {name} stands for {len(choices)}; start fewer "
            "processes on each machine, or use --device cpu"
        )
    return choices[local].device


def check_batch_norm(config: TrainConfig, device: torch.device) -> None:
    """Refuse to synchronise batch normalisation where PyTorch cannot.

    Raises
    ------
    ConfigError
        If it is asked for and the device is no GPU.
    """
    if config.sync_batch_norm and device.type != "cuda":
        raise ConfigError(f"train.sync_batch_norm = true needs GPUs, but the device is {device}; set it to false")
