"""Whether a distilled student is as good as its teacher, and better than the same student without one.

For every folder ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1), a few axial slices of the
truth count as painted, as in ``sparse_slices.py``. Then a teacher is trained on them, the student is distilled from it
on the whole volume, and the same student is trained on the painted slices alone; both students get the same budget.
IoU is the mean over the structures on all voxels that were not painted; speed is that of the whole prediction.

    python benchmarks/distillation.py --data DIR [--states N] [--seconds S | --steps N] [--operations 1/8] [--out FILE]

Finished rows in the results file are not computed again; the teacher of a row is trained anew for each state.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import describe_machine, machine, markdown_table, write_reports
from numpy.typing import NDArray
from runs import Rows, folders_in
from sparse_slices import painted_slices

from napari_unet3d import api
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import DistillConfig, TrainConfig
from napari_unet3d.engine.model_file import save_model
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io.files import read_labels, read_volume

MODELS: Final = ("teacher", "scratch", "distilled")
KEPT: Final = 0.97
"""Share of the teacher's IoU that a student has to keep."""


def read_task(source: Path, wanted: dict[str, Any]) -> tuple[Volume, NDArray[Any], NDArray[Any]]:
    """Image, truth (label ids 1..C) and the same on the painted slices (0 elsewhere), Z Y X."""
    image, labels = (next(source.glob(f"{name}.*")) for name in ("image", "labels"))
    volume = read_volume(image)
    truth, _ = read_labels(labels, volume, zero_is_background=True)
    if (step := wanted["every"]) > 1:
        size = VoxelSize(*(step * edge for edge in volume.voxel_size.zyx), volume.voxel_size.unit)
        volume = Volume.from_array(volume.read()[:, ::step, ::step, ::step], size)
        truth = np.ascontiguousarray(truth[::step, ::step, ::step])
    painted = painted_slices(truth.shape[0], wanted["slices"], wanted["state"])
    sparse = np.zeros_like(truth)
    sparse[painted] = truth[painted]
    return volume, truth, sparse


def run(source: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Train the teacher and both students, and compare; gives a row of results."""
    image, truth, sparse = read_task(source, wanted)
    train = TrainConfig.model_validate(
        {name: wanted[name] for name in ("seconds", "steps", "threads")} | {"random_state": wanted["state"]}
    )
    teacher = api.train(image, sparse, config=train)
    distilled = api.distill(
        teacher,
        image,
        sparse,
        operations=wanted["operations"],
        train=train,
        config=DistillConfig.model_validate(dict(wanted["settings"])),
    )
    scratch_run = api.scratch_events(distilled, image, sparse)
    for _ in scratch_run:
        pass
    models = dict(zip(MODELS, (teacher, scratch_run.model(), distilled), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        files = {name: save_model(model, Path(folder) / f"{name}.safetensors") for name, model in models.items()}
        figures = api.compare(files, image, sparse, truth=truth)
    return {
        "figures": {entry.name: entry.as_dict() for entry in figures},
        "steps_taken": {name: _steps(model) for name, model in models.items()},
        "filters": distilled.recipe.network.filters_per_level,
    }


def _steps(model: TrainedModel) -> int | None:
    return model.recipe.record.steps if model.recipe.record else None


# --- results ----------------------------------------------------------------------------------------------


def report(rows: list[dict[str, Any]]) -> str:
    """A table with a line for each volume: means over the states."""
    lines = []
    for volume in dict.fromkeys(row["volume"] for row in rows):
        these = [row["figures"] for row in rows if row["volume"] == volume]
        ious = {name: [one[name]["truth"]["mean_iou"] for one in these] for name in MODELS}
        kept = statistics.mean(ious["distilled"]) / statistics.mean(ious["teacher"])
        wins = sum(a > b for a, b in zip(ious["distilled"], ious["scratch"], strict=True))
        lines.append(
            (
                volume,
                *(f"{statistics.mean(ious[name]):.3f}" for name in MODELS),
                f"{kept:.1%}{'' if kept >= KEPT else ' (!)'}",
                f"{wins} of {len(these)}",
                f"{statistics.mean(one['distilled']['agreement'] for one in these):.3f}",
                f"1/{_ratio(these, 'operations'):.1f}",
                f"{_ratio(these, 'seconds'):.1f}",
            )
        )
    heading = ("volume", *MODELS, "kept", "beats scratch", "agreement", "operations", "times as fast")
    return markdown_table(heading, lines)


def _ratio(rows: list[dict[str, Any]], figure: str) -> float:
    """Of the teacher to the distilled student."""
    return statistics.mean(row["teacher"][figure] / row["distilled"][figure] for row in rows)


def _wanted(arguments: argparse.Namespace, volumes: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for state in range(arguments.states):
        for source in volumes:
            yield (
                source,
                {
                    "volume": source.name,
                    "state": state,
                    "slices": arguments.slices,
                    "seconds": None if arguments.steps else arguments.seconds,
                    "steps": arguments.steps,
                    "operations": arguments.operations,
                    "threads": arguments.threads,
                    "every": arguments.every,
                    "settings": arguments.set,
                },
            )


def main() -> None:
    arguments = _arguments()
    volumes = folders_in(arguments.data, arguments.volumes)
    torch.set_num_threads(arguments.threads)
    found = machine()
    finished, rows = Rows(arguments.out), []
    for source, wanted in _wanted(arguments, volumes):
        row = finished.get(wanted) or finished.add(wanted, {**run(source, wanted), "machine": found})
        rows.append(row)
        told = ", ".join(f"{name} {row['figures'][name]['truth']['mean_iou']:.3f}" for name in MODELS)
        print(f"{row['volume']} state {row['state']}: IoU {told}", file=sys.stderr)
    budget = f"{arguments.steps} steps" if arguments.steps else f"{arguments.seconds:g} s"
    coarse = "" if arguments.every == 1 else f" on every voxel number {arguments.every} along each axis"
    text = (
        f"{describe_machine(found, arguments.threads)}\n\n{arguments.slices} painted slices{coarse}, {budget} for each "
        f"model, students with {arguments.operations} of the operations, {arguments.states} random states\n\n"
        f"{report(rows)}"
    )
    write_reports(text, rows, arguments.markdown, None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument(
        "--data", type=Path, default=data, required=data is None, help="default: the variable UNET3D_DATA"
    )
    parser.add_argument("--volumes", type=lambda text: text.split(","), help="names of folders, with commas")
    parser.add_argument("--slices", type=int, default=3, help="painted slices")
    parser.add_argument("--states", type=int, default=3, help="choices of slices and random states")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of each model")
    parser.add_argument("--steps", type=int, help="the budget in steps instead")
    parser.add_argument("--operations", default="1/8", help="share of the teacher's operations")
    parser.add_argument("--every", type=int, default=1, help="use every Nth voxel along each axis, for a quick look")
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="FIELD=VALUE", help="of DistillConfig"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--out", type=Path, default=Path("distillation.jsonl"), help="results, one row a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args()


def _setting(text: str) -> list[str]:
    return text.split("=", 1)


if __name__ == "__main__":
    main()
