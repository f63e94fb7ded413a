"""One file for sparse labels and their classes.

A NumPy archive (``.npz``, nothing pickled) of three arrays: ``ids`` and ``lengths``, the runs of equal ids in memory
order, and ``about``, JSON with format version, shape and classes. Runs are small for strokes, slices along any axis and
solid labels alike.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.errors import DataError, FileError
from napari_unet3d.engine.volume import LazyArray

FORMAT_VERSION: Final = 1
_SLAB_VOXELS: Final = 2**24
_CLASSES: Final = TypeAdapter(tuple[ClassInfo, ...])


def pack_annotation(labels: LazyArray, classes: Sequence[ClassInfo]) -> tuple[bytes, int]:
    """Content of an annotation file, and the number of annotated voxels.

    Parameters
    ----------
    labels
        Two axes or more, NumPy or lazy, any integer type, ids 0..65535; 0 = not annotated.
    classes
        Names and colours.

    Raises
    ------
    DataError
        If the labels are no label ids.
    """
    kind = np.dtype(labels.dtype).kind
    if kind not in "biu" or len(labels.shape) < 2:
        raise DataError(
            f"the annotation holds {labels.dtype} of shape {tuple(labels.shape)}; "
            "needed are label ids in two axes or more"
        )
    values, lengths = [np.zeros(0, np.uint8)], [np.zeros(0, np.uint32)]
    for slab in _flat_slabs(labels):
        starts = np.concatenate([[0], np.flatnonzero(slab[1:] != slab[:-1]) + 1])
        values.append(slab[starts])
        lengths.append(np.diff(starts, append=len(slab)).astype(np.uint32))
    ids, runs = np.concatenate(values), np.concatenate(lengths)
    if ids.size and (ids.min() < 0 or ids.max() > 65535):
        raise DataError(f"the annotation holds ids {ids.min()} to {ids.max()}; label ids go from 0 to 65535")
    described = {
        "format_version": FORMAT_VERSION,
        "shape": [int(length) for length in labels.shape],
        "classes": [label_class.model_dump(mode="json") for label_class in classes],
    }
    content = io.BytesIO()
    np.savez_compressed(
        content,
        about=np.frombuffer(json.dumps(described).encode(), np.uint8),
        ids=ids.astype(np.uint8 if ids.max(initial=0) <= 255 else np.uint16),
        lengths=runs,
    )
    return content.getvalue(), int(runs[ids != 0].sum(dtype=np.int64))


def _flat_slabs(labels: LazyArray) -> Iterator[NDArray[Any]]:
    """The values in memory order, some leading planes at a time; nothing for an empty array."""
    per_plane = math.prod(labels.shape[1:])
    if per_plane == 0:
        return
    thickness = max(1, _SLAB_VOXELS // per_plane)
    for start in range(0, labels.shape[0], thickness):
        yield np.ascontiguousarray(labels[start : start + thickness]).ravel()


def read_annotation(path: Path) -> tuple[NDArray[np.unsignedinteger], tuple[ClassInfo, ...]]:
    """Labels, uint8 or uint16, and classes of an annotation file.

    Raises
    ------
    FileError
        If there is no such file, or it is damaged, incomplete or of another version.
    """
    try:
        with path.open("rb") as file:
            return _unpacked(file, str(path))
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(f"the saved strokes in {path} do not fit into memory; close other programs") from error
    except PermissionError as error:
        raise FileError(f"the saved strokes in {path} may not be read; change the file's permissions") from error
    except Exception as error:  # a damaged archive can make its reader raise anything
        raise FileError(f"the saved strokes in {path} cannot be read: the file is damaged or incomplete") from error


def unpack_annotation(content: bytes) -> tuple[NDArray[np.unsignedinteger], tuple[ClassInfo, ...]]:
    """Labels and classes of what `pack_annotation` gave."""
    return _unpacked(io.BytesIO(content), "memory")


def _unpacked(file: IO[bytes], where: str) -> tuple[NDArray[np.unsignedinteger], tuple[ClassInfo, ...]]:
    with np.load(file, allow_pickle=False) as content:
        about = json.loads(content["about"].tobytes())
        if about["format_version"] != FORMAT_VERSION:
            raise FileError(
                f"the saved strokes in {where} have format {about['format_version']}, needed is {FORMAT_VERSION}; "
                "update napari-unet3d"
            )
        ids, lengths = content["ids"], content["lengths"]
    shape = tuple(int(length) for length in about["shape"])
    classes = _CLASSES.validate_python(about["classes"])
    if int(lengths.sum(dtype=np.uint64)) != math.prod(shape) or ids.dtype not in (np.uint8, np.uint16):
        raise ValueError("its parts do not fit together")
    return np.repeat(ids, lengths).reshape(shape), classes
