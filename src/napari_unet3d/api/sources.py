"""What the verbs take: images and labels as paths or arrays.

Z Y X, images also C Z Y X, 2D images Y X.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import FileError, UNet3dError
from napari_unet3d.engine.nonfinite import NonFiniteWatch
from napari_unet3d.engine.progress import Note
from napari_unet3d.engine.volume import AnnotatedVolume, LazyArray, Volume, checked_labels
from napari_unet3d.io.files import read_labels, read_volume

PathLike: TypeAlias = str | os.PathLike[str]
ImageSource: TypeAlias = PathLike | Volume | LazyArray | ArrayLike
LabelSource: TypeAlias = PathLike | LazyArray | ArrayLike


def read_annotated(
    image: ImageSource,
    labels: LabelSource,
    *,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
) -> tuple[AnnotatedVolume, list[str]]:
    """An image and its labels, and what the user should know about how they fit.

    Raises
    ------
    UNet3dError
        If a file cannot be read, or the labels do not fit the image.
    """
    volume = as_volume(image, voxel_size=voxel_size, axes=axes)
    warnings: list[str] = []
    if isinstance(labels, str | os.PathLike):
        ids, warnings = read_labels(labels, volume, zero_is_background=zero_is_background)
    else:
        ids = checked_labels(np.asarray(labels), "labels", zero_is_background=zero_is_background)
        ids = ids[np.newaxis] if ids.ndim == 2 else ids
    return AnnotatedVolume(volume, ids), warnings


def read_pairs(
    pairs: Sequence[tuple[ImageSource, LabelSource]],
    *,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
) -> tuple[list[AnnotatedVolume], list[str]]:
    """Images with their labels, and what the user should know about how they fit.

    Raises
    ------
    UNet3dError
        As `read_annotated`, for the first pair that cannot be used; of several it names the pair, and the numbers of
        the others.
    """
    volumes: list[AnnotatedVolume] = []
    notes: list[str] = []
    problems: dict[int, UNet3dError] = {}
    for number, pair in enumerate(pairs, 1):
        try:
            volume, warnings = read_annotated(
                *pair, voxel_size=voxel_size, axes=axes, zero_is_background=zero_is_background
            )
        except UNet3dError as problem:
            problems[number] = problem
        else:
            volumes.append(volume)
            notes += warnings
    if problems:
        number, first = next(iter(problems.items()))
        if len(pairs) == 1:
            raise first
        names = ", ".join(_told(source) for source in pairs[number - 1])
        others = list(problems)[1:]
        more = ""
        if others:
            more = f" (nor can pair{'s' * (len(others) > 1)} {', '.join(map(str, others))} be used)"
        raise type(first)(f"pair {number} of {len(pairs)} ({names}): {first}{more}")
    return volumes, notes


def _told(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return source.name if isinstance(source, Volume) else "array"


def as_volume(image: ImageSource, *, voxel_size: VoxelSize | None = None, axes: str | None = None) -> Volume:
    """An image in the form the engine works on; `voxel_size` and `axes` instead of what the file says."""
    if isinstance(image, Volume):
        return image
    if isinstance(image, str | os.PathLike):
        return read_volume(image, axes=axes, voxel_size=voxel_size)
    return Volume.from_array(image, voxel_size)


def check_apart(outputs: Sequence[PathLike], inputs: Sequence[Any] = ()) -> None:
    """Make sure that no output is an input, lies in one, or is another output."""
    taken = {Path(source).resolve(): source for source in inputs if isinstance(source, str | os.PathLike)}
    for output in outputs:
        path = Path(output).resolve()
        for place in (path, *path.parents):
            if place in taken:
                raise FileError(f"{output} would overwrite {taken[place]}; choose another output")
        taken[path] = output


def found_non_finite(watches: list[NonFiniteWatch]) -> Iterator[Note]:
    """A note for each image with NaN or infinite values, once."""
    for watch in [watch for watch in watches if watch.found]:
        watches.remove(watch)
        yield watch.note()
