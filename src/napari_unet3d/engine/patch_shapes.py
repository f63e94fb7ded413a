"""Sizes of training patches: flat where slices are flat. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.describe import Description
from napari_unet3d.engine.networks.geometry import placed

Orientation = int | None
"""Axis (0 = Z) along which a patch is thin, or None for a cube."""

_THICKNESS: Final = 12
PATCH_VOXELS: Final = 12 * 80 * 80
"""Voxels of a slab across a slice, and of a patch; see docs/decisions/patches.md."""

_VALID_OUTPUT: Final = 24
"""Side of the output of a patch for networks without padding."""


def planned_patches(
    network: Description, patch_size: Triple | Literal["auto"], extent: Sequence[int]
) -> dict[Orientation, Triple]:
    """Input sizes of patches: as configured, or slabs no thicker than what the network sees across a slice.

    Parameters
    ----------
    patch_size
        `TrainConfig.patch_size`; grows to what the network can take.
    extent
        Z Y X voxels of the volume (the largest along each axis, of several).
    """
    axes = (0, 1, 2, None)
    if len(network.config.plane_axes) > 1:
        return _flat_patches(network, patch_size, extent)
    if patch_size != "auto":
        return dict.fromkeys(axes, network.legal_shape(patch_size))
    if any(network.margin):
        side = 2 * max(network.margin) + _VALID_OUTPUT
        return dict.fromkeys(axes, network.legal_shape((side, side, side)))
    seen = [2 * (axis.context - axis.feature_radius) + 1 for axis in network.geometry]
    z, y, x = (min(_THICKNESS, reach) for reach in seen)
    return patch_shapes((z, y, x), PATCH_VOXELS, network.total_stride, extent)


def _flat_patches(
    network: Description, patch_size: Triple | Literal["auto"], extent: Sequence[int]
) -> dict[Orientation, Triple]:
    """For planes across all axes: a plane with its neighbours, across the axis of the slices; pieces as across Z.

    A given size is that of a patch across Z; across other axes the patch is turned. No patch is thicker than wide,
    because it is cut across its shortest axis.
    """
    planes = 1 + 2 * network.config.neighbours
    shapes: dict[Orientation, Triple] = {}
    for axis in range(3):
        geometry = placed(network.frame, axis)
        if patch_size == "auto":
            z, y, x = (along.total_stride for along in geometry)
            wanted = list(patch_shapes((planes, planes, planes), PATCH_VOXELS, (z, y, x), extent)[axis])
        else:
            thickness, *wanted = patch_size
            wanted.insert(axis, thickness)
        sides = [along.legal(size) for along, size in zip(geometry, wanted, strict=True)]
        sides[axis] = min(sides)
        shapes[axis] = (sides[0], sides[1], sides[2])
    return {**shapes, None: shapes[0]}


def halved_patches(network: Description, shapes: Mapping[Orientation, Triple]) -> dict[Orientation, Triple] | None:
    """Patches of about half the voxels: each is cut along the longest side that can be cut. None where none can.

    The network keeps at least two voxels on its coarsest level, so that every normalisation has something to do.
    """
    halved = {axis: _halved(network, axis, shape) for axis, shape in shapes.items()}
    return halved if halved != dict(shapes) else None


def _halved(network: Description, axis: Orientation, shape: Triple) -> Triple:
    flat = len(network.config.plane_axes) > 1
    geometry = placed(network.frame, axis or 0) if flat else network.geometry
    for side in sorted(range(3), key=lambda i: -shape[i]):
        cut = list(shape)
        cut[side] = geometry[side].legal(shape[side] // 2)
        z, y, x = cut
        if cut[side] < shape[side] and math.prod(network.shapes((z, y, x))[-1].encoder) > 1:
            return (z, y, x)
    return shape


def patch_shapes(thickness: Triple, voxels: int, stride: Triple, extent: Sequence[int]) -> dict[Orientation, Triple]:
    """Patch size for slices along each axis and (key None) for 3D pieces, all of about the same voxel count.

    A patch is `thickness` along the slices' axis and square along the others, a cube for pieces; each side is a
    multiple of `stride` and no longer than the volume needs. Where the volume is too short for that, the other
    sides grow until the voxel count is reached, in the plane first.

    Parameters
    ----------
    thickness
        Voxels across slices along Z, Y and X.
    voxels
        Of a patch.
    stride
        Z Y X numbers that patch sizes must be multiples of.
    extent
        Z Y X voxels of the volume (the largest along each axis, of several).
    """
    limits = [_round_up(n, step) for n, step in zip(extent, stride, strict=True)]
    shapes: dict[Orientation, Triple] = {}
    for axis in (0, 1, 2, None):
        wanted = [round(voxels ** (1 / 3))] * 3
        if axis is not None:
            wanted = [round((voxels / thickness[axis]) ** 0.5)] * 3
            wanted[axis] = thickness[axis]
        size = [min(_round_up(n, step), limit) for n, step, limit in zip(wanted, stride, limits, strict=True)]
        while size[0] * size[1] * size[2] < voxels:
            free = [other for other in range(3) if size[other] < limits[other]]
            if not free:
                break
            shortest = min(free, key=lambda other: (other == axis, size[other]))
            size[shortest] += stride[shortest]
        shapes[axis] = (size[0], size[1], size[2])
    return shapes


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
