"""What each switch of training brings: arithmetic, memory order, compilation, resident volumes, processes.

One training with everything as the program chooses it, and for each switch one in which only that is changed. All
train the `fast` network on the same volume with the same batches; they take turns in one run, so that other work on the
machine slows all alike. Counted are voxels of patches that were cut, deformed, learnt from and followed by an optimiser
step, from one step to the next, as a user waits for them.

    python benchmarks/switches.py [--device cuda] [--rounds N] [--seconds S] [--only NAME,NAME] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from machine import describe_machine, machine, markdown_table, write_reports

from napari_unet3d.engine import learner, training_data
from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.device import choose_device, choose_precision
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.parallel.start import make_trainer
from napari_unet3d.engine.progress import Event, Inbox, Note, Pause, Paused, Resume, Started, Stepped
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

CLASSES: Final = 3
FOREVER: Final = 10**9
BASE: Final = "as chosen"


@dataclass(frozen=True)
class Switch:
    """A change of one thing."""

    name: str
    """For the table."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig`."""
    is_contiguous: bool = False
    """Memory in the plain order (C Z Y X), which the program never chooses."""

    def applied(self) -> AbstractContextManager[Any]:
        """While building and running."""
        if not self.is_contiguous:
            return nullcontext()
        plain = ExitStack()
        plain.enter_context(patch.object(learner, "memory_format", lambda _: torch.contiguous_format))
        plain.enter_context(patch.object(training_data, "stacked", _stacked))
        return plain


def switches(device: torch.device, processes: int, batch: int) -> list[Switch]:
    """All that make sense on a device."""
    found = [Switch(BASE)]
    chosen = choose_precision("auto", device)
    arithmetics = ("float32", "bfloat16", "float16") if device.type == "cuda" else ("float32", "bfloat16")
    found += [Switch(name, {"precision": name}) for name in arithmetics if name != chosen]
    found += [Switch("memory not channels last", is_contiguous=True), Switch("compiled", {"compile": True})]
    if device.type != "cpu":
        found.append(Switch("volume in the computer's memory", {"resident": "host"}))
    found.append(Switch("features anew for every patch", {"resident": "off"}))
    if device.type == "cpu" or torch.cuda.device_count() >= processes:
        found.append(Switch(f"{processes} processes", {"processes": processes}))
        if device.type == "cuda":  # more GPUs are there for more patches at once
            larger = {"processes": processes, "batch_size": processes * batch}
            found.append(Switch(f"{processes} processes and {processes} times the batch", larger))
    return found


def _stacked(patches: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(patches)).contiguous()


class Side:
    """A training that runs when it is its turn."""

    def __init__(self, switch: Switch, volume: AnnotatedVolume, config: TrainConfig) -> None:
        self.switch = switch
        self.speeds: list[float] = []
        self.notes: list[str] = []
        self.precision = ""
        self._config = config.updated(**switch.changes)
        self._inbox = Inbox()
        begun = time.perf_counter()
        with switch.applied():
            network = network_config("fast", classes=CLASSES)
            trainer = make_trainer([volume], network, self._config, inbox=self._inbox)
            self._events = iter(trainer.fit())
            next(self._steps())
            self.first_seconds = time.perf_counter() - begun
            self._pause()

    @property
    def voxels(self) -> int:
        """Of a step."""
        assert isinstance(self._config.batch_size, int)
        assert self._config.patch_size != "auto"
        return self._config.batch_size * math.prod(self._config.patch_size)

    def run(self, seconds: float) -> float:
        """Train for so long; voxels per second."""
        with self.switch.applied():
            self._inbox.put(Resume())
            steps = self._steps()
            next(steps)  # the pause ended somewhere in the middle of this one
            begun, count = time.perf_counter(), 0
            for _ in steps:
                count += 1
                elapsed = time.perf_counter() - begun
                if elapsed >= seconds:
                    break
            self._pause()
        return count * self.voxels / elapsed

    def close(self) -> None:
        """End the training, and its processes."""
        self._events.close()  # type: ignore[attr-defined]  # a generator

    def _pause(self) -> None:
        self._inbox.put(Pause())
        for event in self._events:
            if isinstance(event, Paused):
                return

    def _steps(self) -> Iterator[Stepped]:
        for event in self._events:
            self._look(event)
            if isinstance(event, Stepped):
                yield event

    def _look(self, event: Event) -> None:
        if isinstance(event, Started):
            self.precision = event.precision
        elif isinstance(event, Note) and event.level == "warning":
            self.notes.append(event.text)


