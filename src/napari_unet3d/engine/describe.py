"""What a network is, from its configuration alone: layers, sizes, reach, operations, memory.

Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from napari_unet3d.engine.axes import SPATIAL_AXES
from napari_unet3d.engine.config import NetworkConfig, Triple, UNet3PlusConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.full_scale import full_scale_geometries, unet3plus_layers
from napari_unet3d.engine.networks.geometry import Geometries, axis_geometries, enclosing, placed
from napari_unet3d.engine.networks.layers import DOWN, UP, Layer, unet_layers
from napari_unet3d.engine.networks.memory import alive_at_once, kept_for_gradient
from napari_unet3d.engine.scales import feature_radius

Voxels: TypeAlias = tuple[int, int, int]
"""Z Y X numbers of voxels, 0 allowed."""

_COPIES_OF_WEIGHTS = 5
"""In training: weights, gradients, two moments of the optimiser, moving average."""
_FLOAT32_BYTES = 4


class LevelShape(NamedTuple):
    """Z Y X sizes at one level; the coarsest level has no decoder."""

    level: int
    filters: int
    encoder: Voxels
    """What leaves the encoder block."""
    crop: Voxels | None
    """Cut from each side of the skip."""
    decoder: Voxels | None
    """What leaves the decoder block."""


class OutputGrid(NamedTuple):
    """Voxel j of an output stands for the `stride` input voxels from ``offset + j * stride`` on."""

    stride: Triple
    offset: Voxels


@dataclass(frozen=True)
class Description:
    """Answers to all questions about a network that need no weights.

    Sizes are Z Y X. Padded (``same``) networks take any size of at least one voxel, because
    `networks.build.padded_to_legal` pads to the next legal one: numbers are then those of the padded input.
    Valid networks refuse other than legal sizes with a `ConfigError` that names the nearest.

    Attributes
    ----------
    layers
        In the order of the computation.
    geometry
        Sizes and reach along Z, Y and X. Of a network whose planes lie across all axes in turn, what all passes
        need; the other sizes are then those of a pass across the shortest axis.
    frame
        The same across the planes of a two-dimensional network, along their rows and along their columns.
    """

    config: NetworkConfig
    layers: tuple[Layer, ...]
    geometry: Geometries
    frame: Geometries

    @property
    def parameters(self) -> int:
        """Trainable values."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def running_statistics(self) -> int:
        """Means and variances that batch normalisation gathers (its batch counters left out)."""
        return sum(layer.running_statistics for layer in self.layers)

    @property
    def total_stride(self) -> Triple:
        """Input voxels to one voxel of the coarsest level."""
        z, y, x = (axis.total_stride for axis in self.geometry)
        return (z, y, x)

    @property
    def receptive_field(self) -> Triple:
        """Input voxels that can change one output voxel, the most over all places in the grid of strides.

        What looks at the whole image (instance and group normalisation, guidance) is not counted.
        """
        z, y, x = (axis.receptive_field for axis in self.geometry)
        return (z, y, x)

    @property
    def context(self) -> Voxels:
        """Voxels needed on each side of what is kept of a tile, so that it equals the untiled result.

        Exact for tiles that begin on multiples of the total stride and have a legal size; the margin of valid
        networks is part of it. What looks at the whole tile (instance and group normalisation, batch
        normalisation by the statistics of the tile, guidance) is not counted.
        """
        z, y, x = (axis.context for axis in self.geometry)
        return (z, y, x)

    @property
    def margin(self) -> Voxels:
        """Voxels by which the output is shorter than the input on each side; 0 for padded networks."""
        z, y, x = (axis.margin for axis in self.geometry)
        return (z, y, x)

    @property
    def output_grids(self) -> tuple[OutputGrid, ...]:
        """Which input voxels every output stands for, finest first: one, or more with deep supervision."""
        if isinstance(self.config, UNet3PlusConfig):  # all are as fine as the image
            count = self.config.levels if self.config.deep_supervision else 1
            return (OutputGrid((1, 1, 1), (0, 0, 0)),) * count
        count = max(1, self.config.levels - 1) if self.config.deep_supervision else 1
        grids = []
        for level in range(count):
            stride = [math.prod(axis.strides[:level]) for axis in self.geometry]
            offset = [axis.input_position(level, axis.decoder_starts[level]) for axis in self.geometry]
            grids.append(OutputGrid(_triple(stride), _triple(offset)))
        return tuple(grids)

    # --- sizes --------------------------------------------------------------------------------------------

    def check_shape(self, zyx: Sequence[int]) -> None:
        """Make sure that the bare network takes an input of this size.

        Raises
        ------
        ConfigError
            Naming the first axis that does not fit and the nearest legal sizes.
        """
        for name, axis, size in zip(SPATIAL_AXES, self.geometry, zyx, strict=True):
            if axis.is_legal(size):
                continue
            above = axis.legal(size)
            below = above - axis.total_stride
            nearest = f"{below} and {above}" if below >= axis.smallest else f"{above}, the smallest"
            raise ConfigError(
                f"an input of {' x '.join(map(str, zyx))} voxels (Z Y X) does not fit the network: {size} "
                f"along {name.upper()}, nearest legal {nearest}; pad the image, or change levels, strides or "
                "padding"
            )

    def legal_shape(self, zyx: Sequence[int]) -> Triple:
        """The smallest legal input that is at least as large along every axis."""
        return _triple([axis.legal(size) for axis, size in zip(self.geometry, zyx, strict=True)])

    def output_shape(self, zyx: Sequence[int]) -> Triple:
        """Size of the output for an input; of padded networks, the same.

        Raises
        ------
        ConfigError
            If a valid network cannot take the size.
        """
        if self.config.padding == "same":
            return _triple(zyx)
        self.check_shape(zyx)
        return _triple([size - 2 * lost for size, lost in zip(zyx, self.margin, strict=True)])

    def shapes(self, zyx: Sequence[int]) -> tuple[LevelShape, ...]:
        """Sizes at every level, finest first, for an input.

        Raises
        ------
        ConfigError
            If a valid network cannot take the size.
        """
        geometry, zyx = self._one_pass(zyx)
        encoder = [axis.encoder_sizes(size) for axis, size in zip(geometry, zyx, strict=True)]
        decoder = [axis.decoder_sizes(size) for axis, size in zip(geometry, zyx, strict=True)]
        rows = []
        for level, filters in enumerate(self.config.filters_per_level):
            has_decoder = level < self.config.levels - 1
            rows.append(
                LevelShape(
                    level,
                    filters,
                    _triple([sizes[level] for sizes in encoder]),
                    _triple([axis.skip_crop(level) for axis in self.geometry]) if has_decoder else None,
                    _triple([sizes[level] for sizes in decoder]) if has_decoder else None,
                )
            )
        return tuple(rows)

    def layer_shapes(self, zyx: Sequence[int]) -> tuple[Triple, ...]:
        """Size that leaves every layer, in the order of `layers`, for an input.

        Raises
        ------
        ConfigError
            If a valid network cannot take the size.
        """
        geometry, size = self._one_pass(zyx)
        if self.config.padding == "same":
            encoder = [axis.encoder_sizes(voxels) for axis, voxels in zip(geometry, size, strict=True)]
            return tuple(_triple([levels[layer.level] for levels in encoder]) for layer in self.layers)
        sizes = []
        for layer in self.layers:
            axes = zip(size, layer.kernel, layer.stride, strict=True)
            if layer.kind in DOWN:
                size = _triple([voxels // stride for voxels, _, stride in axes])
            elif layer.kind in UP:
                lost = [axis.lost_in_upsampling[layer.level] for axis in self.geometry]
                grown = [voxels * stride for voxels, _, stride in axes]
                size = _triple([voxels - 2 * cut for voxels, cut in zip(grown, lost, strict=True)])
            else:
                size = _triple([voxels - (kernel - 1) for voxels, kernel, _ in axes])
            sizes.append(size)
        return tuple(sizes)

    # --- costs --------------------------------------------------------------------------------------------

    def operations(self, zyx: Sequence[int]) -> int:
        """Multiplications with an addition in all convolutions, for one image.

        Side heads and fixed features are left out.

        Raises
        ------
        ConfigError
            If a valid network cannot take the size.
        """
        total = 0
        for layer, size in zip(self.layers, self.layer_shapes(zyx), strict=True):
            if layer.kind in ("convolution", "branch", "projection", "strided convolution", "classifier", "head"):
                taps = math.prod(layer.kernel)
            elif layer.kind == "transposed convolution":
                taps = 1  # kernel = stride: each output voxel has one source
            else:
                continue
            total += math.prod(size) * taps * layer.in_channels * layer.out_channels
        return total * len(self.config.plane_axes)

    def memory(self, zyx: Sequence[int], *, training: bool, bytes_per_value: int, batch_size: int = 1) -> int:
        """Estimated bytes for a batch of images: weights, and the tensors alive at the same time.

        Parameters
        ----------
        zyx
            Size of the input.
        training
            With everything that the gradient needs, the optimiser and the moving average of the weights.
        bytes_per_value
            Of the tensors: 4 in float32, 2 in bfloat16. Weights count as float32.
        batch_size
            Images at a time.

        Raises
        ------
        ConfigError
            If a valid network cannot take the size.
        """
        _, zyx = self._one_pass(zyx)
        image = math.prod(zyx) * self.config.first_channels * bytes_per_value
        copies = _COPIES_OF_WEIGHTS if training else 1
        weights = (self.parameters + self.running_statistics) * _FLOAT32_BYTES * copies
        sizes = self.layer_shapes(zyx)
        if training:
            tensors = kept_for_gradient(self.config, self.layers, sizes, bytes_per_value)
        else:
            tensors = alive_at_once(self.config, self.layers, sizes) * bytes_per_value
        return weights + batch_size * (image + tensors)

    def _one_pass(self, zyx: Sequence[int]) -> tuple[Geometries, Triple]:
        """Geometry and size of the input when the network cuts it into planes once."""
        if len(self.config.plane_axes) == 1:
            return self.geometry, self._taken(zyx)
        geometry = placed(self.frame, self.config.cut_across(zyx))
        return geometry, _triple([axis.legal(size) for axis, size in zip(geometry, zyx, strict=True)])

    def _taken(self, zyx: Sequence[int]) -> Triple:
        if self.config.padding == "same":
            return self.legal_shape(zyx)
        self.check_shape(zyx)
        return _triple(zyx)


def describe(config: NetworkConfig) -> Description:
    """Describe the network that `build_network` builds; ``auto`` kernels and strides count as isotropic."""
    radius = (0, 0, 0)
    if config.features == "scale_space":
        z, y, x = feature_radius(config.feature_scales, config.feature_voxel)
        radius = (z if config.dimensions == 3 else 0, y, x)
    frame: Geometries
    if isinstance(config, UNet3PlusConfig):
        layers, frame = tuple(unet3plus_layers(config)), full_scale_geometries(config, radius)
    else:
        layers, frame = tuple(unet_layers(config)), axis_geometries(config, radius)
    if config.plane_axis == "all":
        return Description(config, layers, enclosing(frame), frame)
    across = config.plane_axes[0]
    return Description(config, tuple(_turned(layer, across) for layer in layers), placed(frame, across), frame)


def _turned(layer: Layer, across: int) -> Layer:
    """The layer with its kernel and stride in the order Z Y X, where planes lie across an axis."""
    if across == 0:
        return layer
    kernel, stride = list(layer.kernel), list(layer.stride)
    kernel.insert(across, kernel.pop(0))
    stride.insert(across, stride.pop(0))
    return replace(layer, kernel=_triple(kernel), stride=_triple(stride))


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = values
    return (int(z), int(y), int(x))
