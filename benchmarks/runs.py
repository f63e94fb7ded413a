"""Runs of the command line, with their time and memory, and a file of finished rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.io.files import read_labels, read_volume


class Used(NamedTuple):
    """What a command took, start of Python included."""

    seconds: float
    peak_bytes: int
    """Most memory at a time."""


def run(*arguments: object, threads: int) -> Used:
    """Run ``napari-unet3d ARGUMENTS``; ends the benchmark where it fails."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "napari_unet3d", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise SystemExit(f"napari-unet3d {' '.join(map(str, arguments))} failed: {''.join(last)}")
    return Used(time.perf_counter() - begun, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


class Rows:
    """Finished rows in a file, one JSON object a line: what was wanted, and the figures.

    Parameters
    ----------
    path
        Made when the first row is finished.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self._rows: list[dict[str, Any]] = list(map(json.loads, lines))

    def get(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        """The finished row, if it is there."""
        as_read = json.loads(json.dumps(wanted)).items()  # tuples have become lists
        return next((row for row in self._rows if row.items() >= as_read), None)

    def add(self, wanted: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
        """Keep a row."""
        row = {**wanted, **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._rows.append(row)
        return row


class Volume(NamedTuple):
    """A volume with its truth."""

    name: str
    image: Path
    truth: NDArray[np.unsignedinteger]
    """Z Y X label ids 1..C of every voxel."""


def read_truth(source: Path) -> Volume:
    """The volume in a folder with ``image.*`` and dense ``labels.*`` (classes from 0)."""
    image, labels = (next(source.glob(f"{name}.*")) for name in ("image", "labels"))
    truth, _ = read_labels(labels, read_volume(image), zero_is_background=True)
    return Volume(source.name, image, truth)


def folders_in(data: Path | None, names: Sequence[str] | None) -> list[Path]:
    """The folders of volumes in a folder, those of these names; all without names."""
    if data is None:
        raise SystemExit("give --data DIR or set UNET3D_DATA")
    found = [path for path in sorted(data.iterdir()) if any(path.glob("labels.*"))]
    chosen = [path for path in found if not names or path.name in names]
    if not chosen:
        raise SystemExit("no folder with image.* and labels.* there; check --data and --volumes")
    return chosen


def volumes_in(data: Path | None, names: Sequence[str]) -> list[Volume]:
    """The volumes in those folders."""
    return [read_truth(path) for path in folders_in(data, names)]
