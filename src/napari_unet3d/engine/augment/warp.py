"""Where the voxels of a training patch are read: flips, rotation, scaling, smooth deformation.

::

    patch index i   --flip-->   offset from the middle   --rotate, scale (physical)-->   + displacement(i)
                                                                                         = source position

A patch of `size` voxels around `centre` has the centre at index ``size // 2``; everything turns about its
middle, ``(size - 1) / 2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.engine.augment.spline import SplineField
from napari_unet3d.engine.config import AugmentConfig
from napari_unet3d.engine.progress import Box

LARGEST_ROTATED_RATIO: Final = 2.0
"""Voxels whose edges differ by more are flat; turning them across their planes would leave coarse steps."""

_ROUNDING: Final = 0.01
"""Room in voxels for float32 positions that differ between devices."""


@dataclass(frozen=True, eq=False)
class Warp:
    """All that was drawn at random for the geometry of one patch.

    Parameters
    ----------
    size
        Z Y X voxels of the patch.
    voxel
        Z Y X edges of a voxel; only their ratios count.
    flips
        Whether the patch is mirrored along Z, Y, X.
    rotation
        Degrees about the axes Z, Y, X. A quarter turn about Z changes a cube as
        ``numpy.rot90(cube, axes=(1, 2))`` does, about Y as ``axes=(2, 0)``, about X as ``axes=(0, 1)``.
    scale
        Size of a structure in the patch, relative to its size in the source.
    field
        Displacements of the read positions in the patch, or none.
    """

    size: tuple[int, int, int]
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)
    flips: tuple[bool, bool, bool] = (False, False, False)
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    field: SplineField | None = None

    @classmethod
    def identity(cls, size: tuple[int, int, int]) -> Warp:
        """The warp that reads a patch as it is."""
        return cls(size)

    @property
    def is_grid_aligned(self) -> bool:
        """Whether every position is a voxel of the source (flips only), so that nothing is interpolated."""
        return self.field is None and self.scale == 1 and not any(self.rotation)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """3 x 3, Z Y X: turns an offset in the patch into one in the source, in voxels, without flips."""
        edges = np.asarray(self.voxel, dtype=np.float64)
        turn = _rotation_matrix(self.rotation) / self.scale
        matrix: NDArray[np.float64] = turn * edges / edges[:, np.newaxis]
        return matrix

    def start(self, centre: Sequence[float]) -> tuple[int, int, int]:
        """Source voxel of index (0, 0, 0) of a grid-aligned patch before flips; the centre is rounded."""
        z, y, x = (math.floor(c + 0.5) - s // 2 for c, s in zip(centre, self.size, strict=True))
        return z, y, x

    def coordinates(self, centre: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
        """Positions in the source of all voxels of the patch.

        Parameters
        ----------
        centre
            Z Y X source voxel of index ``size // 2``; rounded to whole voxels if the warp is grid-aligned.
        device
            Where the result is wanted.

        Returns
        -------
        Tensor
            Z Y X 3, float32, source voxels (z, y, x); each of the three planes is contiguous.
        """
        size = np.asarray(self.size)
        first = self.start(centre) if self.is_grid_aligned else np.asarray(centre) - size // 2
        middle = (size - 1) / 2
        indices = [
            np.arange(n, dtype=np.float64)[:: -1 if flip else 1] for n, flip in zip(self.size, self.flips, strict=True)
        ]
        # the affine part is a sum of one vector for each axis of the patch
        parts = [np.outer(self.matrix[:, axis], indices[axis] - middle[axis]) for axis in range(3)]
        parts[0] += (first + middle)[:, np.newaxis]
        z, y, x = (torch.as_tensor(part, dtype=torch.float32).to(device) for part in parts)
        positions: Tensor = (z[:, :, None] + y[:, None, :])[..., None] + x[:, None, None, :]  # 3 Z Y X
        if self.field is not None:
            positions += self.field.at(indices, device)
        return positions.movedim(0, -1)

    def bounds(self, centre: Sequence[float], shape: Sequence[int]) -> Box:
        """The part of a source that `sample` reads for this patch.

        Cutting the part out and moving the centre by its start gives the same patch.

        Parameters
        ----------
        centre
            Z Y X source voxel of index ``size // 2``.
        shape
            Z Y X voxels of the source.
        """
        positions = self.coordinates(centre).flatten(0, 2)
        lowest, highest = positions.amin(0).tolist(), positions.amax(0).tolist()
        z, y, x = (_read_range(low, high, n) for low, high, n in zip(lowest, highest, shape, strict=True))
        return z, y, x


def draw_warp(
    config: AugmentConfig,
    size: tuple[int, int, int],
    voxel: tuple[float, float, float],
    rng: np.random.Generator,
) -> Warp:
    """Draw the geometry of one patch (Çiçek 2016, section 3, and more).

    Rotation, scaling and deformation happen together, in a share `config.probability` of the patches, flips
    in all. A patch one voxel thick stays in its plane: it is turned and deformed within it only.

    Parameters
    ----------
    config
        Largest magnitudes.
    size
        Z Y X voxels of the patch.
    voxel
        Z Y X edges of a voxel, relative to the finest.
    rng
        The only source of randomness.
    """
    mirror_z, mirror_y, mirror_x = (bool(flip) and config.flips for flip in rng.integers(2, size=3))
    flips = (mirror_z, mirror_y, mirror_x)
    if rng.random() >= config.probability:
        return Warp(size, voxel, flips)
    angles = rng.uniform(-config.rotation, config.rotation, size=3)
    about_z, about_y, about_x = np.where(_may_turn_about(size, voxel), angles, 0.0).tolist()
    scale = 1.0 + float(rng.uniform(-config.scaling, config.scaling))
    field = _draw_field(config, size, voxel, rng) if config.deformation else None
    return Warp(size, voxel, flips, (about_z, about_y, about_x), scale, field)


def _draw_field(
    config: AugmentConfig,
    size: tuple[int, int, int],
    voxel: tuple[float, float, float],
    rng: np.random.Generator,
) -> SplineField:
    """Normal displacements on nodes at a random phase, one node beyond the patch on each side."""
    spacing = [max(config.deformation_grid / edge, 1.0) for edge in voxel]
    phase = rng.random(3)
    thick = np.asarray(size) > 1
    counts = [
        math.ceil((n - 1) / step + shift) + 3 if n > 1 else 1
        for n, step, shift in zip(size, spacing, phase, strict=True)
    ]
    # a patch one voxel thick has one node across, and nothing moves out of its plane
    sd = np.where(thick, config.deformation / np.asarray(voxel), 0.0)
    nodes = rng.normal(size=(3, *counts)) * sd[:, np.newaxis, np.newaxis, np.newaxis]
    origin_z, origin_y, origin_x = np.where(thick, -(1 + phase) * spacing, 0.0).tolist()
    step_z, step_y, step_x = spacing
    return SplineField(nodes, (step_z, step_y, step_x), (origin_z, origin_y, origin_x))


def _may_turn_about(size: tuple[int, int, int], voxel: tuple[float, float, float]) -> list[bool]:
    """For each axis, whether patches may be rotated about it: not across thin patches, nor flat voxels."""
    planes = [((axis + 1) % 3, (axis + 2) % 3) for axis in range(3)]
    ratios = [max(voxel[a] / voxel[b], voxel[b] / voxel[a]) for a, b in planes]
    if max(ratios) > LARGEST_ROTATED_RATIO:
        most_regular = ratios.index(min(ratios))
        allowed = [axis == most_regular and ratios[axis] <= LARGEST_ROTATED_RATIO for axis in range(3)]
    else:
        allowed = [True, True, True]
    return [ok and size[a] > 1 and size[b] > 1 for ok, (a, b) in zip(allowed, planes, strict=True)]


def _rotation_matrix(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """3 x 3 rotation in physical space: about X first, then Y, then Z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(degrees):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(math.radians(angle))
        turn[a, b] = math.sin(math.radians(angle))
        turn[b, a] = -turn[a, b]
        matrix = matrix @ turn
    return matrix


def _read_range(low: float, high: float, length: int) -> slice:
    """Voxels read for positions from low to high along one axis, the outermost ones for what lies beyond."""
    start = min(max(math.floor(low - _ROUNDING), 0), length - 1)
    stop = min(max(math.floor(high + _ROUNDING) + 2, 1), length)
    return slice(start, stop)
