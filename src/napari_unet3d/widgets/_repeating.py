"""A run as a command line: the files it needs, written into the autosave folder, and the words to type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError, UNet3dError
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._kept import KeptFolder, copy_without

_SLAB_VOXELS: Final = 2**24
_MODEL: Final = "command-model.safetensors"
_RECIPE: Final = "command-recipe.yaml"


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One volume of a run.

    Parameters
    ----------
    image
        As it was trained on.
    path
        File that may hold it; None without.
    labels
        Z Y X, or packed as `io.annotation_file` does.
    left_out
        Ids that count as not annotated.
    """

    image: Volume
    path: str | None
    labels: NDArray[np.unsignedinteger] | bytes
    left_out: frozenset[int] = frozenset()

    def read_labels(self) -> NDArray[np.unsignedinteger]:
        """Z Y X."""
        from napari_unet3d.io.annotation_file import unpack_annotation

        labels = unpack_annotation(self.labels)[0] if isinstance(self.labels, bytes) else self.labels
        return copy_without(labels, self.left_out)


@dataclass(frozen=True)
class RecipeTask:
    """A recipe to write."""

    path: Path
    text: str

    def __call__(self, *_: Any) -> Path:
        """Write it."""
        from napari_unet3d.io._text import write_text

        return write_text(self.path, self.text)


@dataclass(frozen=True, eq=False)
class CommandTask:
    """A run to repeat.

    Parameters
    ----------
    folder
        Where files go.
    volumes
        What is trained on, at least one.
    recipe
        YAML.
    measured
        How many of the volumes, the last ones, are measured on, not trained on.
    """

    folder: KeptFolder
    volumes: Sequence[AnnotatedImage]
    recipe: str
    measured: int = 0

    def __call__(self, *_: Any) -> str:
        """Write the files; gives the command, quoted for the shell of this system."""
        folder = self.folder.get().make()
        recipe = RecipeTask(folder / _RECIPE, self.recipe)()
        pairs: list[tuple[str, str]] = []
        options: list[list[str]] = []
        for number, volume in enumerate(self.volumes):
            mark = f"-{number + 1}" if len(self.volumes) > 1 else ""
            image, needed = _image(volume, folder / f"command-image{mark}.npy")
            options.append(needed)
            labels = folder / f"command-annotation{mark}.npy"
            _write_npy(labels, volume.read_labels())
            pairs.append((str(image), str(labels)))
        words = [sys.executable, "-m", "napari_unet3d", "train", *pairs[0]]
        for number, pair in enumerate(pairs[1:], start=1):
            words += ["--validate-on" if number >= len(pairs) - self.measured else "--also", *pair]
        words += ["--config", str(recipe), *self._common(options), "--out", str(folder / _MODEL)]
        return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)

    def _common(self, options: Sequence[list[str]]) -> list[str]:
        """Options that are right for all volumes.

        Raises
        ------
        DataError
            If there are none.
        """
        wanted = max(options, key=len)
        sizes = {volume.image.voxel_size for volume in self.volumes}
        forms = {(volume.image.spatial_dims, volume.image.channels > 1) for volume in self.volumes}
        if wanted and (len(sizes) > 1 or len(forms) > 1):
            raise DataError(
                "the volumes have different voxel sizes or axes, and not all of them are in a file that tells: one "
                "command line cannot say so; save them as OME-TIFF, open those and train again"
            )
        return wanted


def _image(volume: AnnotatedImage, spare: Path) -> tuple[Path, list[str]]:
    """A file that holds the image, and options for reading it as it was trained on; `spare` is written if need be."""
    image = volume.image
    if volume.path is not None:
        found = _read(volume.path)
        if found is not None and _is_same(found, image):
            return Path(volume.path), [] if found.voxel_size == image.voxel_size else _voxel_option(image.voxel_size)
    planar, single = image.spatial_dims == 2, image.channels == 1
    data: Any = image.data
    if planar:
        data = data[:, 0]
    if single:
        data = data[0]
    _write_npy(spare, data)
    return spare, _voxel_option(image.voxel_size) + (["--axes", "CYX"] if planar and not single else [])


def _voxel_option(size: VoxelSize) -> list[str]:
    return ["--voxel-size", f"{','.join(repr(float(edge)) for edge in size.zyx)}{size.unit}"]


def _read(path: str) -> Volume | None:
    from napari_unet3d.io.files import read_volume

    try:
        return read_volume(path)
    except UNet3dError:
        return None


def _is_same(one: Volume, other: Volume) -> bool:
    """Whether two images hold the same values, looked at some planes at a time."""
    if (one.data.shape, one.spatial_dims) != (other.data.shape, other.spatial_dims):
        return False
    if np.dtype(one.data.dtype).newbyteorder("=") != np.dtype(other.data.dtype).newbyteorder("="):
        return False
    depth, height, width = one.shape
    step = max(1, _SLAB_VOXELS // (height * width * one.channels))
    for z in range(0, depth, step):
        box = (slice(z, min(z + step, depth)), slice(0, height), slice(0, width))
        if one.read(box).tobytes() != other.read(box).tobytes():
            return False
    return True


def _write_npy(path: Path, data: Any) -> None:
    """Write an array, lazy or not, some planes at a time; the file has its name only when it is complete."""
    from napari_unet3d.io._guard import writing
    from napari_unet3d.io._paths import move_into_place, remove, temporary_beside

    shape, dtype = tuple(data.shape), np.dtype(data.dtype)
    per_plane = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, _SLAB_VOXELS // max(1, per_plane))
    temporary = temporary_beside(path, path.suffix)
    with writing(path):
        try:
            target = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            for start in range(0, shape[0], step):
                target[start : start + step] = np.asarray(data[start : start + step])
            target.flush()
            del target
            move_into_place(temporary, path)
        finally:
            remove(temporary)
