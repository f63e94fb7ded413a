"""Geometry of scale-space features; see `engine.filters`. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

TRUNCATE: Final = 3.0
"""Gaussians end at so many standard deviations."""


def smoothing_steps(scales: Sequence[float]) -> list[float]:
    """Standard deviations that lead from each scale to the next larger one, from 0 on: variances add up."""
    return [math.sqrt(b * b - a * a) for a, b in pairwise([0.0, *sorted(scales)])]


def smoothing_reach(sigma: float) -> int:
    """Voxels on each side that a Gaussian of `sigma` voxels covers."""
    return math.ceil(TRUNCATE * sigma)


def feature_radius(scales: Sequence[float], voxel: Sequence[float]) -> tuple[int, int, int]:
    """Voxels (Z Y X) on each side of a voxel that its features depend on: all smoothing steps and a difference.

    Parameters
    ----------
    scales
        Standard deviations in units of the finest voxel edge.
    voxel
        Z Y X voxel edges, the finest being 1.
    """
    z, y, x = (sum(smoothing_reach(step / edge) for step in smoothing_steps(scales)) + 1 for edge in voxel)
    return (z, y, x)
