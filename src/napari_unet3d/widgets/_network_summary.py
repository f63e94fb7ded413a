"""What a network means for the volume that is open: cost, reach, what to beware of. Imports neither Qt nor torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, TrainConfig, Triple
from napari_unet3d.engine.describe import Description, describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.patch_shapes import planned_patches

_UNKNOWN_VOLUME: Final = (64, 256, 256)
"""Z Y X voxels that patches are planned for while no image is open."""

_PREDICTION_TILE: Final = 128
"""Longest side of the tile that memory is told for."""

_FLOAT32: Final = 4
_BACKWARD: Final = 3
"""Work of a training step over that of a prediction: forward, and two gradients of the same size."""


class Fact(NamedTuple):
    """A line of the summary."""

    name: str
    value: str
    help: str


@dataclass(frozen=True)
class Surroundings:
    """What is open, and where it will run.

    Attributes
    ----------
    image_shape
        Z Y X of the open image; None without one.
    voxel_size
        Of the open image; None without one.
    train
        Settings of the training.
    machine_rate
        Multiply-additions a second in training; None before they are measured.
    free_memory
        Bytes that are free; None where unknown.
    """

    image_shape: Triple | None = None
    voxel_size: VoxelSize | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    machine_rate: float | None = None
    free_memory: int | None = None


@dataclass(frozen=True)
class Summary:
    """All there is to show about a network.

    Attributes
    ----------
    network
        With ``auto`` kernels and strides settled for the voxels.
    patch
        Z Y X voxels of a training patch along the slices; None if none fits.
    facts, warnings
        For people.
    """

    network: Description
    patch: Triple | None
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]


def summarize(config: NetworkConfig, around: Surroundings) -> Summary:
    """Look at a configuration in its surroundings."""
    network = describe(config.for_voxels(around.voxel_size) if around.voxel_size else config)
    patch = _patch(network, around)
    return Summary(network, patch, tuple(_facts(network, patch, around)), tuple(_warnings(network, patch, around)))


def _patch(network: Description, around: Surroundings) -> Triple | None:
    extent = around.image_shape or _UNKNOWN_VOLUME
    patch = planned_patches(network, around.train.patch_size, extent)[0]
    try:
        network.shapes(patch)
    except ConfigError:
        return None
    return patch


# --- facts ------------------------------------------------------------------------------------------------


def _facts(network: Description, patch: Triple | None, around: Surroundings) -> Iterator[Fact]:
    yield Fact("Parameters", f"{network.parameters:,}", "Numbers that training adjusts.")
    yield Fact(
        "Receptive field",
        reach_text(network.receptive_field, around.voxel_size),
        "How much of the image, Z × Y × X, can change the result for one voxel. Normalisation over whole patches "
        "(instance, group) is not counted.",
    )
    if patch is not None:
        yield from _patch_facts(network, patch, around)
    tile = _tile(network, around)
    yield Fact(
        "Memory: apply",
        amount(network.memory(tile, training=False, bytes_per_value=_FLOAT32)),
        f"For a tile of {times(tile)} voxels in float32; half of it in bfloat16. Larger volumes are predicted tile by "
        "tile and need no more.",
    )


def _patch_facts(network: Description, patch: Triple, around: Surroundings) -> Iterator[Fact]:
    batch = 1 if around.train.batch_size == "auto" else around.train.batch_size
    what = "one patch" if batch == 1 else f"{batch} patches"
    yield Fact(
        "Training patch",
        f"{times(patch)} voxels",
        "Z × Y × X voxels of what the network is shown at a time, along slices painted across Z; the drawing has its "
        "sizes. Set it with the patch size of the training.",
    )
    operations = network.operations(patch)
    yield Fact(
        "Operations",
        f"{count(operations)} a patch\n{count(operations / math.prod(patch))} a voxel",
        "Multiplications with an addition, to predict one patch. Training takes about three times as many.",
    )
    yield Fact(
        "Memory: train",
        amount(_training_memory(network, patch, batch)),
        f"For {what} in a step in float32, optimiser included; about half in bfloat16.",
    )
    yield Fact(
        "Time of a step",
        step_seconds_text(operations * batch, around.machine_rate),
        f"For {what} in a step, from the speed of the last training on this machine.",
    )


def _training_memory(network: Description, patch: Triple, batch: int) -> int:
    return network.memory(patch, training=True, bytes_per_value=_FLOAT32, batch_size=batch)


def _tile(network: Description, around: Surroundings) -> Triple:
    z, y, x = (min(side, _PREDICTION_TILE) for side in around.image_shape or _UNKNOWN_VOLUME)
    return network.legal_shape((1 if network.config.dimensions == 2 else z, y, x))


def _is_padded(network: Description) -> bool:
    return not any(network.margin)


# --- warnings ---------------------------------------------------------------------------------------------


def _warnings(network: Description, patch: Triple | None, around: Surroundings) -> Iterator[str]:
    shape, config = around.image_shape, network.config
    if shape is not None and shape[0] == 1 and config.dimensions == 3:
        yield "The open image is a single plane but the network is three-dimensional: set dimensions to 2."
    elif shape is not None:
        yield from _size_warnings(network, shape)
    if patch is not None:
        yield from _patch_warnings(network, patch, around)
    if config.padding == "valid" and shape is not None and patch is not None:
        short = [name for name, side, needed in zip("ZYX", shape, patch, strict=True) if side < needed]
        if short:
            yield (
                f"A patch of {times(patch)} voxels reaches beyond the image along {', '.join(short)}; with padding = "
                "same patches may be smaller."
            )


def _size_warnings(network: Description, shape: Triple) -> Iterator[str]:
    for name, side, stride in zip("ZYX", shape, network.total_stride, strict=True):
        if _is_padded(network) and side < stride:
            yield (
                f"The image is {side} long along {name} but {network.config.levels} levels join {stride} voxels there: "
                f"most of what the network sees is padding. Use fewer levels, or strides of 1 along {name}."
            )


def _patch_warnings(network: Description, patch: Triple, around: Surroundings) -> Iterator[str]:
    config = network.config
    batch = 1 if around.train.batch_size == "auto" else around.train.batch_size
    coarsest = network.shapes(patch)[-1].encoder
    if config.has_batch_statistics or config.norm == "instance":
        patches = batch if config.has_batch_statistics else 1
        if patches * math.prod(coarsest) == 1:
            yield (
                f"{config.levels} levels leave a single voxel of a patch of {times(patch)} voxels, too few for norm = "
                f"{config.norm}, and training will refuse: use fewer levels, a larger patch or norm = group."
            )
    wanted = around.train.patch_size
    if wanted != "auto" and wanted != patch:
        yield f"Patches of {times(wanted)} voxels do not fit the levels; {times(patch)} are used."
    needed = _training_memory(network, patch, batch)
    if around.free_memory is not None and needed > around.free_memory:
        yield (
            f"Training needs about {amount(needed)} but {amount(around.free_memory)} are free: use fewer filters or "
            "levels, or a smaller patch."
        )


# --- words ------------------------------------------------------------------------------------------------


def reach_text(voxels: Triple, voxel_size: VoxelSize | None) -> str:
    """``44×92×92 voxels``, and below it the lengths where the voxel size is known."""
    text = f"{times(voxels)} voxels"
    if voxel_size is None or voxel_size.unit == "pixel":
        return text
    lengths = " × ".join(f"{n * edge:.3g}" for n, edge in zip(voxels, voxel_size.zyx, strict=True))
    return f"{text}\n{lengths} {voxel_size.symbol}"


def training_rate(operations: float, seconds: float) -> float:
    """Multiply-additions a second of a training step, from the operations of predicting its patches."""
    return _BACKWARD * operations / seconds


def step_seconds_text(operations: float, rate: float | None) -> str:
    """Seconds of a training step, from the operations of predicting its patches and the rate of `training_rate`."""
    if not rate:
        return "measured when training starts"
    seconds = _BACKWARD * operations / rate
    return f"about {seconds:.2g} s" if seconds < 10 else f"about {seconds:.0f} s"


def times(values: Triple) -> str:
    """``12×80×80``."""
    return "×".join(map(str, values))


def amount(size: float) -> str:
    """Bytes with a decimal prefix."""
    return f"{size / 1e9:.2g} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def count(number: float) -> str:
    """A count with three digits, in words where it is large: ``36,900``, ``3.24 billion``."""
    for limit, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= limit:
            return f"{number / limit:.3g} {word}"
    return f"{float(f'{number:.3g}'):,.0f}"
