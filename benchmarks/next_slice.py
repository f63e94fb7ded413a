"""Which slice to paint next: IoU against the number of painted slices, for suggested, evenly spaced and random ones.

For every folder ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1), a simulated annotator
paints one axial slice from the truth, trains, and then adds slice after slice; each time training goes on from the
present weights. Painted is

    suggested   the first suggestion of the present model
    spaced      the middle of the widest gap between painted slices of one axis, over all axes, in physical units;
                before an axis has a slice its gap is the whole edge
    random      an axis, then an index along it, at random

All begin with the same slice: the middle one for state 0, a random one of the middle half for every further state, or
the one next to it that shows all classes. IoU is the mean over the structures, over the voxels not painted so far.

    python benchmarks/next_slice.py --data DIR --out ROWS.jsonl [--states N] [--seconds 20 | --steps-per-slice N]

Finished curves in the results file are not computed again. ``--picture FILE`` draws them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from machine import describe_machine, machine, markdown_table, write_reports
from numpy.typing import NDArray
from runs import Rows, folders_in

from napari_unet3d import api
from napari_unet3d.engine.config import PredictConfig, TrainConfig
from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io.files import read_labels, read_volume

STRATEGIES: Final = ("suggested", "spaced", "random")


class Plane(NamedTuple):
    """A slice across an axis (0 = Z)."""

    axis: int
    index: int

    @property
    def place(self) -> tuple[Any, ...]:
        """To index an array with."""
        return (slice(None),) * self.axis + (self.index,)


class Annotator:
    """Paints slices of one volume from the truth, and trains.

    Parameters
    ----------
    image, truth
        Z Y X; the truth holds a label id (1..C) for every voxel.
    """

    def __init__(
        self, image: Volume, truth: NDArray[np.unsignedinteger], config: TrainConfig, settings: dict[str, Any]
    ):
        self.image, self.truth = image, truth
        self.painted: list[Plane] = []
        self.labels = np.zeros_like(truth)
        self.model: TrainedModel | None = None
        self._config, self._settings = config, settings

    def paint(self, plane: Plane) -> None:
        self.painted.append(plane)
        self.labels[plane.place] = self.truth[plane.place]

    def train(self) -> None:
        """Train on all that is painted, from the present weights."""
        config = self._config
        if self.model is not None and self.model.recipe.record is not None:
            config = config.updated(precision=self.model.recipe.record.precision)
        start: dict[str, Any] = (
            {"network_settings": self._settings} if self.model is None else {"weights_from": self.model}
        )
        run = api.train_events(self.image, self.labels, config=config, **start)
        for _ in run:
            pass
        self.model = run.model()

    def iou(self) -> float:
        """Mean over the structures, over what is not painted."""
        assert self.model is not None
        found = api.predict(self.model, self.image, config=self.predict_config)
        ids = self.model.label_ids
        return mean_foreground_iou(
            class_scores(confusion_matrix(found, self.truth, ids, self.labels == 0), ids), min(ids)
        )

    @property
    def predict_config(self) -> PredictConfig:
        """Arithmetic as in training."""
        record = self.model.recipe.record if self.model else None
        return PredictConfig(device=self._config.device, precision=record.precision if record else "auto")


# --- strategies -------------------------------------------------------------------------------------------


def suggested(annotator: Annotator, rng: np.random.Generator) -> Plane:
    assert annotator.model is not None
    best = api.suggest(annotator.model, annotator.image, annotator.labels, count=1, config=annotator.predict_config)[0]
    return Plane(best.axis, best.index)


def spaced(annotator: Annotator, rng: np.random.Generator) -> Plane:
    gaps = []
    for axis, (size, edge) in enumerate(zip(annotator.image.shape, annotator.image.voxel_size.zyx, strict=True)):
        taken = sorted(plane.index for plane in annotator.painted if plane.axis == axis)
        bounds = [-1, *taken, size]
        for low, high in itertools.pairwise(bounds):
            gaps.append(((high - low - 1) * edge, -axis, (low + high) // 2))
    _, axis, index = max(gaps)
    return Plane(-axis, index)


def random(annotator: Annotator, rng: np.random.Generator) -> Plane:
    while True:
        axis = int(rng.integers(3))
        plane = Plane(axis, int(rng.integers(annotator.image.shape[axis])))
        if plane not in annotator.painted:
            return plane


_CHOICE: Final[dict[str, Callable[[Annotator, np.random.Generator], Plane]]] = {
    "suggested": suggested,
    "spaced": spaced,
    "random": random,
}


def first_plane(truth: NDArray[np.unsignedinteger], state: int) -> Plane:
    """An axial slice that shows all classes, or as many as there are on one."""
    depth = truth.shape[0]
    start = depth // 2 if state == 0 else int(np.random.default_rng(state).integers(depth // 4, depth - depth // 4))
    classes = [len(np.unique(plane)) for plane in truth]
    return Plane(0, min(np.flatnonzero(np.array(classes) == max(classes)), key=lambda z: abs(int(z) - start)))


# --- one curve --------------------------------------------------------------------------------------------


def load(source: Path, crop: int | None) -> tuple[Volume, NDArray[np.unsignedinteger]]:
    """Image and truth; with `crop`, the middle of them with at most so many voxels along each axis."""
    image, labels = (next(source.glob(f"{name}.*")) for name in ("image", "labels"))
    volume = read_volume(image)
    truth, _ = read_labels(labels, volume, zero_is_background=True)
    if crop is None:
        return volume, truth
    box = tuple(slice(max(0, (n - crop) // 2), max(0, (n - crop) // 2) + crop) for n in truth.shape)
    return Volume.from_array(volume.read()[(slice(None), *box)], volume.voxel_size), truth[box]


def run(source: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The curve of one strategy; gives a row of results."""
    image, truth = load(source, wanted["crop"])
    config = TrainConfig(
        seconds=wanted["seconds"],
        steps=wanted["steps"],
        validation=0,
        threads=wanted["threads"],
        random_state=wanted["state"],
    )
    settings = dict(setting.split("=", 1) for setting in wanted["settings"])
    annotator = Annotator(image, truth, config, settings)
    rng = np.random.default_rng([wanted["state"], 1])
    plane = first_plane(truth, wanted["state"])
    curve = []
    while True:
        annotator.paint(Plane(plane.axis, int(plane.index)))
        annotator.train()
        share = float(np.mean(annotator.labels > 0))
        curve.append({"axis": plane.axis, "index": int(plane.index), "iou": annotator.iou(), "painted": share})
        if len(curve) == wanted["slices"]:
            return {"curve": curve}
        plane = _CHOICE[wanted["strategy"]](annotator, rng)


