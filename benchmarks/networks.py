"""Every preset, and deep supervision, guidance and the hybrid loss with and without, on the same painted slices.

For every folder ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1), a few axial slices of the
truth count as painted. Each network is timed first; those that take longer than ``--slowest`` a step are only timed.
The others are trained through the command line for equal steps, and again for equal seconds. IoU is the mean over the
structures on all voxels that nobody painted.

    python benchmarks/networks.py --data DIR --volumes nuclei_arabidopsis,mri_head --markdown networks.md

Finished rows in the results file (``--out``) are not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from machine import describe_machine, machine, markdown_table, write_reports
from runs import Rows, Volume, run, volumes_in
from sparse_slices import painted_slices

from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.model_file import load_model
from napari_unet3d.engine.networks.presets import network_presets


class Variant(NamedTuple):
    """A network, and how it is trained."""

    name: str
    preset: str
    settings: tuple[str, ...] = ()


_TRIALS: Final = 3
"""Steps of which the first, often slow, is not counted in the timing."""

VARIANTS: Final = (
    *(Variant(name, name) for name in network_presets()),
    Variant("fast + deep supervision", "fast", ("network.deep_supervision=true",)),
    Variant("fast, hybrid loss", "fast", ("train.loss=hybrid",)),
    Variant("fast + deep supervision, hybrid loss", "fast", ("network.deep_supervision=true", "train.loss=hybrid")),
    Variant("unet3plus-3d, hybrid loss", "unet3plus-3d", ("train.loss=hybrid",)),
    Variant("unet3plus-ds-3d, hybrid loss", "unet3plus-ds-3d", ("train.loss=hybrid",)),
    Variant("unet3plus-ds-cgm-3d, hybrid loss", "unet3plus-ds-cgm-3d", ("train.loss=hybrid",)),
)


def main() -> None:
    options = _options()
    found, rows = machine(), Rows(options.out)
    finished = []
    for volume in volumes_in(options.data, options.volumes):
        with tempfile.TemporaryDirectory() as folder:
            sparse = np.zeros_like(volume.truth)
            painted = painted_slices(volume.truth.shape[0], options.slices, 0)
            sparse[painted] = volume.truth[painted]
            np.save(Path(folder) / "truth.npy", volume.truth)
            np.save(Path(folder) / "sparse.npy", sparse)
            for wanted in _wanted(volume, options):
                row = rows.get(wanted) or rows.add(wanted, {**_measure(wanted, volume, Path(folder)), "machine": found})
                finished.append(row)
                iou = "only timed" if row["iou"] is None else f"IoU {row['iou']:.3f}"
                print(f"{volume.name} {wanted['variant']} {wanted['budget']}: {iou}", file=sys.stderr, flush=True)
    budget = (
        f"{options.slices} painted slices, {options.steps} steps or {options.seconds:g} s of training; networks that "
        f"take more than {options.slowest:g} s a step are only timed"
    )
    text = f"{describe_machine(found, options.threads)}\n\n{budget}\n\n{report(finished)}"
    write_reports(text, finished, options.markdown, None)


def _wanted(volume: Volume, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for variant in VARIANTS:
        if options.variants and variant.name not in options.variants:
            continue
        for budget in (f"--steps {options.steps}", f"--seconds {options.seconds:g}"):
            yield {
                "volume": volume.name,
                "variant": variant.name,
                "budget": budget,
                "slices": options.slices,
                "slowest": options.slowest,
                "threads": options.threads,
                "random_state": options.random_state,
            }


def _measure(wanted: dict[str, Any], volume: Volume, folder: Path) -> dict[str, Any]:
    """Time a network and, unless it is too slow, train it and compare its labels with the truth."""
    variant = next(entry for entry in VARIANTS if entry.name == wanted["variant"])
    model, prediction, scores = (folder / name for name in ("model.safetensors", "prediction.npy", "scores.json"))
    settings = [f"--set={setting}" for setting in (f"train.threads={wanted['threads']}", *variant.settings)]
    train = ["train", volume.image, folder / "sparse.npy", "--out", model, "--preset", variant.preset, *settings]
    train += ["--random-state", wanted["random_state"]]
    threads = wanted["threads"]
    used = run(*train, "--steps", _TRIALS, "--validation", 0, threads=threads)
    trained = load_model(model)
    facts = describe(trained.recipe.network)
    record = trained.recipe.record
    assert record is not None
    steps = trained.history.steps
    # the history has a point every half second, so of slow steps all; the first step is often slower than the rest
    a_step = (steps[-1].seconds - steps[0].seconds) / max(1, steps[-1].step - steps[0].step)
    # for the whole volume in one piece, filled up to a legal size
    shape = volume.truth.shape if trained.recipe.network.dimensions == 3 else (1, *volume.truth.shape[1:])
    in_one_piece = facts.legal_shape([n + 2 * margin for n, margin in zip(shape, facts.margin, strict=True)])
    figures: dict[str, Any] = {
        "parameters": facts.parameters,
        "operations_per_voxel": facts.operations(in_one_piece) / math.prod(shape),
        "patch": record.patch_size,
        "seconds_per_step": a_step,
        "peak_bytes": used.peak_bytes,
        "iou": None,
        "steps": None,
        "train_seconds": None,
    }
    if a_step > wanted["slowest"]:
        return figures
    used = run(*train, *wanted["budget"].split(), threads=threads)
    trained = load_model(model)
    record = trained.recipe.record
    assert record is not None
    run("predict", model, volume.image, "--out", prediction, threads=threads)
    excluded = ("--exclude", folder / "sparse.npy")
    run("evaluate", prediction, folder / "truth.npy", *excluded, "--json", scores, threads=threads)
    spent = sum(seconds for stage, seconds in record.stage_seconds.items() if stage != "validation")
    return {
        **figures,
        "seconds_per_step": spent / record.steps,
        "peak_bytes": used.peak_bytes,
        "iou": json.loads(scores.read_text())["mean_foreground_iou"],
        "steps": record.steps,
        "train_seconds": used.seconds,
        "stage_seconds": record.stage_seconds,
    }


def report(rows: list[dict[str, Any]]) -> str:
    """A table for each volume, with a line for each network."""
    parts = []
    for volume in dict.fromkeys(row["volume"] for row in rows):
        lines = []
        these = [row for row in rows if row["volume"] == volume]
        for name in dict.fromkeys(row["variant"] for row in these):
            by_steps, by_seconds = (
                next(
                    (r for r in these if r["variant"] == name and r["budget"].startswith(kind)),
                    None,
                )
                for kind in ("--steps", "--seconds")
            )
            row = by_steps or by_seconds
            assert row is not None
            lines.append(
                (
                    name,
                    _iou(by_steps),
                    _iou(by_seconds),
                    str(by_seconds["steps"] or "") if by_seconds else "",
                    f"{row['parameters']:,}",
                    f"{row['operations_per_voxel'] / 1e3:.0f}",
                    " x ".join(map(str, row["patch"])),
                    f"{row['seconds_per_step']:.2f}",
                    f"{row['peak_bytes'] / 1e9:.1f}",
                )
            )
        heading = (
            "network",
            "IoU, equal steps",
            "IoU, equal seconds",
            "steps then",
            "parameters",
            "k operations / voxel",
            "patch",
            "s / step",
            "peak GB",
        )
        parts.append(f"**{volume}**\n\n{markdown_table(heading, lines)}")
    return "\n\n".join(parts)


def _iou(row: dict[str, Any] | None) -> str:
    return "" if row is None or row["iou"] is None else f"{row['iou']:.3f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data), help="default: the variable UNET3D_DATA")
    parser.add_argument("--volumes", type=_names, default=[], help="names, with commas; default: all")
    parser.add_argument("--variants", type=_names, default=[], help="names in the table, with commas; default: all")
    parser.add_argument("--slices", type=int, default=3, help="painted axial slices")
    parser.add_argument("--steps", type=int, default=200, help="of the runs of equal steps")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the runs of equal seconds")
    parser.add_argument("--slowest", type=float, default=5.0, help="seconds a step from which on it is only timed")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("networks.jsonl"), help="results, one row a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


if __name__ == "__main__":
    main()
