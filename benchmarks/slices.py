"""IoU against the number of annotated slices, after Çiçek et al. 2016, table 2: 3D and 2D, normalisation or none.

For every folder ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1), one to five slices along
each axis of the truth count as painted; they lie at the middles of equal parts, a further state shifts each at random
by up to a quarter of its part. Three other slices along each axis are never painted: the IoU (mean over the structures)
is measured there, without the voxels that painted slices cross, and on all that nobody painted. All runs go through
the command line: ``train --seconds 60 --validation 0``, ``predict``, ``evaluate``.

    python benchmarks/slices.py --data DIR --volumes nuclei_arabidopsis,mri_head --markdown FILE.md --plot FILE.png

Finished rows in the results file (``--out``) are not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from machine import describe_machine, machine, markdown_table, write_reports
from numpy.typing import NDArray
from runs import Rows, Volume, run, volumes_in

from napari_unet3d.engine.model_file import load_model

COUNTS: Final = ((1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 5, 3))
"""Painted slices across X, Y and Z, as the paper has them (yz, xz, xy)."""

PAPER: Final = {
    (1, 1, 1): (0.331, 0.483, 0.475),
    (2, 2, 1): (0.676, 0.579, 0.738),
    (3, 3, 2): (0.761, 0.808, 0.835),
    (5, 5, 3): (0.856, 0.849, 0.872),
}
"""IoU of the 3D network with batch normalisation on the paper's three volumes (Xenopus kidney), 10 hours on a GPU."""

_PLANES: Final = ("network.dimensions=2", "network.features=none", "network.plane_axis=all")
ARMS: Final = {
    "3D": (),
    "3D, instance normalisation": ("network.norm=instance",),
    "3D, no normalisation": ("network.norm=none",),
    "2D, across all axes": _PLANES,
    "2D, no normalisation": (*_PLANES, "network.norm=none"),
}
_TEST_PLACES: Final = (0.15, 0.45, 0.85)
"""Slices to measure on, along each axis, 0..1; those painted keep away from them."""


def main() -> None:
    options = _options()
    found, rows = machine(), Rows(options.out)
    finished = []
    for volume in volumes_in(options.data, options.volumes):
        for wanted in _wanted(volume, options):
            row = rows.get(wanted) or rows.add(wanted, {**_measure(wanted, volume), "machine": found})
            finished.append(row)
            name = f"{volume.name} {wanted['arm']} {wanted['count']} state {wanted['state']}"
            print(f"{name}: IoU {row['held_out_iou']:.3f}", file=sys.stderr, flush=True)
    budget = f"{options.seconds:g} s of training, {options.states} choices of slices"
    text = f"{describe_machine(found, options.threads)}\n\n{budget}\n\n{report(finished)}"
    write_reports(text, finished, options.markdown, None)
    if options.plot is not None:
        plot(finished, options.plot)