def make_volume(shape: tuple[int, int, int]) -> AnnotatedVolume:
    """Noise, with a painted slice along each axis."""
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    for axis, length in enumerate(shape):
        plane = [slice(None)] * 3
        plane[axis] = slice(length // 2, length // 2 + 1)
        painted = labels[tuple(plane)]
        painted[...] = rng.integers(1, CLASSES + 1, painted.shape)
    return AnnotatedVolume(Volume.from_array(rng.integers(0, 256, shape, dtype=np.uint8)), labels)


def main() -> None:
    arguments = _arguments()
    device = choose_device(arguments.device).device
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    batch = arguments.batch or (2 if device.type == "cpu" else 8)
    config = TrainConfig(
        steps=FOREVER, device=arguments.device, batch_size=batch, patch_size=arguments.patch, validation=0
    )
    volume = make_volume(arguments.volume)
    found = machine(str(device))
    threads = torch.get_num_threads()
    sides, failed = [], []
    for switch in switches(device, arguments.processes, batch):
        if arguments.only and switch.name != BASE and switch.name not in arguments.only:
            continue
        try:
            sides.append(Side(switch, volume, config))
        except UNet3dError as error:
            failed.append(f"{switch.name}: {error}")
    try:
        for round_ in range(-1, arguments.rounds):
            for side in sides:
                speed = side.run(arguments.seconds)
                if round_ >= 0:  # the first round warms up
                    side.speeds.append(speed)
    finally:
        for side in sides:
            side.close()
    values = {
        "machine": found, "threads": threads, "rounds": arguments.rounds, "patch": arguments.patch, "batch": batch,
        "volume": arguments.volume, "failed": failed,
        "sides": [
            {"name": side.switch.name, "precision": side.precision, "voxels_per_second": side.speeds,
             "first_step_seconds": side.first_seconds, "notes": side.notes}
            for side in sides
        ],
    }  # fmt: skip
    write_reports(_report(values), values, arguments.markdown, arguments.json)


def _report(values: dict[str, Any]) -> str:
    sides = values["sides"]
    base = sides[0]["voxels_per_second"]
    heading = ("switch", "arithmetic", "Mvoxel/s", "lowest", "highest", "times as chosen", "s to the first step")
    rows = []
    for side in sides:
        speeds = side["voxels_per_second"]
        ratio = statistics.median(speed / reference for speed, reference in zip(speeds, base, strict=True))
        figures = (f"{speed / 1e6:.3f}" for speed in (statistics.median(speeds), min(speeds), max(speeds)))
        rows.append((side["name"], side["precision"], *figures, f"{ratio:.2f}", f"{side['first_step_seconds']:.1f}"))
    patch, volume = (" x ".join(map(str, values[name])) for name in ("patch", "volume"))
    parts = [
        describe_machine(values["machine"], values["threads"]),
        f"**training**, batches of {values['batch']} patches of {patch} voxels from a volume of {volume}, medians of "
        f"{values['rounds']} rounds\n\n" + markdown_table(heading, rows),
    ]
    notes = [f"{side['name']}: {note}" for side in sides for note in side["notes"]] + values["failed"]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--processes", type=int, default=2, help="of the training that shares its batches")
    parser.add_argument("--threads", type=int, help="CPU threads; default: what PyTorch chooses")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds after one to warm up")
    parser.add_argument("--seconds", type=float, default=2.0, help="least time of a training in a round")
    parser.add_argument("--batch", type=int, help="patches in a step; default: 2 on a CPU, else 8")
    parser.add_argument("--patch", type=_triple, default=(16, 80, 80), help="Z,Y,X voxels of a patch")
    parser.add_argument("--volume", type=_triple, default=(64, 192, 192), help="Z,Y,X voxels of the volume")
    parser.add_argument("--only", type=_names, metavar="NAME,NAME", help="these switches, as named in the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args()


def _triple(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split(","))
    return (z, y, x)


def _names(text: str) -> Sequence[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