# --- results ----------------------------------------------------------------------------------------------


def _wanted(arguments: argparse.Namespace, volumes: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for state in range(arguments.states):
        for source in volumes:
            for strategy in arguments.strategies:
                yield (
                    source,
                    {
                        "volume": source.name,
                        "strategy": strategy,
                        "state": state,
                        "slices": arguments.slices,
                        "seconds": None if arguments.steps_per_slice else arguments.seconds,
                        "steps": arguments.steps_per_slice,
                        "threads": arguments.threads,
                        "settings": arguments.set,
                        "crop": arguments.crop,
                    },
                )


def mean_curves(rows: list[dict[str, Any]]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """IoU after each slice by volume and strategy, means over the states; and over the volumes as ``mean``."""
    names = list(dict.fromkeys(row["volume"] for row in rows))
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    curves: dict[tuple[str, str], NDArray[np.float64]] = {}
    for strategy in strategies:
        for name in names:
            ious = [
                [point["iou"] for point in row["curve"]]
                for row in rows
                if (row["volume"], row["strategy"]) == (name, strategy)
            ]
            curves[name, strategy] = np.mean(ious, axis=0)
        curves["mean", strategy] = np.mean([curves[name, strategy] for name in names], axis=0)
    return dict(
        sorted(curves.items(), key=lambda item: ([*names, "mean"].index(item[0][0]), strategies.index(item[0][1])))
    )


def report(rows: list[dict[str, Any]]) -> str:
    """A table with a line for each volume and strategy."""
    lines = [
        (name, strategy, *(f"{iou:.3f}" for iou in curve), f"{statistics.mean(curve[1:]):.3f}")
        for (name, strategy), curve in mean_curves(rows).items()
    ]
    slices = range(1, len(rows[0]["curve"]) + 1)
    return markdown_table(("volume", "slices", *map(str, slices), "mean from the second on"), lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The curves as a picture, a panel for each volume; thin lines are single states."""
    from matplotlib.figure import Figure

    means = mean_curves(rows)
    names = list(dict.fromkeys(name for name, _ in means))
    figure = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    colours = {"suggested": "#d1495b", "spaced": "#00798c", "random": "#8a8a8a"}
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("painted slices")
        for row in rows:
            if row["volume"] == name:
                ious = [point["iou"] for point in row["curve"]]
                panel.plot(range(1, len(ious) + 1), ious, color=colours[row["strategy"]], lw=0.6, alpha=0.4)
        for (volume, strategy), curve in means.items():
            if volume == name:
                panel.plot(range(1, len(curve) + 1), curve, color=colours[strategy], lw=2, label=strategy)
    panels[0].set_ylabel("mean IoU of the structures")
    panels[-1].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    arguments = _arguments()
    volumes = folders_in(arguments.data, arguments.volumes)
    found = machine()
    finished, rows = Rows(arguments.out), []
    for source, wanted in _wanted(arguments, volumes):
        row = finished.get(wanted) or finished.add(wanted, {**run(source, wanted), "machine": found})
        rows.append(row)
        ious = " ".join(f"{point['iou']:.3f}" for point in row["curve"])
        print(f"{row['volume']} {row['strategy']} state {row['state']}: IoU {ious}", file=sys.stderr)
    each = f"{arguments.steps_per_slice} steps" if arguments.steps_per_slice else f"{arguments.seconds:g} s"
    budget = f"IoU after each painted slice, {each} of training for each, means over {arguments.states} random states"
    write_reports(
        f"{describe_machine(found, arguments.threads)}\n\n{budget}\n\n{report(rows)}", rows, arguments.markdown, None
    )
    if arguments.picture is not None:
        draw(rows, arguments.picture)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument(
        "--data", type=Path, default=data, required=data is None, help="default: the variable UNET3D_DATA"
    )
    parser.add_argument("--volumes", type=_words, help="names of folders, with commas; default: all")
    parser.add_argument("--strategies", type=_words, default=list(STRATEGIES), help="with commas; default: all three")
    parser.add_argument("--slices", type=int, default=8, help="painted slices at the end")
    parser.add_argument("--states", type=int, default=1, help="first slices and random states")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=20.0, help="of training for each slice")
    budget.add_argument("--steps-per-slice", type=int, help="instead, where other work shares the machine")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a setting of the network")
    parser.add_argument("--crop", type=int, metavar="N", help="use the middle, at most N voxels along each axis")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--out", type=Path, default=Path("next_slice.jsonl"), help="results, one curve a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves (PNG, PDF, SVG)")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
