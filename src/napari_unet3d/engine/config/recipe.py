"""The whole configuration that produced, or will produce, a model, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from napari_unet3d.engine.config.distillation import DistillConfig
from napari_unet3d.engine.config.network import UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.config.settings import Config, Triple
from napari_unet3d.engine.config.training import TrainConfig

UnitState: TypeAlias = tuple[int, int, int, int, int, int, int, int]
HoldOutState: TypeAlias = tuple[float, Triple, int, tuple[UnitState, ...], tuple[UnitState, ...]]
"""Fraction, margin, number of units met, held-out units, all units met. A unit is volume, axis (-1: none),
start and stop (Z Y X)."""


class TeacherRecord(Config):
    """A model that a student learnt from."""

    name: str
    """Usually the name of its file."""
    fingerprint: str
    """SHA-256 of its weights, hexadecimal."""
    parameters: int
    """Trainable values of its network."""
    mean_iou: float | None = None
    """Best mean IoU of the structures on what was held out when it was trained."""


class RunRecord(Config):
    """What happened in a run, as much as is needed to repeat it step by step."""

    steps: int
    """Optimiser steps taken."""
    best_step: int
    """Step whose weights were kept."""
    seconds: float
    """Wall time of the run."""
    device: str
    """Where it ran; the first process's device."""
    processes: int = 1
    """Processes that shared the batches."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Arithmetic it began with."""
    precision_changes: tuple[tuple[int, Literal["float32", "bfloat16", "float16"]], ...] = ()
    """Step after which, and arithmetic to which it fell back."""
    threads: int
    """CPU threads."""
    batch_size: int
    """Patches in a step, at first."""
    batch_size_changes: tuple[tuple[int, int], ...] = ()
    """Step after which, and number of patches with which it went on because memory ran out."""
    patch_halvings: tuple[int, ...] = ()
    """Steps after which the patches were halved because memory ran out for a single one."""
    patch_size: Triple
    """Z Y X voxels of a patch, at first."""
    schedule: tuple[tuple[int, float, float], ...]
    """Knots of the schedule: from step s on, progress is p and grows by d a step."""
    validated_steps: tuple[int, ...] = ()
    """Steps after which the model was validated."""
    label_ids: tuple[int, ...] = ()
    """Label id of each class."""
    held_out: tuple[tuple[int, int, int], ...] = ()
    """Held-out slices: volume, axis (0 = Z), index."""
    hold_out: HoldOutState | None = None
    """The whole choice, loose strokes included."""
    from_weights: bool = False
    """Whether it began with the weights of another model."""
    teachers: tuple[TeacherRecord, ...] = ()
    """Whom a student learnt from."""
    stop_reason: str = ""
    """Why the run ended."""
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds spent on data, augmentation, forward and backward passes and validation."""


def _family(values: Any) -> str | None:
    """Family of a configuration, or of plain values, in which a U-Net need not be named."""
    kind = values.get("kind", "unet") if isinstance(values, Mapping) else getattr(values, "kind", None)
    return kind if isinstance(kind, str) else None


class Recipe(Config):
    """The whole configuration that produced, or will produce, a model."""

    network: Annotated[
        Annotated[UNetConfig, Tag("unet")] | Annotated[UNet3PlusConfig, Tag("unet3plus")], Discriminator(_family)
    ] = UNetConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """The training."""
    record: RunRecord | None = None
    """What happened; a recipe with a record is repeated by steps, not by the clock."""
    distill: DistillConfig | None = None
    """How it learnt from teachers; empty for a model that did not."""
