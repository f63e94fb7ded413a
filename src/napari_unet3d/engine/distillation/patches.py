"""Patches anywhere in the volumes: what a student can learn on without annotation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from napari_unet3d.engine.config import TrainConfig, Triple
from napari_unet3d.engine.describe import Description
from napari_unet3d.engine.patch_shapes import Orientation, patch_shapes
from napari_unet3d.engine.sampling import Patch, centre_near


class AnywherePatches:
    """Draws patches so that every voxel of every volume is shown about equally often.

    Parameters
    ----------
    shapes
        Z Y X of each volume.
    size
        Z Y X of a patch.
    border
        As of `sampling.PatchSampler`.
    """

    def __init__(self, shapes: Sequence[Triple], size: Triple, border: tuple[int, int, int]) -> None:
        self.size = size
        self._shapes = shapes
        self._border = border
        voxels = np.array([math.prod(shape) for shape in shapes], dtype=np.float64)
        self._shares = voxels / voxels.sum()

    def draw_batch(self, rng: np.random.Generator, count: int) -> list[Patch]:
        """`count` patches."""
        return [self._draw(rng) for _ in range(count)]

    def _draw(self, rng: np.random.Generator) -> Patch:
        volume = int(rng.choice(len(self._shapes), p=self._shares))
        shape = self._shapes[volume]
        voxel = [int(rng.integers(length)) for length in shape]
        centre = centre_near(rng, voxel, shape, self.size, self._border)
        return Patch(volume, centre, self.size, axis=None, label_id=0)


def full_patch_size(
    network: Description,
    config: TrainConfig,
    around_annotation: Mapping[Orientation, Triple],
    voxel: tuple[float, float, float],
    extent: Sequence[int],
) -> Triple:
    """Z Y X voxels of patches in which all voxels count: about as long as wide in physical size.

    Slabs, which suit painted slices, would teach mostly what a network says at the border of its input.

    Parameters
    ----------
    network
        The student.
    config
        Its training; a patch size that is set there is used.
    around_annotation
        Sizes of the other patches; these have as many voxels.
    voxel
        Z Y X edges of a voxel, relative to the finest.
    extent
        Z Y X of the largest volume along each axis.
    """
    size = around_annotation[None]
    if config.patch_size != "auto" or any(network.margin):
        return size
    voxels = math.prod(size)
    edge = (voxels * math.prod(voxel)) ** (1 / 3)
    z, y, x = (max(1, round(edge / length)) for length in voxel)
    coarsest = int(np.argmax(voxel))
    return patch_shapes((z, y, x), voxels, network.total_stride, extent)[coarsest]
