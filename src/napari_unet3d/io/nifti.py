"""NIfTI-1 and NIfTI-2, ``.nii`` and ``.nii.gz``.

A NIfTI array is X Y Z (time) (channels) with X fastest in the file, which is Z Y X in memory order.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
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
from napari_unet3d.io._stored import StoredArray, TimeAxis, unit_factor

Header: TypeAlias = Any  # nibabel's header classes carry no type hints

_Nifti1Header: Any = nibabel.Nifti1Header
_Nifti2Header: Any = nibabel.Nifti2Header
_UNIT_NAMES: Final = {"um": "micron", "mm": "mm", "m": "meter"}
_Extension: Any = nibabel.nifti1.Nifti1Extension
_SECONDS: Final = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_COMMENT: Final = 6
_LONGEST_NIFTI1_AXIS: Final = 32767
_CLASS_TITLE: Final = "Label classes"


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


def nifti_voxel_size(path: Path) -> VoxelSize | None:
    """The voxel size alone, from the header; None where it is degenerate."""
    image = cast(Any, nibabel.load(path))
    return _geometry(image.header, np.asarray(image.affine, dtype=np.float64), "XYZ")[0]


def nifti_seconds(path: Path) -> float | None:
    """Time between two volumes, from the header; None where it tells none."""
    header = cast(Any, nibabel.load(path)).header
    step = float(header["pixdim"][4])
    factor = _SECONDS.get(header.get_xyzt_units()[1])
    return step * factor if factor is not None and np.isfinite(step) and step > 0 else None


def nifti_label_names(path: Path) -> dict[int, str] | None:
    """Names of label ids as `write_nifti` stores them; None for an image that does not say it is labels.

    Labels without names give an empty mapping.
    """
    header = cast(Any, nibabel.load(path)).header
    if header.get_intent()[0] != "label":
        return None
    for extension in header.extensions:
        if extension.get_code() != _COMMENT:
            continue
        content = extension.get_content()
        text = content if isinstance(content, str) else bytes(content).decode("utf-8", "replace")
        title, *lines = text.rstrip("\0").splitlines() or [""]
        if title == _CLASS_TITLE:
            pairs = (line.partition("\t") for line in lines)
            return {int(number): name for number, _, name in pairs if number.isdecimal()}
    return {}


def write_nifti(
    path: Path,
    array: NDArray[Any],
    axes: str,
    image: Volume,
    *,
    time: TimeAxis | None = None,
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write labels or maps with the geometry of `image`.

    Parameters
    ----------
    path
        The new file; compressed if its name ends in ``.gz``.
    array
        In the order `axes`; may be a memory map, one plane at a time is read.
    axes
        ``"ZYX"`` or ``"YX"``, with C in front for channels or T for time; these become the fourth NIfTI axis.
    image
        Where the geometry comes from; an image from NIfTI gives its header, so that qform, sform, their
        codes, units and zooms are the same bits.
    time
        The time axis, where there is one.
    class_names
        Names of label ids, kept as a comment in the header's extension.
    """
    order = "".join(a for a in image.source["axes"] if a in "XYZ") if "header" in image.source else "XYZ"
    fourth = axes[0] if axes[0] in "CT" else ""
    if "Z" not in order and fourth:
        order += "Z"  # there must be a third axis before the fourth
    if "Z" in order and "Z" not in axes:
        array = np.expand_dims(array, axes.index("Y"))
        axes = axes.replace("Y", "ZY")
    letters = order + fourth
    in_memory_order = array.transpose([axes.index(axis) for axis in reversed(letters)])
    header = _header(image, in_memory_order.shape[::-1])
    header.set_data_dtype(array.dtype)
    header.set_intent("none" if array.dtype.kind == "f" else "label")
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    header["descrip"] = b""
    if time is not None:
        header["pixdim"][4] = time.seconds or 1
        header.set_xyzt_units(header.get_xyzt_units()[0], "sec" if time.seconds else "unknown")
    if class_names:
        lines = [f"{i}\t{' '.join(name.split())}" for i, name in sorted(class_names.items())]
        header.extensions.append(_Extension(_COMMENT, "\n".join([_CLASS_TITLE, *lines]).encode()))
    offset = header.single_vox_offset + int(header.extensions.get_sizeondisk())
    header["vox_offset"] = offset
    dtype = header.get_data_dtype()
    with _opened(path) as file:
        header.write_to(file)
        file.write(bytes(offset - file.tell()))
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
