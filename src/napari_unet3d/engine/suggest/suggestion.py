"""A slice worth painting, and why, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.annotation_units import AnnotatedUnit
from napari_unet3d.engine.axes import SPATIAL_AXES, VoxelSize
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.suggest.ranking import RankedSlice

_LEAST_SHARE: Final = 0.1
"""Structures with less of a slice's uncertainty than this are not what makes it uncertain."""


@dataclass(frozen=True)
class Suggestion:
    """A slice to paint next.

    Parameters
    ----------
    axis
        0, 1 or 2: the slice lies across Z, Y or X.
    index
        Of the slice along `axis`, counted from 0.
    score
        What painting it should help, relative to the first suggestion (1).
    reason
        For the user.
    centre
        Z Y X voxel of the slice around which it helps most.
    """

    axis: int
    index: int
    score: float
    reason: str
    centre: tuple[int, int, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the axis also by its name."""
        return {
            "axis": self.axis,
            "axis_name": SPATIAL_AXES[self.axis],
            "index": self.index,
            "score": self.score,
            "reason": self.reason,
            "centre": list(self.centre),
        }


@dataclass(frozen=True)
class Situation:
    """What reasons are given from.

    Parameters
    ----------
    classes
        Of the model, background first.
    held_out_iou
        IoU on held-out slices by class index, as far as known.
    units
        What is annotated; empty for nothing.
    voxel_size
        For distances.
    """

    classes: Sequence[ClassInfo]
    held_out_iou: Mapping[int, float]
    units: Sequence[AnnotatedUnit]
    voxel_size: VoxelSize

    def suggestion(self, ranked: RankedSlice) -> Suggestion:
        """The slice with its reason."""
        reason = f"{self._doubt(ranked.class_shares)}, {self._distance(ranked.axis, ranked.index)}"
        return Suggestion(ranked.axis, ranked.index, ranked.score, reason, ranked.centre)

    def _doubt(self, shares: NDArray[np.float64]) -> str:
        """What the model is unsure of."""
        if not shares.any():
            return "the model is sure of everything here"
        k = 1 + int(shares[1:].argmax()) if len(shares) > 1 else 0
        if shares[k] < _LEAST_SHARE:
            k = 0
        name = self.classes[k].name
        iou = f" (IoU {self.held_out_iou[k]:.2f} on held-out slices)" if k in self.held_out_iou else ""
        return f"uncertain border of '{name}'{iou}"

    def _distance(self, axis: int, index: int) -> str:
        """How far along the axis the nearest annotated slice is."""
        if not self.units:
            return "nothing is annotated yet"
        name = SPATIAL_AXES[axis].upper()
        ends = [(unit.start[axis], unit.stop[axis] - 1) for unit in self.units if unit.axis == axis]
        if not ends:
            return f"no {name} slice is annotated"
        away = min(max(first - index, index - last, 0) for first, last in ends)
        if away == 0:
            return f"this {name} slice is annotated in part only"
        length = away * self.voxel_size.zyx[axis]
        physical = "" if self.voxel_size.unit == "pixel" else f" ({length:.3g} {self.voxel_size.symbol})"
        slices = "slice" if away == 1 else "slices"
        return f"the nearest annotated {name} slice is {away} {slices}{physical} away"
