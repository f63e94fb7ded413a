"""How much of each class there is."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.pieces import count_pieces
from napari_unet3d.engine.volume import LazyArray
from napari_unet3d.io._text import write_text
from napari_unet3d.io.label_blocks import slabs

_UNITS: Final = ("mm", "um", "nm")


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Parameters
    ----------
    id
        Label id.
    name
        Its name; "class N" where it has none.
    voxels
        Number of voxels, over all time points.
    volume
        In `unit`.
    unit
        Such as ``mm3``; ``um2`` for a plane; ``pixel3`` where the voxel size has no unit.
    share
        Of all voxels whose id is not 0, 0..1.
    pieces
        Connected pieces (voxels that share a face), those of each time point counted.
    """

    id: int
    name: str
    voxels: int
    volume: float
    unit: str
    share: float
    pieces: int


def class_table(
    labels: LazyArray, voxel_size: VoxelSize, classes: Mapping[int, str], *, spatial_dims: int = 3
) -> list[ClassRow]:
    """Voxels, volume, share and pieces of each class, by ascending id; read a slab at a time.

    Parameters
    ----------
    labels
        Z Y X, or Y X where `spatial_dims` is 2; an axis in front of those is time. Any integer type.
    voxel_size
        Of one voxel. The table is in mm, um or nm: the largest of them in which the smallest class that is
        there has a volume of at least 1.
    classes
        Names of ids. They are listed even where there is no voxel, as is every other id found; 0 never is.
    spatial_dims
        3, or 2 for areas.

    Raises
    ------
    DataError
        If the labels are no integers, or have another number of axes.
    """
    if np.dtype(labels.dtype).kind not in "biu" or len(labels.shape) - spatial_dims not in (0, 1):
        raise DataError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; needed are integers with {spatial_dims} "
            "axes, perhaps time in front"
        )
    voxels: Counter[int] = Counter()

    def planes() -> Iterator[tuple[int, NDArray[Any]]]:
        for time_point, _, slab in slabs(labels, spatial_dims):
            for plane in slab:
                ids, counts = np.unique(plane, return_counts=True)
                voxels.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
                yield time_point, plane

    pieces: Counter[int] = Counter()
    for _, series in groupby(planes(), key=lambda item: item[0]):
        pieces.update(count_pieces(plane for _, plane in series))
    voxels.pop(0, None)
    total = sum(voxels.values())
    unit, factor = _unit(voxel_size, min(voxels.values(), default=1), spatial_dims)
    return [
        ClassRow(
            id=label_id,
            name=classes.get(label_id) or f"class {label_id}",
            voxels=voxels[label_id],
            volume=voxels[label_id] * factor,
            unit=unit,
            share=voxels[label_id] / total if total else 0.0,
            pieces=pieces[label_id],
        )
        for label_id in sorted({*voxels, *classes} - {0})
    ]


def write_class_table(rows: Sequence[ClassRow], path: str | os.PathLike[str]) -> Path:
    """Write the table as CSV (comma, point, UTF-8), there only when complete.

    Raises
    ------
    FileError
        If the folder is missing or the file cannot be written; an older one is left as it was.
    """
    unit = rows[0].unit if rows else "pixel3"
    kind = "area" if unit.endswith("2") else "volume"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "name", "voxels", f"{kind} ({unit})", "share of labelled volume", "connected pieces"])
    for row in rows:
        writer.writerow([row.id, row.name, row.voxels, f"{row.volume:.6g}", f"{row.share:.6g}", row.pieces])
    return write_text(path, text.getvalue())


def _unit(size: VoxelSize, fewest: int, spatial_dims: int) -> tuple[str, float]:
    """The unit of the table and the volume of one voxel in it."""
    for unit in ("pixel",) if size.unit == "pixel" else _UNITS:
        edges = size.to(unit).zyx[-spatial_dims:]
        factor = float(np.prod(edges))
        if fewest * factor >= 1:
            break
    return f"{unit}{spatial_dims}", factor
