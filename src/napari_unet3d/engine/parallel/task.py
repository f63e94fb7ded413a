"""What a process is given to take part in a training, and what it sends back.

All of it goes through pipes between a program and the processes it started itself, so pickle is safe there; nothing
of it is ever stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, TrainConfig
from napari_unet3d.engine.errors import FileError
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

_BLOCK_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class StoredVolume:
    """An annotated volume in two files that all processes map into their memory.

    The image is stored as Z C Y X, so that it can be written block by block.
    """

    image: Path
    labels: Path
    voxel_size: VoxelSize
    affine: NDArray[np.float64] | None
    spatial_dims: int
    name: str

    def open(self) -> AnnotatedVolume:
        """The volume; the image is read where it is needed."""
        data = np.load(self.image, mmap_mode="r").transpose(1, 0, 2, 3)
        image = Volume(data, self.voxel_size, self.affine, self.spatial_dims, self.name)
        return AnnotatedVolume(image, np.load(self.labels))


def stored(volume: AnnotatedVolume, folder: Path, number: int) -> StoredVolume:
    """Where `store` puts a volume."""
    image = volume.image
    paths = (folder / f"image-{number}.npy", folder / f"labels-{number}.npy")
    return StoredVolume(*paths, image.voxel_size, image.affine, image.spatial_dims, image.name)


def store(volume: AnnotatedVolume, place: StoredVolume) -> Iterator[float]:
    """Write a volume to its place; yields the share done (0..1] after every block.

    Raises
    ------
    FileError
        If there is no room.
    """
    z, y, x = volume.image.shape
    shape = (z, volume.image.channels, y, x)
    first = volume.image.read((slice(0, 1), slice(0, y), slice(0, x)))
    planes = max(1, _BLOCK_BYTES // first.nbytes)
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    try:
        np.save(place.labels, volume.labels)
        with place.image.open("wb") as file:  # not a memory map, which a full disk would crash
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, z, planes):
                stop = min(z, start + planes)
                block = volume.image.read((slice(start, stop), slice(0, y), slice(0, x)))
                file.write(np.ascontiguousarray(block.transpose(1, 0, 2, 3)).data)
                yield stop / z
    except OSError as error:
        raise FileError(
            f"{volume.image.name} cannot be copied for the processes into {place.image.parent} "
            f"({error.strerror or error}); set TMPDIR to a folder with more room"
        ) from None


@dataclass(frozen=True)
class Task:
    """All that a process needs.

    Parameters
    ----------
    rank, size
        Number of the process, and of all.
    device
        Where it computes.
    threads
        CPU threads.
    meeting_point
        As of `ProcessGroup`.
    volumes, network, config
        As of `Trainer`.
    start, resume
        Model files, as of `Trainer`.
    options
        Further arguments of `Trainer`.
    snapshot
        Model file that the first process keeps up to date.
    """

    rank: int
    size: int
    device: str
    threads: int
    meeting_point: str
    volumes: tuple[StoredVolume, ...]
    network: NetworkConfig
    config: TrainConfig
    start: Path | None
    resume: Path | None
    options: Mapping[str, Any]
    snapshot: Path


@dataclass(frozen=True)
class Failed:
    """A process ends with an error."""

    kind: str
    """Name of its class."""
    text: str


def meeting_point(folder: Path) -> str:
    """URL of a place in a new folder where processes of this machine find each other."""
    path = folder / "meeting-point"
    return path.as_uri() if os.name == "nt" else f"file://{path}"