def _wanted(volume: Volume, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for state in range(options.states):
        for arm in ARMS:
            if options.arms and arm not in options.arms:
                continue
            for count in COUNTS:
                yield {
                    "volume": volume.name,
                    "arm": arm,
                    "count": list(count),
                    "state": state,
                    "seconds": options.seconds,
                    "threads": options.threads,
                    "settings": options.set,
                }


# --- which slices -----------------------------------------------------------------------------------------


def measured_slices(length: int) -> list[int]:
    """Indices that are never painted along an axis."""
    return sorted({min(length - 1, int(place * length)) for place in _TEST_PLACES})


def painted_indices(length: int, count: int, state: int, axis: int) -> list[int]:
    """Indices of the painted slices along an axis, none of them one to measure on."""
    part = length / count
    shifts = np.zeros(count) if state == 0 else np.random.default_rng((state, axis)).uniform(-0.25, 0.25, count)
    free = np.setdiff1d(np.arange(length), measured_slices(length))
    return sorted({int(free[np.argmin(np.abs(free - (i + 0.5 + shift) * part))]) for i, shift in enumerate(shifts)})


def on_slices(truth: NDArray[np.unsignedinteger], places: Sequence[Sequence[int]]) -> NDArray[np.unsignedinteger]:
    """The truth on the slices along Z, Y and X, 0 elsewhere."""
    labels = np.zeros_like(truth)
    for axis, indices in enumerate(places):
        slices = (*[slice(None)] * axis, list(indices))
        labels[slices] = truth[slices]
    return labels


# --- one run ----------------------------------------------------------------------------------------------


def _measure(wanted: dict[str, Any], volume: Volume) -> dict[str, Any]:
    x, y, z = wanted["count"]
    shape = volume.truth.shape
    painted = [
        painted_indices(n, count, wanted["state"], i) for i, (n, count) in enumerate(zip(shape, (z, y, x), strict=True))
    ]
    sparse = on_slices(volume.truth, painted)
    measured = on_slices(volume.truth, [measured_slices(n) for n in shape])
    threads = wanted["threads"]
    settings = [f"--set={s}" for s in (f"train.threads={threads}", *ARMS[wanted["arm"]], *wanted["settings"])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, labels in (("sparse", sparse), ("measured", measured), ("truth", volume.truth)):
            np.save(folder / f"{kind}.npy", labels)
        model, prediction = folder / "model.safetensors", folder / "prediction.npy"
        budget = ("--seconds", wanted["seconds"], "--validation", 0, "--random-state", wanted["state"])
        used = run("train", volume.image, folder / "sparse.npy", "--out", model, *budget, *settings, threads=threads)
        run("predict", model, volume.image, "--out", prediction, threads=threads)
        ious = {}
        for kind in ("measured", "truth"):
            scores = folder / f"{kind}.json"
            excluded = ("--exclude", folder / "sparse.npy", "--json", scores)
            run("evaluate", prediction, folder / f"{kind}.npy", *excluded, threads=threads)
            ious[kind] = json.loads(scores.read_text())["mean_foreground_iou"]
        record = load_model(model).recipe.record
    return {
        "painted": painted,
        "annotated_share": float(np.count_nonzero(sparse) / sparse.size),
        "held_out_iou": ious["measured"],
        "rest_iou": ious["truth"],
        "steps": record.steps if record else None,
        "train_seconds": used.seconds,
    }


# --- results ----------------------------------------------------------------------------------------------


def _means(rows: list[dict[str, Any]], volume: str, arm: str) -> dict[tuple[int, ...], float]:
    """Mean IoU on held-out slices over the states, by number of slices."""
    means = {}
    for count in COUNTS:
        ious = [
            row["held_out_iou"]
            for row in rows
            if (row["volume"], row["arm"], tuple(row["count"])) == (volume, arm, count)
        ]
        if ious:
            means[count] = statistics.mean(ious)
    return means


def report(rows: list[dict[str, Any]]) -> str:
    """A table with a line for each volume and arm, and the paper's own figures below."""
    lines = []
    for volume, arm in dict.fromkeys((row["volume"], row["arm"]) for row in rows):
        these = [row for row in rows if (row["volume"], row["arm"]) == (volume, arm)]
        means = _means(rows, volume, arm)
        shares = [
            statistics.mean(row["annotated_share"] for row in these if tuple(row["count"]) == count) for count in means
        ]
        told = f"{min(shares):.1%} .. {max(shares):.1%}"
        lines.append((volume, arm, *(f"{means[c]:.3f}" if c in means else "" for c in COUNTS), told))
    for number in range(3):
        figures = (f"{PAPER[count][number]:.3f}" for count in COUNTS)
        lines.append((f"the paper's, volume {number + 1}", "3D (10 h, GPU)", *figures, "2.5% .. 8.9%"))
    heading = ("volume", "network", *(",".join(map(str, count)) for count in COUNTS), "annotated")
    note = (
        "IoU on held-out slices, by the number of painted slices across X, Y and Z. The paper's figures are of other "
        "volumes, with other classes, and are there for the shape of the curve only."
    )
    return f"{note}\n\n{markdown_table(heading, lines)}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """IoU against the number of painted slices, a panel for each volume."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    volumes = list(dict.fromkeys(row["volume"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(volumes) + 1, figsize=(3.4 * (len(volumes) + 1), 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    totals = [sum(count) for count in COUNTS]
    for panel, volume in zip(panels[0], volumes, strict=False):
        for arm in ARMS:
            means = _means(rows, volume, arm)
            panel.plot([sum(count) for count in means], list(means.values()), marker="o", markersize=3, label=arm)
        panel.set_title(volume, fontsize=9)
    last = panels[0][-1]
    for number in range(3):
        last.plot(totals, [PAPER[count][number] for count in COUNTS], color="0.5", marker=".")
    last.set_title("the paper's three volumes", fontsize=9)
    for panel in panels[0]:
        panel.set_xlabel("painted slices")
        panel.set_xticks(totals)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("IoU on held-out slices")
    panels[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data), help="default: the variable UNET3D_DATA")
    parser.add_argument("--volumes", type=_names, default=[], help="names, with commas; default: all")
    parser.add_argument("--arms", type=_many, default=[], help="names in the table, with semicolons; default: all")
    parser.add_argument("--states", type=int, default=1, help="choices of slices and random states")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of train")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a setting of train")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--out", type=Path, default=Path("painted-slices.jsonl"), help="results, one row a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the curves")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _many(text: str) -> list[str]:
    return [name.strip() for name in text.split(";")]


if __name__ == "__main__":
    main()
