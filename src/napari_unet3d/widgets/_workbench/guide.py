"""Says what to paint next: looks at the strokes in the background, a moment after they changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.widgets._kept import PaintedLabels
from napari_unet3d.widgets._workbench.advice import PaintedUnit, advice
from napari_unet3d.widgets._workers import Ended, Job

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

_WAIT_MS: Final = 700
_MOST_VOXELS: Final = 2**27
"""Volumes with more are not taken apart while the user waits."""


@dataclass(frozen=True, eq=False)
class UnitsTask:
    """Labels to take apart: Z Y X, or T Z Y X."""

    labels: PaintedLabels

    def __call__(self, *_: Any) -> tuple[PaintedUnit, ...] | None:
        """Painted slices and pieces; None for too large a volume."""
        from napari_unet3d.engine.annotation_units import find_units

        if np.prod(self.labels.shape[-3:], dtype=np.int64) > _MOST_VOXELS:
            return None
        found = []
        for t in range(self.labels.shape[0] if len(self.labels.shape) == 4 else 1):
            volume = self.labels[t : t + 1][0] if len(self.labels.shape) == 4 else self.labels[:]
            for unit in find_units(volume):
                ids = frozenset(int(i) for i in np.unique(volume[unit.box]) if i)
                found.append(PaintedUnit(unit.axis, ids))
        return tuple(found)


class Guide(QObject):
    """Keeps the sentences about what to paint next up to date.

    Parameters
    ----------
    bench
        Has image, annotation and classes.
    """

    changed = Signal()
    """There are other sentences."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._job: Job | None = None
        self._units: tuple[PaintedUnit, ...] | None = None
        self._is_stale = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self._look)
        bench.painted.connect(self._on_painted)
        bench.layers_changed.connect(self._forget)

    @property
    def slices(self) -> int | None:
        """How many slices and pieces are painted; None while that is not known."""
        return None if self._units is None else len(self._units)

    def sentences(self) -> list[str]:
        """The most urgent first; empty where nothing needs to be said."""
        bench = self._bench
        if bench.image is None or bench.watch is None:
            return []
        if bench.check.problem():
            return [bench.check.problem()]
        axes = 3 if bench.image.spatial_dims == 3 else 1
        validation = bench.session.train_config.validation
        return list(advice(bench.session.classes, bench.painted_ids, self._units, axes=axes, validation=validation))

    def _forget(self) -> None:
        self._units = None
        self._on_painted()

    def _on_painted(self) -> None:
        self._is_stale = True
        if not self._timer.isActive():
            self._timer.start()

    def _look(self) -> None:
        bench = self._bench
        if not self._is_stale or self._job is not None or bench.image is None or bench.watch is None:
            return
        if bench.session.phase.is_running:  # the processor is needed elsewhere
            self._timer.start()
            return
        self._is_stale = False
        watch = bench.watch
        labels = PaintedLabels([watch.handed_out(t) for t in range(bench.image.time_points)])
        self._job = job = Job(UnitsTask(labels), self)

        def use(ended: Ended) -> None:
            self._job = None
            job.deleteLater()
            if bench.watch is watch:
                self._units = ended.result
                self.changed.emit()
            if self._is_stale:
                self._timer.start()

        job.ended.connect(use)
        job.start()
