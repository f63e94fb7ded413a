"""Results written block by block, and there only when complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import Volume
from napari_unet3d.io._guard import quiet, writing
from napari_unet3d.io._paths import (
    file_format,
    file_suffix,
    move_into_place,
    remove,
    reserve,
    temporary_beside,
)
from napari_unet3d.io._stored import TimeAxis, keeps_z
from napari_unet3d.io.nifti import write_nifti
from napari_unet3d.io.npy import create_npy
from napari_unet3d.io.ome_zarr import create_zarr
from napari_unet3d.io.tiff import write_tiff


class OutputWriter:
    """Context manager that writes a result of any size.

    Blocks go to a hidden file or folder beside the target. Leaving the context without an exception encodes
    it where the format needs that, plane by plane, and moves it into place in one step; an exception removes
    it and leaves an older result as it was.

    Parameters
    ----------
    path
        The target; its suffix says the format. See `check_output` for what is checked before.
    shape
        Z Y X.
    dtype
        uint8, uint16 or uint32 for labels, float32 for maps.
    image
        Gives the geometry.
    channels
        Length of a channel axis in front; 0 for none.
    time
        A time axis in front; not together with channels.
    class_names
        Names of label ids, where the format has a place for them.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: DTypeLike,
        image: Volume,
        *,
        channels: int = 0,
        time: TimeAxis | None = None,
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        self._path = path
        self._image = image
        self._dtype = np.dtype(dtype)
        assert not (channels and time)
        self._class_names = class_names
        self._time = time
        self._axes = ("C" if channels else "T" if time else "") + ("ZYX" if keeps_z(image) else "YX")
        lengths = dict(zip("CTZYX", (channels, time.length if time else 0, *shape), strict=True))
        self._shape = tuple(lengths[axis] for axis in self._axes)
        self._format = file_format(path)
        self._temporary = temporary_beside(path, file_suffix(path))
        self._spool = temporary_beside(path, ".npy")
        self._array: Any = None

    def __enter__(self) -> Self:
        with self._removed_on_error(), quiet(), writing(self._path):
            if self._format == "zarr":
                self._array = create_zarr(
                    self._temporary, self._shape, self._dtype, self._axes, self._image, self._class_names, self._time
                )
            else:
                target = self._temporary if self._format == "npy" else self._spool
                self._array = create_npy(target, self._shape, self._dtype)
                reserve(target)
        return self

    def write(self, box: Box, block: NDArray[Any], time_point: int = 0) -> None:
        """Put a block into the result.

        Parameters
        ----------
        box
            Z Y X slices.
        block
            Z Y X, or C Z Y X where there are channels, of the shape of `box`; of the type given at the start, or
            one that fits into it.
        time_point
            Where there is a time axis.

        Raises
        ------
        FileError
            If the disk is full.
        """
        index: tuple[slice | int, ...] = box
        if "Z" not in self._axes:
            index, block = box[1:], block[..., 0, :, :]
        if "C" in self._axes:
            index = (slice(None), *index)
        elif "T" in self._axes:
            index = (time_point, *index)
        with writing(self._path):
            self._array[index] = block.astype(self._dtype, casting="same_kind", copy=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._remove()
            return
        extras: Any = {"time": self._time, "class_names": self._class_names}
        with self._removed_on_error(), quiet(), writing(self._path):
            if self._format == "nifti":
                write_nifti(self._temporary, self._array, self._axes, self._image, **extras)
            elif self._format == "tiff":
                write_tiff(self._temporary, self._array, self._axes, self._image, **extras)
            self._array = None  # closes the memory map
            self._spool.unlink(missing_ok=True)
            move_into_place(self._temporary, self._path)

    @contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        self._array = None
        for path in (self._temporary, self._spool):
            remove(path)
