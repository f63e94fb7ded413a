"""What the reader of each format hands over, and how it becomes a `Volume`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.io._axes import settle_axes
from napari_unet3d.io._lazy import as_czyx


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array as it lies in a file.

    Parameters
    ----------
    array
        In stored order, lazy where the format allows.
    axes
        One letter for each stored axis: T, C, S (samples), Z, Y, X; any other letter is an axis without a
        name.
    voxel_size
        None where the file holds none.
    affine
        As in `Volume`; None where the file holds none.
    source
        As in `Volume`.
    has_alpha
        The last of four colours is opacity.
    """

    array: LazyArray
    axes: str
    voxel_size: VoxelSize | None = None
    affine: NDArray[np.float64] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    has_alpha: bool = False

    def to_volume(self, path: Path, *, voxel_size: VoxelSize | None = None, is_stack: bool = False) -> Volume:
        """The array as an image.

        Parameters
        ----------
        path
            Its file.
        voxel_size
            Counts instead of the file's; the affine is stretched to it. Numbers without a unit take the
            file's unit.
        is_stack
            A single plane is a stack of one plane, not a 2D image.

        Raises
        ------
        DataError
            If the axes cannot be told apart, or time is longer than 1, or the values are no numbers.
        """
        settled = settle_axes(self.axes, self.array.shape, path.name)
        data = as_czyx(self.array, settled, path)
        if self.has_alpha and data.shape[0] == 4:
            data = data[:3]
        size, affine = self.voxel_size, self.affine
        source = {**self.source, "path": path, "axes": settled}
        if voxel_size is not None:
            if size is not None and voxel_size.unit == "pixel":
                voxel_size = replace(voxel_size, unit=size.unit)
            if affine is not None:
                affine = stretched(affine, size or VoxelSize(), voxel_size)
            if size is None or not same_size(size, voxel_size):
                source.pop("header", None)  # it tells another voxel size
            size = voxel_size
        return Volume(
            data,
            size or VoxelSize(),
            affine=affine,
            spatial_dims=2 if data.shape[1] == 1 and not is_stack else 3,
            name=path.name,
            source=source,
        )


@dataclass(frozen=True)
class TimeAxis:
    """A time axis in front of Z Y X.

    Parameters
    ----------
    length
        Number of time points.
    seconds
        From one to the next; None where that is not known.
    """

    length: int
    seconds: float | None = None


def same_size(first: VoxelSize, second: VoxelSize) -> bool:
    """Whether two voxel sizes agree to one part in a thousand; pixels agree with pixels only."""
    if (first.unit == "pixel") != (second.unit == "pixel"):
        return False
    return bool(np.allclose(first.to(second.unit).zyx, second.zyx, rtol=1e-3, atol=0))


def stretched(affine: NDArray[np.float64], old: VoxelSize, new: VoxelSize) -> NDArray[np.float64]:
    """The affine (4 x 4, Z Y X) with edges `new` instead of `old`, in the unit of `new`; directions stay."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    result = np.eye(4)
    result[:3, :3] = affine[:3, :3] / edges * new.zyx
    result[:3, 3] = affine[:3, 3] * unit_factor(old.unit, new.unit)
    return result


def unit_factor(old: str, new: str) -> float:
    """Number of `new` units in one `old` unit; 1 where one of them is the pixel."""
    return VoxelSize(1.0, 1.0, 1.0, old).to(new).z


def keeps_z(image: Volume) -> bool:
    """Whether files of the image's shape have a Z axis: no for a 2D image stored without one."""
    return image.spatial_dims == 3 or "Z" in image.source.get("axes", "")
