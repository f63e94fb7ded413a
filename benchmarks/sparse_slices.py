"""What three painted slices and a minute give: foreground IoU over the slices that nobody painted.

For every folder ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1), a few axial slices of the
truth count as painted (class + 1, as label ids go), the rest as not annotated. Then, as a user would,

    napari-unet3d train IMAGE SLICES --seconds 60, napari-unet3d predict, napari-unet3d evaluate --exclude SLICES

``--contenders forest`` adds a random forest on the same slices: scikit-image's multi-scale features and scikit-learn's
classifier, the usual tool for the job. Its time is shown; it has no limit.

Slices of state 0 are the middles of equal parts of the volume; every further state shifts each at random by up to a
quarter of such a part. Finished rows in the results file are not computed again.

    python benchmarks/sparse_slices.py --data DIR [--states N] [--contenders unet,forest] [--out FILE.jsonl]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from machine import describe_machine, machine, markdown_table, write_reports
from runs import Rows, folders_in

from napari_unet3d.engine.model_file import load_model
from napari_unet3d.io.files import read_labels, read_volume

CONTENDERS: Final = ("unet", "forest")
_TREES: Final = 100
_TREE_VOXELS: Final = 50_000
"""Voxels that each tree of the forest sees."""


class Task(NamedTuple):
    """One volume with its painted slices, as files in a working folder."""

    image: Path
    truth: Path
    """Label ids 1..C of every voxel."""
    sparse: Path
    """The same on the painted slices, 0 elsewhere."""
    folder: Path
    painted: list[int]
    """Z indices."""

    def run(self, *arguments: object) -> float:
        """Run the command line; gives its wall time in seconds, start of Python included."""
        start = time.perf_counter()
        command = [sys.executable, "-m", "napari_unet3d", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"napari-unet3d {arguments[0]} failed: {done.stderr.strip()}")
        return time.perf_counter() - start


def painted_slices(depth: int, count: int, state: int) -> list[int]:
    """Z indices of the painted slices, ascending and all different where the volume is deep enough."""
    part = depth / count
    shifts = np.zeros(count) if state == 0 else np.random.default_rng(state).uniform(-0.25, 0.25, count)
    return sorted({int((i + 0.5 + shift) * part) for i, shift in enumerate(shifts)})


def make_task(source: Path, folder: Path, count: int, state: int) -> Task:
    """Read a volume and write the labels of its painted slices."""
    image, labels = (next(source.glob(f"{name}.*")) for name in ("image", "labels"))
    truth, _ = read_labels(labels, read_volume(image), zero_is_background=True)
    painted = painted_slices(truth.shape[0], count, state)
    sparse = np.zeros_like(truth)
    sparse[painted] = truth[painted]
    task = Task(image, folder / "truth.npy", folder / "sparse.npy", folder, painted)
    np.save(task.truth, truth)
    np.save(task.sparse, sparse)
    return task


# --- contenders -------------------------------------------------------------------------------------------


def run_unet(task: Task, wanted: dict[str, Any]) -> dict[str, Any]:
    model, prediction = task.folder / "model.safetensors", task.folder / "prediction.npy"
    settings = [f"--set={setting}" for setting in (f"train.threads={wanted['threads']}", *wanted["settings"])]
    budget = ["--seconds", wanted["seconds"], "--random-state", wanted["state"]]
    train = task.run("train", task.image, task.sparse, "--out", model, *budget, *settings)
    predict = task.run("predict", model, task.image, "--out", prediction)
    trained = load_model(model)
    record = trained.recipe.record
    shown = [score.mean_iou for score in trained.history.validations if score.mean_iou is not None]
    return {
        "train_seconds": train,
        "predict_seconds": predict,
        "steps": record.steps if record else None,
        "precision": record.precision if record else None,
        "shown_iou": max(shown, default=None),
    }


def run_forest(task: Task, wanted: dict[str, Any]) -> dict[str, Any]:
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    threads = wanted["threads"]
    start = time.perf_counter()
    grey = read_volume(task.image).read(dtype=np.float32)
    features = np.concatenate(
        [multiscale_basic_features(channel, sigma_min=1, sigma_max=8) for channel in grey], axis=-1
    )
    sparse = np.load(task.sparse)
    known, classes = features[sparse > 0], sparse[sparse > 0]
    forest = RandomForestClassifier(
        _TREES,
        min_samples_leaf=4,
        max_samples=min(_TREE_VOXELS, len(classes)),
        n_jobs=threads,
        random_state=wanted["state"],
    ).fit(known, classes)
    trained = time.perf_counter()
    planes = [forest.predict(plane.reshape(-1, plane.shape[-1])).reshape(plane.shape[:2]) for plane in features]
    np.save(task.folder / "prediction.npy", np.stack(planes).astype(sparse.dtype))
    return {"train_seconds": trained - start, "predict_seconds": time.perf_counter() - trained}


def run(task: Task, wanted: dict[str, Any]) -> dict[str, Any]:
    """Train, predict and evaluate one contender; gives a row of results."""
    figures = {"unet": run_unet, "forest": run_forest}[wanted["contender"]](task, wanted)
    scores = task.folder / "scores.json"
    task.run("evaluate", task.folder / "prediction.npy", task.truth, "--exclude", task.sparse, "--json", scores)
    return {"painted": task.painted, **figures, "evaluation": json.loads(scores.read_text())}


# --- results ----------------------------------------------------------------------------------------------


def _wanted(arguments: argparse.Namespace, volumes: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for state in range(arguments.states):
        for source in volumes:
            for contender in arguments.contenders:
                limited = contender == "unet"
                yield (
                    source,
                    {
                        "volume": source.name,
                        "contender": contender,
                        "state": state,
                        "slices": arguments.slices,
                        "seconds": arguments.seconds if limited else None,
                        "threads": arguments.threads,
                        "settings": arguments.set if limited else [],
                    },
                )


def report(rows: list[dict[str, Any]]) -> str:
    """A table with a line for each volume and contender: means over the states."""
    lines = []
    for volume, contender in dict.fromkeys((row["volume"], row["contender"]) for row in rows):
        these = [row for row in rows if (row["volume"], row["contender"]) == (volume, contender)]
        ious = [row["evaluation"]["mean_foreground_iou"] for row in these]
        shown = [row["shown_iou"] for row in these if row.get("shown_iou") is not None]
        per_class = zip(*([score["iou"] for score in row["evaluation"]["classes"]] for row in these), strict=True)
        lines.append(
            (
                volume,
                contender,
                f"{statistics.mean(ious):.3f}",
                f"{min(ious):.3f} .. {max(ious):.3f}" if len(ious) > 1 else "",
                " ".join(f"{statistics.mean(values):.2f}" for values in per_class),
                f"{statistics.mean(shown):.3f}" if shown else "",
                *(
                    f"{statistics.mean(row[name] for row in these):.0f}"
                    for name in ("train_seconds", "predict_seconds")
                ),
            )
        )
    heading = ("volume", "method", "IoU", "lowest .. highest", "IoU of classes", "IoU shown", "train s", "predict s")
    return markdown_table(heading, lines)


def main() -> None:
    arguments = _arguments()
    volumes = folders_in(arguments.data, arguments.volumes)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    found = machine()
    finished, rows = Rows(arguments.out), []
    for source, wanted in _wanted(arguments, volumes):
        row = finished.get(wanted)
        if row is None:
            with tempfile.TemporaryDirectory() as folder:
                task = make_task(source, Path(folder), arguments.slices, wanted["state"])
                row = finished.add(wanted, {**run(task, wanted), "machine": found})
        rows.append(row)
        iou = row["evaluation"]["mean_foreground_iou"]
        print(f"{row['volume']} {row['contender']} state {row['state']}: IoU {iou:.3f}", file=sys.stderr)
    budget = (
        f"{arguments.slices} painted slices, {arguments.seconds:g} s of training, {arguments.states} choices of slices"
    )
    text = f"{describe_machine(found, arguments.threads)}\n\n{budget}\n\n{report(rows)}"
    write_reports(text, rows, arguments.markdown, None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument(
        "--data", type=Path, default=data, required=data is None, help="default: the variable UNET3D_DATA"
    )
    parser.add_argument("--volumes", type=_words, help="names of folders, with commas; default: all")
    parser.add_argument("--contenders", type=_words, default=["unet"], help="unet, forest or both, with commas")
    parser.add_argument("--slices", type=int, default=3, help="painted slices")
    parser.add_argument("--states", type=int, default=1, help="choices of slices and random states")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of train")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a setting of train")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--out", type=Path, default=Path("sparse_slices.jsonl"), help="results, one row a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
