"""What training gives and prediction needs: the only thing that passes between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import Config, Recipe
from napari_unet3d.engine.normalize import Normalization


class StepRecord(Config):
    """One point of the loss curve: means over the steps since the point before."""

    step: int
    """Steps taken."""
    seconds: float
    """Wall time since the start."""
    loss: float
    """Partial loss."""
    learning_rate: float
    """Learning rate of the last step."""


class ValidationRecord(Config):
    """One point of the validation curve."""

    step: int
    """Steps taken."""
    seconds: float
    """Wall time since the start."""
    iou: tuple[float | None, ...]
    """IoU of each class on the held-out annotation; None where the class is in neither."""
    dice: tuple[float | None, ...]
    """Dice of each class."""
    mean_iou: float | None
    """Mean IoU of the structures (all classes but the first)."""
    agreement: float | None = None
    """Share of voxels labelled as the teacher does; None where there is no teacher."""


class History(Config):
    """The curves of a training run."""

    steps: tuple[StepRecord, ...] = ()
    """Loss."""
    validations: tuple[ValidationRecord, ...] = ()
    """Scores on held-out annotation."""
    notes: tuple[str, ...] = ()
    """What the user was told."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What `--resume` needs beyond the model: tensors by name and plain values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Network, weights, recipe and normalisation.

    Parameters
    ----------
    network
        In evaluation mode, float32, on the CPU: B C Z Y X normalised float32 -> logits B K Z Y X.
    recipe
        The whole configuration, and the record of the run.
    normalization
        From grey values to network input.
    classes
        Class index -> label id, name and colour. A network with one (sigmoid) channel has two classes.
    voxel_size
        Of the (first) training image.
    spatial_dims
        2 if it was trained on single-plane images, else 3.
    history
        Curves of the training.
    state
        Present only while training goes on, or with `--keep-state`.
    """

    network: nn.Module
    recipe: Recipe
    normalization: Normalization
    classes: tuple[ClassInfo, ...]
    voxel_size: VoxelSize
    spatial_dims: int = 3
    history: History = field(default_factory=History)
    state: TrainingState | None = None

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Label id of each class index."""
        return tuple(entry.id for entry in self.classes)

    @property
    def in_channels(self) -> int:
        """Channels an image must have."""
        return len(self.normalization.channels)
