"""What the teachers say about each patch: looked up, or asked when the patch is drawn.

Teachers that label the whole volume once, tile by tile, compute every voxel once and with its full context; a patch
then costs a copy. Asked patch by patch they compute the same voxels again and again, and the context of every patch
besides. Looking up loses only where the volume is far larger than what the student will see in its training, or where
the scores fit neither into memory nor on the disk. See docs/decisions/distillation.md.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.engine.config import DistillConfig
from napari_unet3d.engine.device import free_memory
from napari_unet3d.engine.distillation.teacher import TeacherEnsemble
from napari_unet3d.engine.progress import Box, Event, Note, Predicted, Preparing
from napari_unet3d.engine.volume import Volume

_MEMORY_SHARE: Final = 0.25  # of what is free
_DISK_SHARE: Final = 0.5
_TIME_SHARE: Final = 0.5  # of what is left of a budget of seconds
_PATIENCE_SECONDS: Final = 1.0  # before an estimate is believed
_LIVE_COST: Final = 4.0
"""Voxels that teachers compute for one voxel of a patch, its context included."""


class SoftTarget(Protocol):
    """What teachers say about one volume."""

    def read(self, box: Box) -> Tensor:
        """Z Y X C scores of a box inside the volume, float32, on the device."""
        ...


class CachedScores:
    """Scores that were computed before: Z Y X C, in memory or in a file that is deleted at the end."""

    def __init__(self, scores: NDArray[np.float16], device: torch.device) -> None:
        self._scores = scores
        self._device = device

    def read(self, box: Box) -> Tensor:
        return torch.from_numpy(self._scores[box].astype(np.float32)).to(self._device)


class LiveScores:
    """Scores that are computed when they are read."""

    def __init__(self, teachers: TeacherEnsemble, image: Volume, device: torch.device) -> None:
        self._teachers = teachers
        self._image = image
        self._device = device

    def read(self, box: Box) -> Tensor:
        look = self._teachers.look(self._image, box)
        while True:
            try:
                next(look)
            except StopIteration as end:
                return torch.from_numpy(end.value.astype(np.float32)).to(self._device)


def open_targets(
    teachers: TeacherEnsemble,
    images: Sequence[Volume],
    mode: DistillConfig,
    device: torch.device,
    *,
    seconds_left: Callable[[], float | None],
    planned_voxels: float | None,
    is_stopped: Callable[[], bool],
    clock: Callable[[], float],
) -> Generator[Event, None, list[SoftTarget]]:
    """Let the teachers look at the volumes where that is faster than asking them patch by patch.

    Parameters
    ----------
    teachers
        Who is asked.
    images
        The volumes.
    mode
        Its `teacher_outputs` is read.
    device
        Where scores are wanted.
    seconds_left
        What is left of a budget of seconds now; None without one.
    planned_voxels
        Voxels of all patches of a budget of steps; None without one.
    is_stopped
        Asked now and then: whether there is no need any more.
    clock
        Gives the time in seconds.

    Yields
    ------
    Event
        `Preparing`, and a `Note` where teachers will be asked patch by patch.

    Returns
    -------
    list of SoftTarget
        One for each image.
    """
    targets: list[SoftTarget] = []
    for number, image in enumerate(images):
        reason = "" if mode.teacher_outputs == "cached" else _why_live(mode, image, planned_voxels)
        scores: NDArray[np.float16] | None = None
        if not reason:
            scores = _room(image, teachers.channels)
            reason = "" if scores is not None else "what they say fits neither into memory nor on the disk"
        if scores is not None:
            left = seconds_left() if mode.teacher_outputs == "auto" else None
            most = math.inf if left is None else left * _TIME_SHARE / (len(images) - number)
            with closing(teachers.look(image, into=scores)) as look:
                reason = yield from _watched(look, teachers.passes, most, is_stopped, (number, len(images)), clock)
        if scores is None or reason:
            targets.append(LiveScores(teachers, image, device))
            if not is_stopped():
                yield Note(f"the teachers label {image.name} patch by patch: {reason}")
        else:
            targets.append(CachedScores(scores, device))
    return targets


def _why_live(mode: DistillConfig, image: Volume, planned_voxels: float | None) -> str:
    if mode.teacher_outputs == "live":
        return "as asked for"
    if planned_voxels is not None and math.prod(image.shape) > _LIVE_COST * planned_voxels:
        return "few of its voxels will be seen in so few steps"
    return ""


def _room(image: Volume, channels: int) -> NDArray[np.float16] | None:
    shape = (*image.shape, channels)
    needed = math.prod(shape) * np.dtype(np.float16).itemsize
    if needed <= _MEMORY_SHARE * free_memory(torch.device("cpu")):
        return np.zeros(shape, np.float16)
    if needed <= _DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        with tempfile.TemporaryFile() as file:  # the mapping keeps its contents until the array is gone
            return np.memmap(file, np.float16, "w+", shape=shape)
    return None


def _watched(
    look: Generator[tuple[int, Event], None, NDArray[np.float16]],
    passes: int,
    most_seconds: float,
    is_stopped: Callable[[], bool],
    volume: tuple[int, int],
    clock: Callable[[], float],
) -> Generator[Event, None, str]:
    """Follow teachers who look at a volume (number, of how many); returns why to break off, if there is cause."""
    number, volumes = volume
    begun = clock()
    for place, event in look:
        if is_stopped():
            return "stopped"
        if isinstance(event, Note):
            yield event
        if isinstance(event, Predicted):
            done = (place + event.done / event.total) / passes
            yield Preparing("teacher", (number + done) / volumes)
            spent = clock() - begun
            if spent > _PATIENCE_SECONDS and spent / done > most_seconds:
                return f"labelling all of it would take {spent / done:.0f} s"
    return ""
