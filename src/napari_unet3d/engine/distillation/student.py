"""Which network the student is: like the teacher, with a share of its operations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, Triple, UNet3PlusConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError

DEFAULT_OPERATIONS: Final = Fraction(1, 8)
"""Of the teacher's, where nothing else is asked for."""

_FEATURE_OPERATIONS: Final = 5000
"""What the fixed features of one channel at one scale cost, in operations of a convolution that take as long."""

_CUBE: Final = (64, 64, 64)
"""Z Y X voxels of the volume that operations are counted on where no other is given."""

_MULTIPLES: Final = (8, 4, 1)
"""Numbers of filters are multiples of the first of these that allows a network: five take as long as eight."""


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


def operations_on(network: NetworkConfig, shape: Triple) -> int:
    """Multiplications with an addition in the convolutions, for a Z Y X volume in one piece, filled up where needed."""
    facts = describe(network)
    return facts.operations(facts.legal_shape([n + 2 * m for n, m in zip(shape, facts.margin, strict=True)]))


def _cost(network: NetworkConfig, shape: Triple) -> int:
    """Operations, and what features cost besides."""
    features = 0 if network.features == "none" else network.in_channels * len(network.feature_scales)
    return operations_on(network, shape) + _FEATURE_OPERATIONS * features * math.prod(shape)


def smaller_network(
    teacher: NetworkConfig, voxel_size: VoxelSize, share: Fraction = DEFAULT_OPERATIONS, shape: Triple = _CUBE
) -> NetworkConfig:
    """The student that the program chooses: like the teacher, with at most a share of its operations.

    Operations are counted with and without the cost of fixed features, so that the student is faster as a whole and not
    only in its convolutions. Features are kept where they leave at least half of the share to the network; where they
    are left out, one more level may make up for their reach. The finest level, where most of the time goes, may have a
    convolution less. Of what fits then, the student is the one that takes most operations, with numbers of filters that
    suit processors. The choice depends on nothing but
    the arguments; see docs/decisions/distillation.md.

    Parameters
    ----------
    teacher
        Its configuration.
    voxel_size
        For which kernels and strides are settled where the number of levels changes.
    share
        Above 0, below 1.
    shape
        Z Y X of the volume that operations are counted on.

    Raises
    ------
    ConfigError
        If no smaller network of the same family fits.
    """
    most, most_cost = share * operations_on(teacher, shape), share * _cost(teacher, shape)

    def fits(network: NetworkConfig) -> bool:
        return operations_on(network, shape) <= most and _cost(network, shape) <= most_cost

    for group in _families(teacher, voxel_size, share, shape):
        for multiple in _MULTIPLES:
            widest = (next(filter(fits, _narrower(family, multiple)), None) for family in group)
            fitting = [network for network in widest if network is not None]
            if fitting:
                return max(fitting, key=lambda network: operations_on(network, shape))
    raise ConfigError(
        f"no network with {share} of the teacher's operations is left: it is small already; give a larger share with "
        "--operations, or a network with --preset or --config"
    )


def _families(
    teacher: NetworkConfig, voxel_size: VoxelSize, share: Fraction, shape: Triple
) -> Iterator[list[NetworkConfig]]:
    """Groups of networks that may be made narrower, the best group first."""
    same = teacher.updated(deep_supervision=False)
    plain = same.updated(features="none")
    if _cost(same, shape) - _cost(plain, shape) <= share * _cost(teacher, shape) / 2:
        yield [same, *_with_less_at_full_resolution(same)]
    deepest = teacher.levels + (teacher.features != "none")
    for levels in range(deepest, 1, -1):
        try:
            family = _with_levels(plain, levels).for_voxels(voxel_size)
        except ConfigError:  # a family may not allow so many, or so few
            continue
        yield [family, *_with_less_at_full_resolution(family)]


def _with_less_at_full_resolution(network: NetworkConfig) -> Iterator[NetworkConfig]:
    first, *others = network.convolutions_per_level
    if first > 1:
        yield network.updated(convolutions=(first - 1, *others))


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


def _narrower(network: NetworkConfig, multiple: int) -> Iterator[NetworkConfig]:
    """The network with fewer and fewer filters, in proportion, but always multiples of a number."""
    before = network.filters_per_level
    for first in range(before[0], 0, -1):

        def scaled(count: int, first: int = first) -> int:
            return max(1, round(count * first / before[0] / multiple)) * multiple

        filters = tuple(map(scaled, before))
        if any(fewer > count for fewer, count in zip(filters, before, strict=True)):
            continue  # it is narrow already
        changes: dict[str, Any] = {"filters": filters}
        if isinstance(network, UNet3PlusConfig) and network.branch_filters is not None:
            changes["branch_filters"] = scaled(network.branch_filters)
        yield network.updated(**changes)
