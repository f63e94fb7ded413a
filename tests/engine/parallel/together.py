"""What one of several processes does in a test: ``python together.py RANK SIZE FOLDER CASE...`` trains and saves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unet3d.engine.config import TrainConfig, UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.model_file import load_model, save_model
from napari_unet3d.engine.parallel.group import ALONE, Group, ProcessGroup
from napari_unet3d.engine.progress import Annotate, Event, Inbox, Stepped, Stop
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.training_data import TrainingData
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

PLAIN = UNetConfig(levels=2, filters=4, norm="none")
GUIDED = UNet3PlusConfig(levels=2, filters=4, norm="none", guidance=True, guidance_dropout=0, deep_supervision=True)
TRAIN = TrainConfig(
    steps=4, device="cpu", precision="float32", patch_size=(4, 16, 16), batch_size=3, optimizer="sgd", threads=1
)


def volume() -> AnnotatedVolume:
    """A cylinder along Z in noise, some planes painted throughout."""
    _, y, x = np.indices((24, 20, 20))
    inside = (y - 10) ** 2 + (x - 8) ** 2 < 30
    image = inside + np.random.default_rng(0).normal(0, 0.2, inside.shape)
    labels = np.zeros(inside.shape, np.uint8)
    for plane in (1, 5, 9, 13, 17, 21):
        labels[plane] = np.where(inside[plane], 2, 1)
    labels[5, :6] = 0  # so that patches differ in how much of them is annotated
    return AnnotatedVolume(Volume.from_array(image.astype(np.float32)), labels)


def trainer(group: Group, network: Any = PLAIN, **options: Any) -> Trainer:
    arguments = {name: options.pop(name) for name in ("inbox", "resume", "record") if name in options}
    return Trainer([volume()], network, TRAIN.updated(**options), group=group, **arguments)


def finish(run: Trainer, path: Path, group: Group, on_event: Callable[[Event], None] = lambda _: None) -> None:
    for event in run.fit():
        on_event(event)
    if group.leads:
        save_model(run.model(with_state=True), path)


# --- cases ------------------------------------------------------------------------------------------------


def painted(group: Group, path: Path) -> None:
    """Strokes come while training goes on; the owner stops it."""
    inbox = Inbox()
    run = trainer(group, inbox=inbox, steps=50)

    def paint(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            box = (slice(14, 16), slice(0, 20), slice(0, 20))
            inbox.put(Annotate(0, box, np.full((2, 20, 20), 2, np.uint8)))
        if isinstance(event, Stepped) and event.step == 5:
            inbox.put(Stop())

    finish(run, path, group, paint)


def resumed(group: Group, path: Path) -> None:
    """Goes on with what `painted` left, which two processes may have made."""
    model = load_model(path.with_name("cross_entropy.safetensors"))
    finish(trainer(group, resume=model, steps=7), path, group)


def clock(group: Group, path: Path) -> None:
    """A budget of seconds, which only the first process knows."""
    finish(trainer(group, seconds=1.5, steps=None), path, group)


def tight(group: Group, path: Path) -> None:
    """The last process runs out of memory once."""
    run = trainer(group, batch_size=4)
    batch, calls = TrainingData.batch, []

    def scarce(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2 and group.rank == group.size - 1:
            raise MemoryError
        return batch(*arguments)

    TrainingData.batch = scarce  # type: ignore[method-assign, assignment]
    try:
        finish(run, path, group)
    finally:
        TrainingData.batch = batch  # type: ignore[method-assign]


def simple(**options: Any) -> Callable[[Group, Path], None]:
    return lambda group, path: finish(trainer(group, **options), path, group)


CASES: dict[str, Callable[[Group, Path], None]] = {
    "cross_entropy": simple(loss="cross_entropy", class_weights="balanced"),
    "adamw": simple(optimizer="adamw", loss="cross_entropy_dice"),
    "dice": simple(loss="dice", network=PLAIN.updated(deep_supervision=True, norm="group")),
    "generalised_dice": simple(loss="generalised_dice"),
    "hybrid": simple(loss="hybrid", batch_size=2),
    "sigmoid": simple(loss="cross_entropy_dice", network=PLAIN.updated(head="sigmoid", classes=1)),
    "guidance": simple(network=GUIDED),
    "painted": painted,
    "resumed": resumed,
    "clock": clock,
    "tight": tight,
}


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    group: Group = ALONE
    if size > 1:
        meeting = f"file://{folder / 'meeting'}"
        group = ProcessGroup(rank, size, torch.device("cpu"), meeting, timedelta(seconds=20))
    for name in sys.argv[4:]:
        CASES[name](group, folder / f"{name}.safetensors")
    (folder / f"done-{rank}.json").write_text(json.dumps(sys.argv[4:]))


if __name__ == "__main__":
    main()
