"""What a running engine tells its owner (events) and what the owner may tell it (the inbox).

The trainer, the predictor and the distiller are generators of the frozen events below. The owner of such a
generator speaks to it only through the `Inbox` it passed in; the generator empties it between two steps.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Box: TypeAlias = tuple[slice, slice, slice]
"""Z Y X slices with explicit non-negative start and stop."""


# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The work begins; says where and how it runs, `threads` being those of each of the `processes`."""

    device: str
    device_reason: str
    precision: str
    threads: int
    processes: int = 1


@dataclass(frozen=True)
class Note:
    """A sentence the user should read."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Preparing:
    """Progress before the first step (copying, asking a teacher), `fraction` in 0..1."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Stepped:
    """One training step is done.

    `loss` is the partial loss of the step, `seconds` the wall time since the start, `seconds_left` an
    estimate or None where training has an open end.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    seconds_left: float | None
    loss_terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassScore:
    """Agreement on one class over the scored voxels; NaN where the class is in neither."""

    class_id: int
    iou: float
    dice: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Validated:
    """Scores on the held-out annotation. `mean_iou` is over the structures (background left out).

    `agreement` is the share of voxels that a student labels as its teacher does, None where there is no teacher.
    """

    step: int
    seconds: float
    scores: tuple[ClassScore, ...]
    mean_iou: float
    is_best: bool
    agreement: float | None = None


@dataclass(frozen=True)
class Previewed:
    """Predicted label ids (Y X of the plane, uint8 or uint16) of one plane of one volume at a step."""

    step: int
    volume: int
    axis: int
    index: int
    labels: NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class HeldOut:
    """What is not trained on but measured on: (volume, axis, index) of each slice, and a sentence about it."""

    slices: tuple[tuple[int, int, int], ...]
    explanation: str


@dataclass(frozen=True)
class AnnotationTaken:
    """Painted labels of a box were taken over; steps after `step` may train on them."""

    volume: int
    box: Box
    step: int


@dataclass(frozen=True)
class Paused:
    """Training waits for `Resume`."""

    step: int


@dataclass(frozen=True)
class Saved:
    """The model file was rewritten."""

    path: Path
    step: int


@dataclass(frozen=True)
class Predicted:
    """`done` of `total` tiles are written; `box` is the part that is now final."""

    done: int
    total: int
    seconds_left: float | None
    box: Box


@dataclass(frozen=True)
class Finished:
    """The work ended; `reason` says why in a few words.

    `stages` are the seconds that a training spent in each of `stage_times.STAGES`, empty for other work.
    """

    reason: str
    step: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)


Event: TypeAlias = (
    Started
    | Note
    | Preparing
    | HeldOut
    | AnnotationTaken
    | Stepped
    | Validated
    | Previewed
    | Paused
    | Saved
    | Predicted
    | Finished
)


# --- commands ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Annotate:
    """Painted label ids (Z Y X, the shape of `box`) replace those of one volume inside `box`."""

    volume: int
    box: Box
    labels: NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class PreviewPlane:
    """Ask for the prediction of one plane: index `index` along `axis` (0 = Z, 1 = Y, 2 = X)."""

    volume: int
    axis: int
    index: int


@dataclass(frozen=True)
class Pause:
    """Wait after the present step."""


@dataclass(frozen=True)
class Resume:
    """Go on after a pause."""


@dataclass(frozen=True)
class Stop:
    """End after the present step, keeping the best model."""


@dataclass(frozen=True)
class TrainLonger:
    """Train for so many seconds or steps from now on (neither: until nothing improves), learning rate raised again."""

    seconds: float | None = None
    steps: int | None = None


Command: TypeAlias = Annotate | PreviewPlane | Pause | Resume | Stop | TrainLonger


class Inbox:
    """Thread-safe mailbox from the owner of a running generator to the generator."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._was_stopped = False

    @property
    def is_stopping(self) -> bool:
        """Whether there was a `Stop`, read or not: for long work between two looks into the inbox."""
        return self._was_stopped

    def put(self, command: Command) -> None:
        """Leave a command; returns at once."""
        self._was_stopped = self._was_stopped or isinstance(command, Stop)
        self._queue.put(command)

    def drain(self) -> Iterator[Command]:
        """All commands left so far, oldest first, without waiting."""
        while True:
            try:
                yield self._queue.get_nowait()
            except queue.Empty:
                return

    def wait(self) -> Command:
        """The next command, waiting for it as long as it takes."""
        return self._queue.get()
