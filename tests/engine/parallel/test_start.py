"""Which trainer is made, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from napari_unet3d.engine.config import RunRecord, TrainConfig, UNetConfig
from napari_unet3d.engine.device import DeviceChoice
from napari_unet3d.engine.errors import ConfigError, DeviceError
from napari_unet3d.engine.learner import Learner
from napari_unet3d.engine.losses import build_loss
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.parallel import start
from napari_unet3d.engine.parallel.group import Group
from napari_unet3d.engine.parallel.owner import ParallelTrainer
from napari_unet3d.engine.parallel.records import check_repeatable, difference_note
from napari_unet3d.engine.parallel.start import is_follower, local_device, make_trainer
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.training_setup import _batch_size
from napari_unet3d.engine.volume import AnnotatedVolume

NETWORK = UNetConfig(levels=2, filters=4, norm="batch")
CPU = torch.device("cpu")


@pytest.mark.parametrize(("processes", "kind"), [(None, Trainer), (1, Trainer), (2, ParallelTrainer)])
def test_several_processes_have_an_owner(
    make_volume: Callable[..., AnnotatedVolume], processes: int | None, kind: type
) -> None:
    trainer = make_trainer([make_volume()], NETWORK, TrainConfig(device="cpu", processes=processes))
    assert type(trainer) is kind


def test_batch_normalisation_is_synchronised_on_gpus_only(make_volume: Callable[..., AnnotatedVolume]) -> None:
    config = TrainConfig(device="cpu", processes=2, sync_batch_norm=True)
    with pytest.raises(ConfigError, match="sync_batch_norm = true needs GPUs, but the device is cpu"):
        make_trainer([make_volume()], NETWORK, config)


def test_synchronised_layers_stay_out_of_the_model() -> None:
    """The layers are exchanged in what learns; the average, which is validated and saved, keeps its own."""
    pair = Group()
    pair.size = 2
    config = TrainConfig(sync_batch_norm=True)
    network = build_network(NETWORK)
    learner = Learner(network, config, build_loss(config), CPU, "float32", pair)
    layers = [module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(layers) == sum(isinstance(module, nn.BatchNorm3d) for module in learner.average.network.modules()) > 0
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in learner.copy_of_average(None).modules())


def test_renormalisation_is_not_synchronised() -> None:
    pair = Group()
    pair.size = 2
    config = TrainConfig(sync_batch_norm=True)
    with pytest.raises(ConfigError, match="norm = batch, not batch_renorm"):
        Learner(build_network(NETWORK.updated(norm="batch_renorm")), config, build_loss(config), CPU, "float32", pair)


# --- torchrun ---------------------------------------------------------------------------------------------


def test_processes_of_torchrun_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_follower()
    for rank, follows in (("0", False), ("1", True)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        assert is_follower() == follows
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_follower()


def test_another_number_of_processes_is_refused(
    make_volume: Callable[..., AnnotatedVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="--processes 3 but torchrun started 2"):
        make_trainer([make_volume()], NETWORK, TrainConfig(processes=3))


def test_each_process_of_a_machine_takes_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [DeviceChoice(torch.device("cuda", index), "") for index in range(2)]
    named = {"auto": [DeviceChoice(torch.device("cuda"), "")], "cuda:all": gpus, "cpu": [DeviceChoice(CPU, "")]}
    monkeypatch.setattr(start, "choose_devices", lambda name: named[name])
    assert local_device("auto", 1) == torch.device("cuda", 1)
    assert local_device("cuda:all", 0) == torch.device("cuda", 0)
    assert local_device("cpu", 5) == CPU
    with pytest.raises(DeviceError, match="process 3 on this machine has no GPU"):
        local_device("auto", 2)


# --- batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "processes", "expected"),
    [("auto", "cpu", 1, 1), ("auto", "cpu", 3, 3), ("auto", "cuda", 2, 8), (5, "cpu", 2, 5)],
)
def test_every_process_has_a_patch(asked: int, device: str, processes: int, expected: int) -> None:
    config = TrainConfig(batch_size=asked)
    assert _batch_size(config, torch.device(device), None, processes) == expected


def test_batches_that_are_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size = 1 is too small for 2 processes; give at least 2"):
        _batch_size(TrainConfig(batch_size=1), CPU, None, 2)


def test_records_and_numbers_of_processes() -> None:
    record = RunRecord(
        steps=3, best_step=3, seconds=1, device="cpu", processes=4, precision="float32", threads=1, batch_size=8,
        batch_size_changes=((2, 4),), patch_size=(4, 16, 16), schedule=((0, 0.0, 0.1),),
    )  # fmt: skip
    check_repeatable(record, 4)
    with pytest.raises(ConfigError, match="took 4 patches in a step, too few for 5 processes"):
        check_repeatable(record, 5)
    assert difference_note(record, 4) == ""
    assert "had 4 processes, this one has 1: weights differ by rounding" in difference_note(record, 1)
