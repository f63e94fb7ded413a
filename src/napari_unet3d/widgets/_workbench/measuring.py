"""How much of each class a labels layer holds, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Preparing, Stop
from napari_unet3d.engine.volume import LazyArray
from napari_unet3d.widgets._workbench.labels_source import LabelsSource
from napari_unet3d.widgets._workbench.side_job import SideJob
from napari_unet3d.widgets._workers import Emit, WorkerInbox

if TYPE_CHECKING:
    from napari_unet3d.io.class_table import ClassRow
    from napari_unet3d.widgets._workbench.bench import Workbench


class _Cancelled(Exception):
    """The owner asked to stop."""


class _CountedArray:
    """A view of an array that tells how much of it was asked for, and ends the reading on `Stop`."""

    def __init__(self, array: LazyArray, emit: Emit, inbox: WorkerInbox) -> None:
        self._array, self._emit, self._inbox = array, emit, inbox
        self._read = 0
        self.shape, self.dtype = tuple(array.shape), array.dtype

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        if any(isinstance(command, Stop) for command in self._inbox.drain()):
            raise _Cancelled
        self._emit(Preparing("counting voxels", self._read / max(math.prod(self.shape), 1)))
        part = np.asarray(self._array[index])
        self._read += part.size
        return part


@dataclass(frozen=True, eq=False)
class MeasureTask:
    """Labels to measure."""

    source: LabelsSource

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> list[ClassRow] | None:
        """Count; None where it was cancelled."""
        from napari_unet3d.io.class_table import class_table

        source = self.source
        array = _CountedArray(source.array, emit, inbox)
        spatial_dims = len(array.shape) - (source.time is not None)
        try:
            return class_table(array, source.volume.voxel_size, source.names, spatial_dims=spatial_dims)
        except _Cancelled:
            return None


@dataclass(frozen=True)
class TableTask:
    """A table to write as CSV."""

    rows: tuple[ClassRow, ...]
    path: Path

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> Path:
        """Write it."""
        from napari_unet3d.io.class_table import write_class_table

        return write_class_table(self.rows, self.path)


class Measuring(QObject):
    """Measures one labels layer at a time.

    Parameters
    ----------
    bench
        Its owner.
    """

    measured = Signal()
    """There is another table."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.job = SideJob(self)
        self.rows: tuple[ClassRow, ...] = ()
        """The newest table, background first."""
        self.layer_name = ""
        """What it is of."""

    def problem(self, layer: Any) -> str:
        """Why a layer cannot be measured, with what to do; empty if it can."""
        if self.job.is_running:
            return "a table is being made"
        try:
            LabelsSource.of(layer)
        except UNet3dError as error:
            return str(error)
        return ""

    def start(self, layer: Any) -> None:
        """Measure a labels layer."""
        if self.problem(layer):
            return
        source = LabelsSource.of(layer)

        def keep(rows: Sequence[ClassRow]) -> str:
            self.rows, self.layer_name = tuple(rows), source.name
            self.measured.emit()
            return ""

        self.job.start(MeasureTask(source), keep)

    def save(self, path: Path) -> None:
        """Write the newest table as CSV."""
        path = path if path.suffix.lower() == ".csv" else path.with_name(path.name + ".csv")
        self.job.start(TableTask(self.rows, path), lambda written: f"saved {written}")
