"""From volumes and settings to what the training loop works on: fitted network, patch sizes, sources, sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.engine.config import HoldOutState, NetworkConfig, RunRecord, TrainConfig, Triple
from napari_unet3d.engine.describe import Description
from napari_unet3d.engine.device import free_memory
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.holdout import HoldOut, margin_for
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.normalize import Normalization
from napari_unet3d.engine.patch_shapes import Orientation, planned_patches
from napari_unet3d.engine.patch_source import PatchSource
from napari_unet3d.engine.sampling import PatchSampler
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.training_data import TrainingData, known_labels
from napari_unet3d.engine.volume import AnnotatedVolume

_GPU_BATCH: Final = 4
_KEPT_SHARE: Final = 0.4
"""Of the free memory, for features that are computed once."""

_GAIN_SAMPLES: Final = 4
_GAIN_BLOCK: Final = 40


def network_for(volumes: Sequence[AnnotatedVolume], network: NetworkConfig, label_ids: Sequence[int]) -> NetworkConfig:
    """The network with ``auto`` kernels and strides settled for the first volume.

    Raises
    ------
    ConfigError
        If channels, classes or dimensions do not fit the volumes.
    DataError
        If the volumes differ in channels.
    """
    first = volumes[0].image
    for volume in volumes[1:]:
        if volume.image.channels != first.channels:
            raise DataError(
                f"{volume.image.name} has {volume.image.channels} channels but {first.name} has {first.channels}; "
                "train on volumes with the same channels"
            )
    if network.dimensions == 3 and first.spatial_dims == 2:
        raise ConfigError(
            f"{first.name} is a 2D image but the network is three-dimensional; use --set network.dimensions=2, "
            "or name the axes with --axes if it is a volume"
        )
    if network.plane_axis != "z" and first.spatial_dims == 2:
        raise ConfigError(
            f"{first.name} is a 2D image, with no planes across other axes; set network.plane_axis to z, or name the "
            "axes with --axes if it is a volume"
        )
    if network.in_channels != first.channels:
        raise ConfigError(
            f"network.in_channels = {network.in_channels} but {first.name} has {first.channels} channels; "
            f"set network.in_channels to {first.channels}"
        )
    if network.label_count != len(label_ids):
        is_sigmoid = network.head == "sigmoid"
        needed = f"{len(label_ids) - is_sigmoid}"
        if is_sigmoid:
            needed += ": with network.head = sigmoid the lowest id, the background, has no channel"
        raise ConfigError(
            f"network.classes = {network.classes} but {len(label_ids)} classes are annotated (ids "
            f"{', '.join(map(str, label_ids))}); set network.classes to {needed}"
        )
    return network.for_voxels(first.voxel_size)


class Prepared(NamedTuple):
    """What `prepare_data` gives."""

    data: TrainingData
    batch_size: int
    patch_size: Triple
    """Z Y X input voxels of a patch on slices across the first axis."""


def prepare_data(
    volumes: Sequence[AnnotatedVolume],
    label_ids: Sequence[int],
    network: Network,
    config: TrainConfig,
    *,
    normalization: Normalization,
    device: torch.device,
    dtype: torch.dtype,
    rng: np.random.Generator,
    fit_gain: bool,
    hold_out_state: HoldOutState | None = None,
    record: RunRecord | None = None,
    validation_volumes: Sequence[int] = (),
    make_data: Callable[..., TrainingData] = TrainingData,
    processes: int = 1,
) -> Prepared:
    """Choose the hold-out, open the volumes, plan the patches.

    Parameters
    ----------
    fit_gain
        Bring the features to similar size first; false where a model brings its own.
    hold_out_state
        A hold-out to go on with, as `HoldOut.to_state` gives it.
    record
        A run to repeat or to go on with, with its batch size.
    validation_volumes
        Indices of volumes that are held out whole; of the others nothing is held out then.
    make_data
        Takes what `TrainingData` takes.
    processes
        How many prepare the same at the same time, to share batches of at least one patch for each.

    Raises
    ------
    ConfigError
        If a batch has too few patches for the processes, or patches are too small for the normalisation.
    """
    labels = [known_labels(volume.labels, label_ids) for volume in volumes]
    if hold_out_state is not None:
        hold_out = HoldOut.from_state(hold_out_state, labels).extended()
    else:
        margin = margin_for(volumes[0].image.voxel_size)
        fraction = 0.0 if validation_volumes else config.validation
        hold_out = HoldOut.choose(labels, fraction, rng, margin, validation_volumes)
    if fit_gain:
        _fit_gain(network, volumes, normalization)
    sources = _open_sources(volumes, network, normalization, device, dtype, config.resident, processes)
    for source in sources:
        source.make_room()
    training = [hold_out.training_labels(i) for i in range(len(volumes))]
    sampler = _sampler(volumes, training, label_ids, network, config)
    data = make_data(volumes, label_ids, sources, labels, hold_out, sampler, network.config, config.augment, device)
    batch_size = _batch_size(config, device, record, processes)
    together = batch_size if config.sync_batch_norm else batch_size // processes
    _check_statistics(network.description, sampler.shapes, together)
    return Prepared(data, batch_size, sampler.shapes[0])


def _batch_size(config: TrainConfig, device: torch.device, record: RunRecord | None, processes: int) -> int:
    """Patches in a step, at least one for each process."""
    if record is not None:
        return max(record.batch_size, processes)
    if config.batch_size == "auto":
        return processes * (1 if device.type == "cpu" else _GPU_BATCH)
    if config.batch_size < processes:
        raise ConfigError(
            f"train.batch_size = {config.batch_size} is too small for {processes} processes; give at least "
            f"{processes}, auto, or fewer --processes"
        )
    return config.batch_size


def residence_note(sources: Sequence[PatchSource], device: torch.device) -> str:
    """Where the volumes lie, if that is not in the memory of the device; empty if it is."""
    places = {source.kept_on for source in sources}
    if device.type == "cpu" or places == {device}:
        return ""
    if None in places:
        return "the volume is not kept in memory: features are computed anew for every patch"
    return f"the volume lies in the computer's memory, not in that of {device}"


def _open_sources(
    volumes: Sequence[AnnotatedVolume],
    network: Network,
    normalization: Normalization,
    device: torch.device,
    dtype: torch.dtype,
    resident: Literal["auto", "device", "host", "off"],
    processes: int,
) -> list[PatchSource]:
    channels = network.config.body_channels
    needed = sum(PatchSource.needed_bytes(volume.image, channels, dtype) for volume in volumes)
    z, y, x = (axis.feature_radius for axis in network.description.geometry)
    reach = (z, y, x)
    needed += sum(math.prod(volume.image.shape) for volume in volumes)  # labels
    keep = _keeper(needed, device, resident, processes)
    return [
        PatchSource(volume.image, normalization, network.inputs, reach, channels, device, dtype, keep)
        for volume in volumes
    ]


def _keeper(
    needed: int, device: torch.device, resident: Literal["auto", "device", "host", "off"], processes: int
) -> torch.device | None:
    """In whose memory to keep so many bytes."""
    host = torch.device("cpu")
    if resident != "auto":
        return {"device": device, "host": host, "off": None}[resident]
    for place in (device, host):
        holders = processes if place.type == "cpu" else 1  # each process has its own copy, and GPUs their own memory
        if holders * needed <= _KEPT_SHARE * free_memory(place):
            return place
    return None


def _fit_gain(network: Network, volumes: Sequence[AnnotatedVolume], normalization: Normalization) -> None:
    """Divide every feature by its standard deviation over blocks spread along the volumes' diagonals."""
    if network.config.features == "none":
        return
    gain = network.features.gain
    assert isinstance(gain, torch.Tensor)
    squares = torch.zeros_like(gain, dtype=torch.float64)
    blocks = 0
    for volume in volumes:
        for place in (np.arange(_GAIN_SAMPLES) + 0.5) / _GAIN_SAMPLES:
            starts = [int(place * max(0, n - _GAIN_BLOCK)) for n in volume.image.shape]
            z, y, x = (slice(start, start + _GAIN_BLOCK) for start in starts)
            grey = torch.from_numpy(normalization.apply(volume.image.read((z, y, x)))).to(gain.device)
            with torch.inference_mode():
                squares += network.inputs(grey[None])[0].double().var((1, 2, 3), correction=0)
            blocks += 1
    deviation = (squares / blocks).sqrt()
    gain.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 1.0))


