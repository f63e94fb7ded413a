"""What every contender gets and gives: a folder with arrays. Needs nothing but NumPy, for other environments.

A contender is a script that is called with a folder, a budget in seconds, a number of threads and a random state. In
the folder it finds

    image.npy    Z Y X float32, grey values as in the file
    sparse.npy   Z Y X uint8, label ids 1..C on painted slices, 0 elsewhere
    voxel.json   Z Y X edge lengths

and leaves ``prediction.npy`` (Z Y X uint8, 1..C) and ``figures.json``. The budget is the wall time from reading the
arrays to the trained model; importing packages before it is free, predicting after it is counted on its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Task:
    """A volume with painted slices, a budget, and the clock that runs against it."""

    def __init__(self) -> None:
        folder, seconds, threads, state = sys.argv[1:5]
        self._start = time.perf_counter()
        self.folder = Path(folder)
        self.seconds = float(seconds)
        self.threads = int(threads)
        self.state = int(state)
        self.image: np.ndarray[Any, np.dtype[np.float32]] = np.load(self.folder / "image.npy")
        self.sparse: np.ndarray[Any, np.dtype[np.uint8]] = np.load(self.folder / "sparse.npy")
        self.voxel: list[float] = json.loads((self.folder / "voxel.json").read_text())
        self.classes = int(self.sparse.max())
        self._trained: float | None = None

    def begin(self) -> None:
        """Let the budget run from now on, where what came before is free."""
        self._start = time.perf_counter()

    @property
    def is_time_left(self) -> bool:
        """Whether the budget is not used up."""
        return time.perf_counter() - self._start < self.seconds

    def trained(self) -> None:
        """Training is over, predicting begins."""
        self._trained = time.perf_counter()

    def finish(self, prediction: np.ndarray[Any, Any], **figures: Any) -> None:
        """Write the prediction (1..C) and what else there is to tell."""
        end = time.perf_counter()
        trained = self._trained or end
        times = {"train_seconds": trained - self._start, "predict_seconds": end - trained}
        np.save(self.folder / "prediction.npy", prediction.astype(np.uint8))
        (self.folder / "figures.json").write_text(json.dumps({**times, **figures}))


def limit_threads(count: int) -> None:
    """Let numeric libraries that are loaded later use so many threads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(count)


def standardized(image: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Grey values with mean 0 and deviation 1."""
    return ((image - image.mean()) / max(float(image.std()), 1e-6)).astype(np.float32)
