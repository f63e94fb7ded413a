"""The state of one viewer's workbench. Docks are views of it; nothing here knows Qt, napari or torch."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from psygnal import SignalGroupDescriptor

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo, default_classes
from napari_unet3d.engine.config import PredictConfig, TrainConfig

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel

__all__ = ["Curves", "Phase", "Progress", "Session", "session_of"]


class Phase(StrEnum):
    """What training is doing."""

    IDLE = "idle"
    PREPARING = "preparing"
    TRAINING = "training"
    PAUSED = "paused"
    STOPPING = "stopping"

    @property
    def is_running(self) -> bool:
        """Whether a run exists, waiting or not."""
        return self is not Phase.IDLE


class Progress(NamedTuple):
    """How far a long action is."""

    fraction: float | None = None
    """0..1; None where the end is open."""
    text: str = ""
    """One line for the user, time left included."""


class Point(NamedTuple):
    """One point of a curve of the held-out score."""

    step: int
    seconds: float
    mean_iou: float
    iou: Mapping[int, float]
    """For each label id; NaN where the class is not on the held-out slices."""


@dataclass(eq=False)
class Curves:
    """Points gathered during a run; lists grow in place, the session's `curves_version` tells of it."""

    losses: list[tuple[int, float, float]] = field(default_factory=list)
    """Step, seconds, loss."""
    validations: list[Point] = field(default_factory=list)
    """Scores on held-out slices."""


@dataclass(eq=False)
class Session:
    """What all docks of one viewer share. ``session.events.<field>`` tells when a field was set to another value."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    # --- what the user chose
    network_preset: str = "fast"
    """Name of the preset."""
    network_settings: dict[str, Any] = field(default_factory=dict)
    """Fields that differ from the preset."""
    train_config: TrainConfig = field(default_factory=lambda: TrainConfig(seconds=60))
    """Budget and all that belongs to training."""
    predict_config: PredictConfig = field(default_factory=PredictConfig)
    """How a model is applied."""
    classes: tuple[ClassInfo, ...] = field(default_factory=lambda: default_classes((1, 2)))
    """Label id, name and colour of what is painted, background first."""

    # --- what is open
    image_channels: int = 1
    """Channels of the chosen image."""
    class_count: int = 2
    """Classes that are painted or listed."""
    voxel_size: VoxelSize | None = None
    """Z Y X edge lengths of the chosen image; None without image."""
    image_shape: tuple[int, int, int] | None = None
    """Z Y X of the chosen image; None without image."""

    # --- what is going on
    phase: Phase = Phase.IDLE
    """Of training."""
    is_applying: bool = False
    """Whether a prediction is running."""
    training_progress: Progress = field(default_factory=Progress)
    """Of training."""
    applying_progress: Progress = field(default_factory=Progress)
    """Of the prediction."""
    device: str = ""
    """Where training runs, and why there."""
    message: str = ""
    """The last sentence the user should read; empty: none."""
    is_warning: bool = False
    """Whether `message` tells of something to act on."""
    held_out: tuple[tuple[int, int, int], ...] = ()
    """Volume, axis and index of the slices that are measured on, not trained on."""
    curves_version: int = 0
    """Grows whenever `curves` does."""
    kept: str = ""
    """What an earlier session left of the chosen image and offers back; empty: nothing."""
    machine_rate: float | None = None
    """Multiply-additions a second in training, measured in the last run; None before."""

    # --- what came of it
    model: TrainedModel | None = None
    """The newest trained or loaded model."""
    model_origin: str = ""
    """Where the model comes from, for people."""

    def __post_init__(self) -> None:
        self.curves = Curves()

    def tell(self, message: str, *, warning: bool = False) -> None:
        """Show a sentence to the user."""
        self.is_warning = warning
        self.message = message


_SESSIONS: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()


def session_of(viewer: Any) -> Session:
    """The session of a viewer, made on first use; a proxy of a viewer has the same as the viewer."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    if viewer not in _SESSIONS:
        _SESSIONS[viewer] = Session()
    return _SESSIONS[viewer]
