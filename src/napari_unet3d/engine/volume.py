"""An image with its geometry, and an image with painted labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import Box

IGNORE_INDEX: Final = -1
"""Target value of a voxel that is not annotated."""

NOT_ANNOTATED: Final = 0
"""Label id of a voxel that is not annotated."""


@runtime_checkable
class LazyArray(Protocol):
    """Anything that has a shape and a dtype and reads a part of itself when sliced."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Volume:
    """An image in the form the engine works on.

    Parameters
    ----------
    data
        C Z Y X, any real dtype; NumPy, memory map, zarr, dask or another lazy array. Nothing is read here.
        A 2D image is a volume with one plane and ``spatial_dims=2``.
    voxel_size
        Z Y X edge lengths with unit.
    affine
        4 x 4, from (z, y, x, 1) voxel indices to (z, y, x, 1) world coordinates in the unit of `voxel_size`;
        None where the file holds none.
    spatial_dims
        3, or 2 for an image that is a single plane by nature.
    name
        For messages, usually the file name.
    source
        What a writer of the same format needs to write the same geometry (for NIfTI its header).

    Raises
    ------
    DataError
        If `data` is not four-dimensional, is empty or is complex.
    """

    data: LazyArray
    voxel_size: VoxelSize = field(default_factory=VoxelSize)
    affine: NDArray[np.float64] | None = None
    spatial_dims: int = 3
    name: str = "image"
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.data.shape) != 4:
            raise DataError(
                f"{self.name} has shape {self.data.shape}; an image needs the axes C Z Y X or Z Y X "
                "(name them with --axes)"
            )
        if 0 in self.data.shape:
            raise DataError(f"{self.name} is empty: its shape is {self.data.shape}")
        kind = np.dtype(self.data.dtype).kind
        if kind == "c":
            raise DataError(f"{self.name} is complex ({self.data.dtype}); save its magnitude or phase and use that")
        if kind not in "biuf":
            raise DataError(f"{self.name} holds {self.data.dtype}, not numbers")

    @classmethod
    def from_array(
        cls, array: ArrayLike | LazyArray, voxel_size: VoxelSize | None = None, name: str = "image"
    ) -> Volume:
        """Wrap a Y X, Z Y X or C Z Y X array, lazily where it is lazy.

        Raises
        ------
        DataError
            If the array has fewer than two or more than four axes, is empty or is complex.
        """
        data = array if isinstance(array, LazyArray) else np.asarray(array)
        ndim = len(data.shape)
        if ndim not in (2, 3, 4):
            raise DataError(f"{name} has shape {data.shape}; needed: Y X, Z Y X or C Z Y X")
        for _ in range(4 - ndim):
            data = data[np.newaxis] if isinstance(data, np.ndarray) else LeadingAxis(data)
        return cls(data, voxel_size or VoxelSize(), spatial_dims=min(ndim, 3), name=name)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Z Y X."""
        z, y, x = self.data.shape[1:]
        return (int(z), int(y), int(x))

    def read(self, box: Box | None = None, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """C Z Y X values inside `box` (default: everything), contiguous, native byte order.

        Parameters
        ----------
        box
            Z Y X slices inside the volume.
        dtype
            Result type; by default that of the image.
        """
        z, y, x = box or (slice(None), slice(None), slice(None))
        part = np.asarray(self.data[:, z, y, x])
        wanted = np.dtype(dtype) if dtype is not None else part.dtype.newbyteorder("=")
        return np.ascontiguousarray(part, dtype=wanted)


class LeadingAxis:
    """View of a lazy array with one more axis of length 1 in front; reads nothing until sliced."""

    def __init__(self, array: LazyArray) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self._array.shape)

    @property
    def dtype(self) -> Any:
        return self._array.dtype

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        index = index if isinstance(index, tuple) else (index,)
        first, rest = index[0], index[1:]
        part: NDArray[Any] = np.asarray(self._array[rest if rest else ...])[np.newaxis]
        return part if first == slice(None) else part[first]


@dataclass(frozen=True, eq=False)
class AnnotatedVolume:
    """An image and its sparse labels.

    Parameters
    ----------
    image
        The image.
    labels
        Z Y X, uint8 or uint16, the shape of the image: 0 = not annotated, other ids are classes.

    Raises
    ------
    DataError
        If the shapes differ.
    """

    image: Volume
    labels: NDArray[np.unsignedinteger]

    def __post_init__(self) -> None:
        if tuple(self.labels.shape) != self.image.shape:
            raise DataError(
                f"labels have shape {tuple(self.labels.shape)} but {self.image.name} has {self.image.shape} "
                "(Z Y X); paint on this image, or resample the labels to it"
            )

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Ids painted somewhere, ascending, without 0."""
        return tuple(int(i) for i in np.unique(self.labels) if i != NOT_ANNOTATED)


def checked_labels(values: NDArray[Any], name: str, *, zero_is_background: bool = False) -> NDArray[np.unsignedinteger]:
    """Label ids as uint8 (uint16 above 255), from any array that holds whole numbers of at least 0.

    Parameters
    ----------
    values
        Z Y X, any real dtype.
    name
        For messages.
    zero_is_background
        The labels hold no unannotated voxel: every id moves up by one, so 0 becomes 1.

    Raises
    ------
    DataError
        If a value is negative, fractional, not finite or above 65534, or the type is not a real number.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {values.dtype}; labels need whole numbers of at least 0")
    if values.size:
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"{name} holds NaN or infinite values; labels need whole numbers")
        if low < 0:
            raise DataError(f"{name} holds the negative value {low:g}; labels need whole numbers of at least 0")
        if high > 65534:
            raise DataError(f"{name} holds the id {high:g}; label ids go up to 65534")
        if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
            odd = values[values != np.round(values)].flat[0]
            raise DataError(f"{name} holds the fractional value {odd:g}; labels need whole numbers")
    else:
        high = 0
    shift = int(zero_is_background)
    ids: NDArray[np.unsignedinteger] = values.astype(np.uint8 if high + shift <= 255 else np.uint16)
    ids += ids.dtype.type(shift)
    return ids


def common_label_ids(volumes: Sequence[AnnotatedVolume]) -> tuple[int, ...]:
    """Ids painted in at least one volume, ascending.

    Raises
    ------
    DataError
        If nothing is annotated, or only one class.
    """
    ids = sorted({i for volume in volumes for i in volume.label_ids})
    if not ids:
        raise DataError(
            "no voxel is annotated: paint at least two classes (1 = background, 2 and up = structures; "
            "0 means not annotated)"
        )
    if len(ids) == 1:
        raise DataError(
            f"only class {ids[0]} is annotated; paint at least one stroke of a second class "
            "(1 = background by convention). If 0 is your background, use --zero-is-background"
        )
    return tuple(ids)


def target_table(label_ids: Sequence[int]) -> NDArray[np.int16]:
    """Look-up table from label id to class index; every other id maps to `IGNORE_INDEX`.

    Parameters
    ----------
    label_ids
        Ascending ids; the i-th becomes class index i. Gaps are allowed.
    """
    table = np.full(max(label_ids) + 1 if label_ids else 1, IGNORE_INDEX, dtype=np.int16)
    for index, label_id in enumerate(label_ids):
        table[label_id] = index
    return table
