"""What goes into a prediction and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import Recipe
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.tiling import Tile, continued_read
from napari_unet3d.engine.uncertainty import entropy
from napari_unet3d.engine.volume import Volume


class Normalizes(Protocol):
    """Turns grey values into network input."""

    def apply(self, values: NDArray[Any], /) -> NDArray[np.float32]:
        """C Z Y X values of any real dtype as float32, without NaN or infinity."""
        ...


class Predictable(Protocol):
    """What the predictor needs of a model."""

    @property
    def network(self) -> nn.Module:
        """B C Z Y X float32 -> B K Z Y X logits."""
        ...

    @property
    def recipe(self) -> Recipe: ...
    @property
    def normalization(self) -> Normalizes: ...
    @property
    def label_ids(self) -> tuple[int, ...]:
        """Label id of each class, as many as ``recipe.network.label_count``."""
        ...

    @property
    def voxel_size(self) -> VoxelSize:
        """The one it works at, where ``recipe.train.normalize.voxel_size`` asks for one."""
        ...

    @property
    def spatial_dims(self) -> int: ...
    @property
    def in_channels(self) -> int: ...


class Writable(Protocol):
    """Anything a block can be assigned to: NumPy array, memory map, zarr array, or a writer of one's own."""

    def __setitem__(self, index: Any, value: Any, /) -> None: ...


@dataclass(frozen=True, eq=False)
class PredictionOutputs:
    """Where results go; what is None is not computed. All have the size of the whole volume."""

    labels: Writable | None = None
    """Z Y X label ids, uint8 (uint16 with ids above 255)."""
    probabilities: Writable | None = None
    """C Z Y X float32 in 0..1, one channel for each label id. With a sigmoid head they need not sum to 1; the
    background's is one minus the highest of the structures'."""
    uncertainty: Writable | None = None
    """Z Y X float32: normalised entropy, 0 sure to 1 undecided; with a sigmoid head its mean over structures."""


def read_tile(model: Predictable, image: Volume, tile: Tile) -> NDArray[np.float32]:
    """C Z Y X network input of a tile, the image continued where it reaches outside."""
    inside, (z, y, x) = continued_read(tile.read, image.shape)
    block = model.normalization.apply(image.read(inside))
    if inside == tile.read:
        return block
    return block[:, z[:, None, None], y[:, None], x]


def read_ahead(
    read: Callable[[Tile], NDArray[np.float32]], tiles: Sequence[Tile]
) -> Generator[NDArray[np.float32], None, None]:
    """The blocks of the tiles, each read in a thread while the one before it is in use."""
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        ahead = thread.submit(read, tiles[0])
        for following in tiles[1:]:
            block = ahead.result()
            ahead = thread.submit(read, following)
            yield block
        yield ahead.result()


def write_scores(
    outputs: PredictionOutputs, box: Box, scores: Tensor, ids: NDArray[np.unsignedinteger], head: Head = "softmax"
) -> None:
    """Write K Z Y X scores of `box`; they are probabilities if anything but labels is wanted."""
    if scores.numel() == 0:
        return
    if outputs.labels is not None:
        outputs.labels[box] = label_ids_of(scores, ids)
    if outputs.probabilities is not None:
        outputs.probabilities[(slice(None), *box)] = scores.cpu().numpy()
    if outputs.uncertainty is not None:
        outputs.uncertainty[box] = entropy(scores, 0, head).cpu().numpy()


def label_ids_of(scores: Tensor, ids: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Z Y X ids of the classes with the highest score."""
    # argmax over the innermost axis is several times faster than over a strided one
    classes = scores.permute(1, 2, 3, 0).contiguous().argmax(-1)
    labels: NDArray[np.unsignedinteger] = ids[classes.cpu().numpy()]
    return labels


def written_ids(model: Predictable, background_as_zero: bool) -> NDArray[np.unsignedinteger]:
    """Table from class index to the id that is written."""
    ids = list(model.label_ids)
    dtype = np.uint8 if max(ids) <= 255 else np.uint16
    if background_as_zero:
        ids[0] = 0
    return np.array(ids, dtype=dtype)


def check_image(model: Predictable, image: Volume) -> None:
    """Refuse an image that the model cannot take.

    Raises
    ------
    DataError
        If channels or dimensions differ.
    """
    if image.channels != model.in_channels:
        raise DataError(
            f"{image.name} has {image.channels} channels but the model needs {model.in_channels}; name the "
            "axes with --axes, or train a model on such images"
        )
    if image.spatial_dims != model.spatial_dims:
        raise DataError(
            f"{image.name} is {image.spatial_dims}D but the model was trained on {model.spatial_dims}D "
            f"images; give a {model.spatial_dims}D image, or train a model on {image.spatial_dims}D images"
        )
