"""What a training run begins with: afresh, from a model's weights, or where another run stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from napari_unet3d.engine.classes import ClassInfo, default_classes
from napari_unet3d.engine.config import NetworkConfig, RunRecord, TrainConfig
from napari_unet3d.engine.device import DeviceChoice, Precision, choose_device, choose_precision
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.networks.build import Network, build_network
from napari_unet3d.engine.normalize import Normalization, fit_normalization
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.training_setup import network_for
from napari_unet3d.engine.volume import AnnotatedVolume, common_label_ids


class TrainingStart(NamedTuple):
    """Everything that is settled before the first event."""

    label_ids: tuple[int, ...]
    classes: tuple[ClassInfo, ...]
    network: Network
    normalization: Normalization
    device: torch.device
    device_reason: str
    precision: Precision
    is_fresh: bool
    """Whether the network was not trained before."""
    notes: tuple[str, ...]
    """What the user should know."""


def settle(
    volumes: Sequence[AnnotatedVolume],
    network: NetworkConfig,
    config: TrainConfig,
    origin: TrainedModel | None,
    past: RunRecord | None,
    named: Sequence[ClassInfo] = (),
) -> TrainingStart:
    """Settle classes, network, normalisation, device and precision.

    Parameters
    ----------
    volumes, network, config
        As of `Trainer`.
    origin
        The model to begin with.
    past
        Record of the run to repeat or to go on with.
    named
        Names and colours of label ids, which go before those of `origin` and before default ones.

    Raises
    ------
    UNet3dError
        As `Trainer`.
    """
    painted = common_label_ids(volumes)
    label_ids = origin.label_ids if origin else (past and past.label_ids) or painted
    notes = []
    left_out = [label_id for label_id in painted if label_id not in label_ids]
    if len(left_out) == len(painted):
        raise DataError(f"the ids {_list(painted)} are painted, but the model's classes are {_list(label_ids)}")
    if left_out:
        notes.append(f"the ids {_list(left_out)} are painted, but no classes of the model: they are left out")
    if past and past.from_weights and origin is None:
        notes.append("the recorded run began with the weights of another model; without them the result differs")
    network = network_for(volumes, network, label_ids)
    choice = choose_device(config.device)
    return TrainingStart(
        label_ids=label_ids,
        classes=_named(origin.classes if origin else default_classes(label_ids), named),
        network=network_with_weights(network, config, origin),
        normalization=(
            origin.normalization if origin else fit_normalization([v.image for v in volumes], config.normalize)
        ),
        device=choice.device,
        device_reason=choice.reason,
        precision=settled_precision(config, choice, past),
        is_fresh=origin is None,
        notes=tuple(notes),
    )


def _named(classes: Sequence[ClassInfo], named: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
    given = {entry.id: entry for entry in named}
    return tuple(given.get(entry.id, entry) for entry in classes)


def network_with_weights(config: NetworkConfig, train: TrainConfig, origin: TrainedModel | None) -> Network:
    """A network with random weights, the same for the same random state, or with those of a model.

    Raises
    ------
    ConfigError
        If the model's weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.random_state)
        network = build_network(config)
    if origin is not None:
        own, given = network.state_dict(), origin.network.state_dict()
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
            raise ConfigError(
                "the weights of the given model do not fit the network; use its own configuration "
                "(--config with the recipe that info MODEL --recipe writes), or leave --preset and --set away"
            )
        network.load_state_dict(given)
    return network


def settled_precision(config: TrainConfig, choice: DeviceChoice, past: RunRecord | None) -> Precision:
    """The recorded one, if the kind of device is the same."""
    if past is not None and past.device.split(":")[0] == choice.device.type:
        return past.precision
    return choose_precision(config.precision, choice.device)


def _list(label_ids: Sequence[int]) -> str:
    return ", ".join(map(str, label_ids))
