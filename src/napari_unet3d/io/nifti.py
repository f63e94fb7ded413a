"""NIfTI-1 and NIfTI-2, ``.nii`` and ``.nii.gz``.

A NIfTI array is X Y Z (time) (channels) with X fastest in the file, which is Z Y X in memory order.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast

import nibabel
import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import LazyArray, Volume
from napari_unet3d.io._axes import check_length, given_axes
from napari_unet3d.io._lazy import ScaledArray
from napari_unet3d.io._stored import StoredArray, unit_factor

Header: TypeAlias = Any  # nibabel's header classes carry no type hints

_Nifti1Header: Any = nibabel.Nifti1Header
_Nifti2Header: Any = nibabel.Nifti2Header
_UNIT_NAMES: Final = {"um": "micron", "mm": "mm", "m": "meter"}
_LONGEST_NIFTI1_AXIS: Final = 32767


def read_nifti(path: Path, axes: str | None = None) -> StoredArray:
    """A NIfTI file; memory-mapped if not compressed.

    Slope and intercept are applied where they change anything, else the stored type is kept. An unknown unit
    counts as mm, as NIfTI programs take it. The source holds ``header`` (its bytes) and, where the values
    were scaled, ``slope``.

    Parameters
    ----------
    path
        The file.
    axes
        Letters for the stored axes in the order nibabel shows them, for example ``"XYZC"``.

    Raises
    ------
    DataError
        If the file has a fourth axis longer than 1 that `axes` does not name.
    """
    image = cast(Any, nibabel.load(path))
    proxy = image.dataobj
    raw: NDArray[Any] = np.asanyarray(proxy.get_unscaled())
    source: dict[str, Any] = {"format": "nifti", "header": image.header.binaryblock}
    array: LazyArray = raw
    letters = "XYZTC56"[: raw.ndim]
    if raw.dtype.names is not None:  # RGB24 or RGBA32
        array = np.stack([raw[name] for name in "RGB"], axis=-1)
        letters += "S"
    elif (proxy.slope, proxy.inter) != (1, 0):
        array = ScaledArray(raw, float(proxy.slope), float(proxy.inter))
        source["slope"] = abs(float(proxy.slope))
    if axes is not None:
        letters = given_axes(axes)
        check_length(letters, array.shape, path.name)
        if not set(letters[:3]) <= set("XYZ"):
            raise DataError(
                f"{path.name}: the first three axes of a NIfTI file are space, but --axes {axes} names them "
                f"{letters[:3]}; give X, Y and Z first, for example --axes {'XYZCT'[: raw.ndim]}"
            )
    elif raw.ndim > 3 and raw.shape[3] > 1:
        raise DataError(
            f"{path.name} has a fourth axis of length {raw.shape[3]}: if it is channels use "
            f"--axes {'XYZCT'[: raw.ndim]}, if it is time save one time point"
        )
    voxel_size, affine = _geometry(image.header, np.asarray(image.affine, dtype=np.float64), letters[:3])
    return StoredArray(array, letters, voxel_size, affine, source)


def _geometry(
    header: Header, affine: NDArray[np.float64], letters: str
) -> tuple[VoxelSize | None, NDArray[np.float64] | None]:
    """Voxel size and Z Y X affine from the affine over stored indices; neither if it is degenerate."""
    unit = header.get_xyzt_units()[0]
    unit = "mm" if unit == "unknown" else unit
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        return None, None
    columns = [*(letters.index(axis) if axis in letters else "XYZ".index(axis) for axis in "ZYX"), 3]
    affine = affine[[2, 1, 0, 3]][:, columns]
    z, y, x = (float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    return VoxelSize(z, y, x, unit), affine


def write_nifti(path: Path, array: NDArray[Any], axes: str, image: Volume) -> None:
    """Write labels or maps with the geometry of `image`.

    Parameters
    ----------
    path
        The new file; compressed if its name ends in ``.gz``.
    array
        In the order `axes`; may be a memory map, one plane at a time is read.
    axes
        ``"ZYX"`` or ``"YX"``, with C in front for channels; these become the fourth NIfTI axis.
    image
        Where the geometry comes from; an image from NIfTI gives its header, so that qform, sform, their
        codes, units and zooms are the same bits.
    """
    order = "".join(a for a in image.source["axes"] if a in "XYZ") if "header" in image.source else "XYZ"
    if "Z" not in order and "C" in axes:
        order += "Z"  # channels are the fourth axis, so there must be a third
    if "Z" in order and "Z" not in axes:
        array = np.expand_dims(array, axes.index("Y"))
        axes = axes.replace("Y", "ZY")
    letters = order + "C" if "C" in axes else order
    in_memory_order = array.transpose([axes.index(axis) for axis in reversed(letters)])
    header = _header(image, in_memory_order.shape[::-1])
    header.set_data_dtype(array.dtype)
    header.set_intent("none" if array.dtype.kind == "f" else "label")
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    header["descrip"] = b""
    header["vox_offset"] = header.single_vox_offset
    dtype = header.get_data_dtype()
    with _opened(path) as file:
        header.write_to(file)
        file.write(bytes(header.single_vox_offset - file.tell()))
        for index in np.ndindex(in_memory_order.shape[:-2]):
            file.write(np.ascontiguousarray(in_memory_order[index], dtype=dtype).data)


def _header(image: Volume, shape: tuple[int, ...]) -> Header:
    """A header with the geometry of `image` for a file of `shape` (X Y Z, or X Y Z C)."""
    is_long = max(shape) > _LONGEST_NIFTI1_AXIS
    stored = image.source.get("header")
    if stored is not None:
        kind = _Nifti2Header if len(stored) == _Nifti2Header.sizeof_hdr else _Nifti1Header
        header = kind(stored)
        header.set_data_shape(shape)
        header["pixdim"][4:] = 1
        return header
    header = _Nifti2Header() if is_long else _Nifti1Header()
    header.set_data_shape(shape)
    unit = {"nm": "um", "angstrom": "um", "cm": "mm"}.get(image.voxel_size.unit, image.voxel_size.unit)
    affine = image.affine if image.affine is not None else np.diag([*image.voxel_size.zyx, 1.0])
    affine = affine[[2, 1, 0, 3]][:, [2, 1, 0, 3]].copy()
    affine[:3] *= unit_factor(image.voxel_size.unit, unit)
    header.set_xyzt_units(_UNIT_NAMES.get(unit, "unknown"))
    header.set_qform(affine, "aligned")  # sets the zooms; a shear is in the sform only
    header.set_sform(affine, "aligned")
    return header


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # no name and no time in the stream: the same labels give the same bytes
        with gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
            yield cast(BinaryIO, packed)
