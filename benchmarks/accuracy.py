"""The scoreboard: what painted slices and some seconds of training give, for us and for what else there is.

For every folder ``DIR/NAME`` with an ``image.*`` and a dense ``labels.*`` (classes 0..C-1), some slices of the truth
count as painted: 3 on one axis, or 1, 2, 3 on each of three axes. Every contender (a script in ``contenders``) gets
the same arrays, the same seconds and the same threads; its labels are scored on the voxels that were not painted.
Seconds run from reading the arrays to the trained model; what needs no budget takes the time it takes, and is shown.

Slices of state 0 are the middles of equal parts of an axis; every further state shifts each at random by up to a
quarter of such a part. Each run is one row in the results file; finished rows are not computed again.

    python benchmarks/accuracy.py --data DIR [--out FILE.jsonl] [--full] [--contenders A,B] [--markdown FILE]
                                  [--picture FILE]

The standard grid: ours and the forest on all choices of slices, 3 states, 10 and 60 s; the others on 3 slices of one
axis, 2 states, 60 s, on small volumes 180 s with ours at 180 s beside them. ``--full``: all contenders on all choices,
3 states, 10, 30, 60 and 180 s. Contenders that cannot be installed next to us get an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from accuracy_report import draw, report
from contenders.environments import BIOMEDISA, NNUNET, PYTORCH_3DUNET, Environment
from machine import describe_machine, machine, write_reports
from runs import Rows, folders_in

from napari_unet3d.engine.metrics import class_scores, confusion_matrix, mean_foreground_iou
from napari_unet3d.io.files import read_labels, read_volume

SLICES: Final = ("3,0,0", "1,1,1", "2,2,2", "3,3,3")
"""Painted slices across Z, Y and X."""
CONTENDERS: Final[dict[str, tuple[str, ...]]] = {
    "ours": ("ours.py",),
    "forest": ("forest.py",),
    "boosted trees": ("boosted.py",),
    "interpolation": ("interpolation.py",),
    "MONAI BasicUNet": ("monai_networks.py", "basic"),
    "MONAI DynUNet": ("monai_networks.py", "dynamic"),
    "pytorch-3dunet": ("pytorch_3dunet.py",),
    "nnU-Net": ("nnunet.py",),
    "Biomedisa": ("biomedisa_walk.py",),
}
"""Script and further argument of each."""
ENVIRONMENTS: Final[dict[str, Environment]] = {
    "pytorch-3dunet": PYTORCH_3DUNET,
    "nnU-Net": NNUNET,
    "Biomedisa": BIOMEDISA,
}
"""Of contenders that cannot be installed next to us."""
WITHOUT_BUDGET: Final = frozenset({"forest", "boosted trees", "interpolation", "Biomedisa"})
SMALL: Final = 1_100_000
"""Most voxels of a small volume."""
_FOLDER: Final = Path(__file__).parent / "contenders"
_MEGABYTE: Final = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss


def painted(length: int, count: int, rng: np.random.Generator | None) -> list[int]:
    """Indices of the painted slices of one axis."""
    part = length / max(count, 1)
    shifts = np.zeros(count) if rng is None else rng.uniform(-0.25, 0.25, count)
    return sorted({int((i + 0.5 + shift) * part) for i, shift in enumerate(shifts)})


def write_task(source: Path, folder: Path, slices: str, state: int) -> np.ndarray[Any, Any]:
    """Write the arrays of a task into a folder; gives the truth (1..C)."""
    image = read_volume(next(source.glob("image.*")))
    truth, _ = read_labels(next(source.glob("labels.*")), image, zero_is_background=True)
    rng = np.random.default_rng(state) if state else None
    sparse = np.zeros_like(truth)
    for axis, count in enumerate(map(int, slices.split(","))):
        for index in painted(truth.shape[axis], count, rng):
            place = (slice(None),) * axis + (index,)
            sparse[place] = truth[place]
    np.save(folder / "image.npy", image.read(dtype=np.float32)[0])
    np.save(folder / "sparse.npy", sparse.astype(np.uint8))
    (folder / "voxel.json").write_text(json.dumps(list(image.voxel_size.relative)))
    return truth


def run(source: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """One contender on one task: a row of results."""
    script, *more = CONTENDERS[wanted["contender"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = write_task(source, folder, wanted["slices"], wanted["state"])
        budget = [str(wanted[key] or 0) for key in ("seconds", "threads", "state")]
        environment = ENVIRONMENTS.get(wanted["contender"])
        python = sys.executable if environment is None else str(environment.python())
        process = subprocess.Popen([python, str(_FOLDER / script), name, *budget, *more])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{wanted['contender']} failed with exit code {process.returncode}")
        figures = json.loads((folder / "figures.json").read_text())
        predicted, sparse = np.load(folder / "prediction.npy"), np.load(folder / "sparse.npy")
    ids = range(1, int(truth.max()) + 1)
    unpainted = sparse == 0
    scores = class_scores(confusion_matrix(predicted[unpainted], truth[unpainted], list(ids)), list(ids))
    return {
        **figures,
        "iou": [score.iou for score in scores],
        "mean_iou": mean_foreground_iou(scores, 1),
        "memory_mb": _peak(usage),
    }


def _peak(usage: resource.struct_rusage) -> int:
    return round(usage.ru_maxrss / _MEGABYTE)


# --- the grid ---------------------------------------------------------------------------------------------


def grid(arguments: argparse.Namespace, volumes: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What is to be run, the most telling first."""
    is_small = {source: math.prod(read_volume(next(source.glob("image.*"))).shape) <= SMALL for source in volumes}
    for state in range(arguments.states):
        for source in volumes:
            for contender in arguments.contenders:
                for slices, seconds in _choices(contender, state, is_small=is_small[source], is_full=arguments.full):
                    wanted = {
                        "volume": source.name,
                        "contender": contender,
                        "slices": slices,
                        "state": state,
                        "seconds": None if contender in WITHOUT_BUDGET else seconds,
                        "threads": arguments.threads,
                    }
                    yield source, wanted


