"""Training in processes of its own, seen from the process that owns it: the same events, commands and model."""

from __future__ import annotations

import dataclasses
import math
import queue
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from napari_unet3d.engine import errors
from napari_unet3d.engine.config import NetworkConfig, TrainConfig
from napari_unet3d.engine.device import DeviceChoice
from napari_unet3d.engine.errors import TrainingError, UNet3dError
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.parallel.crew import Crew, Ended, Message
from napari_unet3d.engine.parallel.group import PartnerLost
from napari_unet3d.engine.parallel.records import check_repeatable
from napari_unet3d.engine.parallel.task import Failed, StoredVolume, Task, meeting_point, store, stored
from napari_unet3d.engine.progress import Event, Finished, Inbox, Preparing
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import AnnotatedVolume, common_label_ids

_LOOK_FOR_COMMANDS: Final = 0.05  # seconds
_LAST_WORDS: Final = 10.0  # seconds that the others have to end after one failed
_SNAPSHOT: Final = "snapshot.safetensors"


class ParallelTrainer:
    """Trains as `Trainer` does, in one process for each device.

    Parameters
    ----------
    volumes, network, config, inbox, start, resume
        As of `Trainer`.
    devices
        One for each process.
    **options
        Further arguments of `Trainer`.

    Raises
    ------
    DataError
        If fewer than two classes are annotated.
    ConfigError
        If a recorded run that shall be repeated has too few patches in a step.
    """

    def __init__(
        self,
        volumes: Sequence[AnnotatedVolume],
        network: NetworkConfig,
        config: TrainConfig,
        devices: Sequence[DeviceChoice],
        *,
        inbox: Inbox | None = None,
        start: TrainedModel | None = None,
        resume: TrainedModel | None = None,
        **options: Any,
    ) -> None:
        common_label_ids(volumes)
        if (record := options.get("record")) is not None:
            check_repeatable(record, len(devices))
        self._volumes = tuple(volumes)
        self._network = network
        self._config = config
        self._devices = [str(choice.device) for choice in devices]
        self._inbox = inbox or Inbox()
        self._start = start
        self._resume = resume
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="napari-unet3d-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def fit(self) -> Iterator[Event]:
        """Train; see `Trainer.fit`.

        Raises
        ------
        UNet3dError
            As `Trainer` and `Trainer.fit`, and where a process died; `model` still gives the best of a few seconds
            before.
        """
        places = [stored(volume, self._folder, number) for number, volume in enumerate(self._volumes)]
        try:
            for number, (volume, place) in enumerate(zip(self._volumes, places, strict=True)):
                for done in store(volume, place):
                    yield Preparing("copying the volumes", (number + done) / len(places))
            with Crew(self._tasks(places), self._folder) as crew:
                yield from self._listen(crew)
        finally:  # the snapshot stays
            for place in places:
                place.image.unlink(missing_ok=True)
                place.labels.unlink(missing_ok=True)

    def model(self, *, with_state: bool = False) -> TrainedModel:
        """The best model so far, as of a few seconds ago or of the end; see `Trainer.model`."""
        path = self._folder / _SNAPSHOT
        if not path.is_file():
            raise TrainingError("there is no model yet: no training step was taken")
        model = load_model(path)
        return model if with_state else dataclasses.replace(model, state=None)

    # --- the processes ------------------------------------------------------------------------------------

    def _tasks(self, places: Sequence[StoredVolume]) -> list[Task]:
        size = len(self._devices)
        threads = self._config.threads or max(1, torch.get_num_threads() // size)
        start, resume = self._file("start", self._start), self._file("resume", self._resume)
        return [
            Task(
                rank=rank,
                size=size,
                device=device,
                threads=threads,
                meeting_point=meeting_point(self._folder),
                volumes=tuple(places),
                network=self._network,
                config=self._config,
                start=start,
                resume=resume,
                options=self._options,
                snapshot=self._folder / _SNAPSHOT,
            )
            for rank, device in enumerate(self._devices)
        ]

    def _file(self, name: str, model: TrainedModel | None) -> Path | None:
        return None if model is None else save_model(model, self._folder / f"{name}.safetensors")

    def _listen(self, crew: Crew) -> Iterator[Event]:
        finished: Finished | None = None
        running, until = len(self._devices), math.inf
        while running and time.monotonic() < until:
            for command in self._inbox.drain():
                crew.command(command)
            try:
                message = crew.messages.get(timeout=_LOOK_FOR_COMMANDS)
            except queue.Empty:
                continue
            if isinstance(message.content, Ended):
                running -= 1
            if is_failure(message) and finished is None:
                raise self._worst([message, *crew.last_words(running, time.monotonic() + _LAST_WORDS)])
            if isinstance(message.content, Finished):
                finished, until = message.content, time.monotonic() + _LAST_WORDS
            elif not isinstance(message.content, Ended | Failed):
                yield message.content
        if finished is not None:
            yield finished

    def _worst(self, messages: Sequence[Message]) -> Exception:
        """The error to report: what one process says that others only suffer from comes first."""
        failures = [message for message in messages if is_failure(message)]
        told = [message for message in failures if isinstance(message.content, Failed)]
        own = [message for message in told if message.content.kind in _OWN_ERRORS]
        if own:
            message = own[0]
            kind: type[Exception] = getattr(errors, message.content.kind)
            return kind(self._where(message.rank, message.content.text))
        speechless = [message for message in failures if message.rank not in {other.rank for other in told}]
        if speechless:
            message = speechless[0]
            return TrainingError(
                f"process {message.rank + 1} of {len(self._devices)} ({self._devices[message.rank]}) "
                f"{message.content.explain()}; the best model so far is kept"
            )
        message = told[0]
        kind = TrainingError if message.content.kind == PartnerLost.__name__ else RuntimeError
        return kind(self._where(message.rank, message.content.text))

    def _where(self, rank: int, text: str) -> str:
        return text if rank == 0 else f"process {rank + 1} of {len(self._devices)}: {text}"


_OWN_ERRORS: Final = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, UNet3dError)
}
"""Names of the errors that a user may meet; `PartnerLost`, which only follows from another one, is none of them."""


def is_failure(message: Message) -> bool:
    """Whether a process tells, or shows by its end, that it failed."""
    content = message.content
    return isinstance(content, Failed) or (isinstance(content, Ended) and content.code != 0)