def _sampler(
    volumes: Sequence[AnnotatedVolume],
    training: Sequence[NDArray[np.unsignedinteger]],
    label_ids: Sequence[int],
    network: Network,
    config: TrainConfig,
) -> PatchSampler:
    extent = [max(volume.image.shape[axis] for volume in volumes) for axis in range(3)]
    shapes = planned_patches(network.description, config.patch_size, extent)
    border = list(network.description.margin)
    for across in network.config.plane_axes:  # at the ends of a patch neighbouring planes are missing
        least = min(shape[across] for shape in shapes.values())
        border[across] += min(network.config.neighbours, (least - 1) // 2)
    z, y, x = border
    return PatchSampler(
        training,
        label_ids,
        shapes=shapes,
        border=(z, y, x),
        beyond=Footprint.of(network.config).border,
        margin=margin_for(volumes[0].image.voxel_size),
    )


def _check_statistics(network: Description, shapes: Mapping[Orientation, Triple], batch_size: int) -> None:
    """Refuse patches that leave a single voxel to normalise over."""
    is_over_batch = network.config.has_batch_statistics
    if not is_over_batch and network.config.norm != "instance":
        return
    patches = batch_size if is_over_batch else 1
    for shape in shapes.values():
        if patches * math.prod(network.shapes(shape)[-1].encoder) == 1:
            raise ConfigError(
                f"network.levels = {network.config.levels} leaves one voxel of a patch of {shape} (Z Y X) on the "
                f"coarsest level, too few for network.norm = {network.config.norm}; use fewer levels, a larger "
                "train.patch_size or network.norm = group"
            )