def _choices(contender: str, state: int, *, is_small: bool, is_full: bool) -> Iterator[tuple[str, float]]:
    """Slices and seconds for a contender on a volume."""
    is_main = contender in ("ours", "forest")
    if contender == "Biomedisa" and not is_small:  # its time grows too fast
        return
    if not is_main and not is_full:
        if state < 2:
            yield SLICES[0], 180.0 if is_small else 60.0
        return
    budgets = (10.0, 30.0, 60.0, 180.0) if is_full else (60.0, 10.0)
    for slices in SLICES[:1] if contender == "Biomedisa" else SLICES:  # whose slices must not cross
        for seconds in (60.0,) if contender in WITHOUT_BUDGET else budgets:
            yield slices, seconds
    if contender == "ours" and is_small and state < 2 and not is_full:
        yield SLICES[0], 180.0


def main() -> None:
    arguments = _arguments()
    volumes = folders_in(arguments.data, arguments.volumes)
    unknown = set(arguments.contenders) - set(CONTENDERS)
    if unknown:
        raise SystemExit(f"unknown contenders: {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    found, finished, rows = machine(), Rows(arguments.out), []
    for source, wanted in grid(arguments, volumes):
        row = finished.get(wanted)
        if row is None:
            row = finished.add(wanted, {**run(source, wanted), "machine": found})
            print(
                f"{row['volume']} {row['contender']} {row['slices']} state {row['state']} {row['seconds'] or 0:g} s: "
                f"IoU {row['mean_iou']:.3f}",
                file=sys.stderr,
            )
        rows.append(row)
    text = f"{describe_machine(found, arguments.threads)}\n\n{report(rows)}"
    write_reports(text, rows, arguments.markdown, None)
    if arguments.picture:
        draw(rows, arguments.picture)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = os.environ.get("UNET3D_DATA")
    parser.add_argument(
        "--data", type=Path, default=data, required=data is None, help="default: the variable UNET3D_DATA"
    )
    parser.add_argument("--volumes", type=_words, help="names of folders, with commas; default: all")
    parser.add_argument("--contenders", type=_words, default=list(CONTENDERS), help="names, with commas; default: all")
    parser.add_argument("--states", type=int, default=3, help="choices of slices and random states")
    parser.add_argument("--full", action="store_true", help="all contenders, slices and budgets (many hours)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads; default: all")
    parser.add_argument("--out", type=Path, default=Path("accuracy.jsonl"), help="results, one row a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw IoU against seconds")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
