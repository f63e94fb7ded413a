"""Which network the student is: like the teacher, with a share of its operations."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, UNet3PlusConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError

DEFAULT_OPERATIONS: Final = Fraction(1, 8)
"""Of the teacher's, where nothing else is asked for."""

_FEATURE_OPERATIONS: Final = 5000
"""What the fixed features of one channel at one scale cost, in operations of a convolution that take as long."""

_SIDE: Final = 64
"""Voxels of the cube that operations are counted on (a cube of an output for networks without padding)."""

_FEW_FILTERS: Final = 4


def parse_share(text: str) -> Fraction:
    """A share of the teacher's operations from ``1/8`` or ``0.125``.

    Raises
    ------
    ConfigError
        If it is no number above 0 and below 1.
    """
    try:
        share = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise ConfigError(
            f"--operations {text!r} is no share of the teacher's operations; give a number between 0 and 1, such as 1/8"
        )
    return share


def operations_per_voxel(network: NetworkConfig) -> float:
    """Multiplications with an addition in the convolutions of a network, for each voxel of a large output."""
    facts = describe(network)
    side = [1 if network.dimensions == 2 and axis == 0 else _SIDE for axis in range(3)]
    shape = facts.legal_shape([size + 2 * margin for size, margin in zip(side, facts.margin, strict=True)])
    z, y, x = facts.output_shape(shape)
    return facts.operations(shape) / (z * y * x)


def _cost(network: NetworkConfig) -> float:
    """Operations for each voxel, and what features cost besides."""
    features = 0 if network.features == "none" else network.in_channels * len(network.feature_scales)
    return operations_per_voxel(network) + _FEATURE_OPERATIONS * features


def smaller_network(
    teacher: NetworkConfig, voxel_size: VoxelSize, share: Fraction = DEFAULT_OPERATIONS
) -> NetworkConfig:
    """The student that the program chooses: like the teacher, with at most a share of its operations.

    Operations are counted with and without the cost of fixed features, so that the student is faster as a whole and not
    only in its convolutions. Features are kept where they leave at least half of the share to the network; where they
    are left out, one more level makes up for their reach. The student has as many filters as fit then, at least 4 if
    that can be had with fewer levels. The choice depends on nothing but the arguments.

    Parameters
    ----------
    teacher
        Its configuration.
    voxel_size
        For which kernels and strides are settled where the number of levels changes.
    share
        Above 0, below 1.

    Raises
    ------
    ConfigError
        If no smaller network of the same family fits.
    """
    for fewest in (_FEW_FILTERS, 1):
        for candidate in _families(teacher, voxel_size, share):
            for first in range(candidate.filters_per_level[0], fewest - 1, -1):
                network = _with_filters(candidate, first)
                fits = operations_per_voxel(network) <= share * operations_per_voxel(teacher)
                if fits and _cost(network) <= share * _cost(teacher):
                    return network
    raise ConfigError(
        f"no network with {share} of the teacher's operations is left: it is small already; give a larger share with "
        "--operations, or a network with --preset or --config"
    )


def _families(teacher: NetworkConfig, voxel_size: VoxelSize, share: Fraction) -> Iterator[NetworkConfig]:
    """Networks that may be made narrower, the best first."""
    same = teacher.updated(deep_supervision=False)
    plain = same.updated(features="none")
    if _cost(same) - _cost(plain) <= share * _cost(teacher) / 2:
        yield same
    deepest = teacher.levels + (teacher.features != "none")
    for levels in range(deepest, 1, -1):
        try:
            yield _with_levels(plain, levels).for_voxels(voxel_size)
        except ConfigError:  # a family may not allow so many, or so few
            continue


def _with_levels(network: NetworkConfig, levels: int) -> NetworkConfig:
    if levels == network.levels:
        return network
    changes: dict[str, Any] = {"levels": levels}
    wanted = {"filters": levels, "convolutions": levels, "dropout": levels, "decoder_dropout": levels - 1}
    for name, count in wanted.items():
        value = getattr(network, name, None)
        if isinstance(value, tuple):
            more = (2 * value[-1] if name == "filters" else value[-1],)
            changes[name] = value[:count] + more * (count - len(value))
    for name in ("kernel", "strides"):
        if isinstance(getattr(network, name), tuple):
            changes[name] = "auto"
    return network.updated(**changes)


def _with_filters(network: NetworkConfig, first: int) -> NetworkConfig:
    """The network with so many filters on the first level, and the others in proportion."""
    before = network.filters_per_level
    changes: dict[str, Any] = {"filters": tuple(max(1, round(count * first / before[0])) for count in before)}
    if isinstance(network, UNet3PlusConfig) and network.branch_filters is not None:
        changes["branch_filters"] = max(1, round(network.branch_filters * first / before[0]))
    return network.updated(**changes)
