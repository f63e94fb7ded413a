"""Sizes and reach of a U-Net along one axis, worked out from its configuration alone.

Every level has its own coordinates: 0 is the first voxel that enters the level's encoder block. A valid
network loses voxels at both ends, so its tensors start further in; a padded one starts at 0 everywhere::

    level 0   input   |0 1 2 ...                          |
              encoder | r |start of the encoder's output  | r |         r = radius of the block's convolutions
              decoder |  start of the decoder's output  |               the output of the network
    level 1   input       |0 1 2 ...                      |             voxel q pools r + s*q ... r + s*q +
    s-1
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from napari_unet3d.engine.config import UNetConfig


@dataclass(frozen=True)
class AxisGeometry:
    """A U-Net along one axis.

    Parameters
    ----------
    strides
        From every level to the next, finest first (levels - 1 entries, none for a single level).
    encoder_radii
        Voxels that the encoder block of every level sees on each side.
    decoder_radii
        The same for the decoder blocks (levels - 1 entries).
    valid
        Whether convolutions are unpadded.
    linear
        Whether up-sampling interpolates between coarse voxels.
    feature_radius
        Voxels that fixed features in front of the network see on each side.
    """

    strides: tuple[int, ...]
    encoder_radii: tuple[int, ...]
    decoder_radii: tuple[int, ...]
    valid: bool = False
    linear: bool = False
    feature_radius: int = 0

    @property
    def total_stride(self) -> int:
        """Voxels of the input to one voxel of the coarsest level."""
        return math.prod(self.strides)

    # --- sizes --------------------------------------------------------------------------------------------

    @property
    def lost_in_upsampling(self) -> tuple[int, ...]:
        """Voxels cut from each side after up-sampling to a level: those interpolated from one side only."""
        cut = self.valid and self.linear
        return tuple(stride // 2 if cut else 0 for stride in self.strides)

    @cached_property
    def decoder_starts(self) -> tuple[int, ...]:
        """Coordinate of the first voxel that leaves the decoder (coarsest level: encoder) of every level."""
        if not self.valid:
            return (0,) * len(self.encoder_radii)
        starts = [self.encoder_radii[-1]]
        for level in reversed(range(len(self.strides))):
            up = self.encoder_radii[level] + self.skip_crop(level, starts[0])
            starts.insert(0, up + self.decoder_radii[level])
        return tuple(starts)

    def skip_crop(self, level: int, coarser_start: int | None = None) -> int:
        """Voxels cut from each side of a level's skip to meet the up-sampled path; 0 for padded networks."""
        if not self.valid:
            return 0
        start = self.decoder_starts[level + 1] if coarser_start is None else coarser_start
        return self.strides[level] * start + self.lost_in_upsampling[level]

    def input_position(self, level: int, coordinate: int) -> int:
        """Input voxel at which a voxel of a level begins."""
        for finer in reversed(range(level)):
            first = self.encoder_radii[finer] if self.valid else 0
            coordinate = first + self.strides[finer] * coordinate
        return coordinate

    @property
    def margin(self) -> int:
        """Voxels by which the output is shorter than the input on each side."""
        return self.decoder_starts[0]

    @cached_property
    def smallest(self) -> int:
        """The smallest legal input."""
        if not self.valid:
            return self.total_stride
        bottleneck = 1
        while min(self._decoder_sizes(bottleneck)) < 1:
            bottleneck += 1
        size = bottleneck + 2 * self.encoder_radii[-1]
        for stride, radius in zip(reversed(self.strides), reversed(self.encoder_radii[:-1]), strict=True):
            size = stride * size + 2 * radius
        return size

    def is_legal(self, size: int) -> bool:
        """Whether the network takes an input of this size."""
        return size >= self.smallest and (size - self.smallest) % self.total_stride == 0

    def legal(self, size: int) -> int:
        """The smallest legal size that is at least `size`."""
        steps = -(-max(size - self.smallest, 0) // self.total_stride)
        return self.smallest + steps * self.total_stride

    def encoder_sizes(self, size: int) -> tuple[int, ...]:
        """Sizes that leave the encoder block of every level, finest first, for a legal input."""
        sizes = []
        for stride, radius in zip((1, *self.strides), self.encoder_radii, strict=True):
            size = size // stride - (2 * radius if self.valid else 0)
            sizes.append(size)
        return tuple(sizes)

    def decoder_sizes(self, size: int) -> tuple[int, ...]:
        """Sizes that leave the decoder block of every level but the coarsest, for a legal input."""
        return self._decoder_sizes(self.encoder_sizes(size)[-1])[:-1]

    def _decoder_sizes(self, bottleneck: int) -> tuple[int, ...]:
        sizes = [bottleneck]
        for stride, lost, radius in reversed(
            list(zip(self.strides, self.lost_in_upsampling, self.decoder_radii, strict=True))
        ):
            sizes.insert(0, stride * sizes[0] - 2 * lost - (2 * radius if self.valid else 0))
        return tuple(sizes)

    # --- reach --------------------------------------------------------------------------------------------

    @cached_property
    def _reaches(self) -> tuple[tuple[int, int], ...]:
        """First and last input voxel that decide output voxel 0, 1, ...; repeats with the total stride."""
        radius = self.feature_radius
        ranges = (self._sources(0, voxel, voxel) for voxel in range(self.total_stride))
        return tuple((low - radius, high + radius) for low, high in ranges)

    @property
    def receptive_field(self) -> int:
        """Input voxels that can change one output voxel, the most over all places in the grid of strides."""
        return max(high - low + 1 for low, high in self._reaches)

    @property
    def context(self) -> int:
        """Voxels at each end of a tile whose output depends on what lies outside of the tile.

        For tiles that begin on multiples of the total stride and have a legal size.
        """
        stride = self.total_stride
        # of the voxels at the same place in the grid, the last whose sources begin before voxel 0
        last = (place + stride * (-(low // stride) - 1) for place, (low, _) in enumerate(self._reaches))
        return max(0, 1 + max(last))

    def _sources(self, level: int, low: int, high: int) -> tuple[int, int]:
        """First and last voxel entering a level that decide voxels `low` to `high` leaving its decoder."""
        radius = self.encoder_radii[level]
        if level == len(self.strides):
            return low - radius, high + radius
        stride, first = self.strides[level], radius if self.valid else 0
        low, high = low - self.decoder_radii[level], high + self.decoder_radii[level]
        coarse = self._sources(level + 1, *self._before_upsampling(stride, low - first, high - first))
        low = min(low, first + stride * coarse[0])
        high = max(high, first + stride * coarse[1] + stride - 1)
        return low - radius, high + radius

    def _before_upsampling(self, stride: int, low: int, high: int) -> tuple[int, int]:
        if not self.linear:
            return low // stride, high // stride
        # voxel i lies at (i + 1/2) / stride - 1/2 between coarse voxels: here in integers, times 2 stride
        return (2 * low + 1 - stride) // (2 * stride), -((stride - 2 * high - 1) // (2 * stride))


Geometries: TypeAlias = tuple[AxisGeometry, AxisGeometry, AxisGeometry]
"""Of the three axes of a volume."""


def placed(frame: Geometries, across: int) -> Geometries:
    """Geometry along Z, Y and X of a network whose planes lie across an axis (0 = Z).

    Parameters
    ----------
    frame
        Geometry across the planes, along their rows and along their columns.
    across
        The axis.
    """
    planes, rows, columns = frame
    return ((planes, rows, columns), (rows, planes, columns), (rows, columns, planes))[across]


def enclosing(frame: Geometries) -> Geometries:
    """Geometry of a network whose planes lie across all axes in turn: what every one of the passes needs.

    Rows and columns of a plane are alike; what is seen across the planes is counted where it reaches further.
    """
    planes, rows, _ = frame
    beyond = max(0, planes.context - rows.context)
    axis = replace(rows, encoder_radii=(rows.encoder_radii[0] + beyond, *rows.encoder_radii[1:]))
    return (axis, axis, axis)


def axis_geometries(config: UNetConfig, feature_radius: tuple[int, int, int] = (0, 0, 0)) -> Geometries:
    """Geometry of a U-Net along Z, Y and X; in two dimensions across the planes, along rows and along columns."""
    convolutions = config.convolutions_per_level

    def along(axis: int) -> AxisGeometry:
        radii = [
            count * (kernel[axis] // 2) for count, kernel in zip(convolutions, config.kernel_per_level, strict=True)
        ]
        stem = radii[0] if config.extra_block else 0
        stem += config.neighbours if axis == 0 else 0
        return AxisGeometry(
            strides=tuple(stride[axis] for stride in config.stride_per_level),
            encoder_radii=(stem + radii[0], *radii[1:]),
            decoder_radii=tuple(radii[:-1]),
            valid=config.padding == "valid" and not (axis == 0 and config.dimensions == 2),
            linear=config.upsampling == "linear",
            feature_radius=feature_radius[axis],
        )

    return along(0), along(1), along(2)
