"""Applying a model to an image of any size, tile by tile.

A tile is read and normalised while the one before it is computed, and written as soon as it is final, so
memory does not grow with the volume. Blocks here are C Z Y X (NumPy) or B C Z Y X (the network); scores are
K Z Y X, either logits or probabilities: the class with the highest one is the same.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Generator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_unet3d.engine.blending import BlendBand
from napari_unet3d.engine.config import PredictConfig, Triple
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.device import (
    Precision,
    choose_device,
    choose_precision,
    free_memory,
    memory_format,
)
from napari_unet3d.engine.errors import DeviceError
from napari_unet3d.engine.heads import with_background
from napari_unet3d.engine.networks.folding import fold_normalization
from napari_unet3d.engine.prediction_io import (
    Predictable,
    PredictionOutputs,
    check_image,
    label_ids_of,
    read_ahead,
    read_tile,
    write_scores,
    written_ids,
)
from napari_unet3d.engine.prediction_progress import Stopped, TileClock, heed
from napari_unet3d.engine.progress import (
    Box,
    Event,
    Finished,
    Inbox,
    Note,
    Started,
)
from napari_unet3d.engine.resampled_prediction import run_resampled, working_size
from napari_unet3d.engine.tile_network import TileNetwork, is_out_of_memory
from napari_unet3d.engine.tile_planning import plan_tile
from napari_unet3d.engine.tiling import Footprint, TileGrid, whole
from napari_unet3d.engine.volume import Volume

PLANE_CONTEXT: Final = 8
"""Voxels of context on each side when only one plane is wanted, to have it soon."""

_PLANE_VOXELS: Final = 2_000_000


class Predictor:
    """Applies a model to images.

    Parameters
    ----------
    model
        The model; its network is copied, never changed.
    config
        Settings.

    Raises
    ------
    DeviceError
        If the asked-for device is not there.
    """

    def __init__(self, model: Predictable, config: PredictConfig | None = None) -> None:
        self._model = model
        self._config = config or PredictConfig()
        self._footprint = Footprint.of(model.recipe.network)
        self._device, self._device_reason = choose_device(self._config.device)
        precision = choose_precision(self._config.precision, self._device)
        network = copy.deepcopy(model.network).eval()
        fold_normalization(network)
        network.to(self._device)
        if self._device.type != "mps":
            # torch's stub lacks this overload
            network.to(memory_format=memory_format(model.recipe.network.dimensions))  # type: ignore[call-overload]
        axes = range(3 - model.spatial_dims, 3) if self._config.flips else ()
        self._network = TileNetwork(
            network, self._device, precision, tuple(axes), model.recipe.network.head, self._config.compile
        )

    def run(
        self,
        image: Volume,
        outputs: PredictionOutputs,
        inbox: Inbox | None = None,
        start_at: tuple[int, int] | None = None,
        box: Box | None = None,
    ) -> Generator[Event, None, None]:
        """Predict, telling what happens.

        Where the model works at another voxel size than that of the image, the image is resampled to it block by
        block, and the results back to the voxels of the image.

        Parameters
        ----------
        image
            The image; read tile by tile.
        outputs
            Receive the result block by block, indexed in voxels of the whole volume.
        inbox
            Heeds `Stop`, `Pause` and `Resume` between two tiles.
        start_at
            Axis (0 = Z) and index of the plane to do first. With overlap tiles are done in order of Z.
        box
            Part of the volume to predict; None for all.

        Yields
        ------
        Event
            `Started`, `Predicted` after each tile, with the box that became final (empty while blended
            tiles wait for their neighbours), `Note`, `Paused`, and at the end `Finished` ("done" or
            "stopped").

        Raises
        ------
        DataError
            If the image has not the model's channels or dimensions, or no voxel size though the model works at one,
            or the network gives NaN.
        ConfigError
            If `memory` is too small for any tile or the halo leaves nothing of the tile.
        DeviceError
            If memory runs out even with the smallest tile.
        """
        check_image(self._model, image)
        box = box or whole(image.shape)
        target = working_size(self._model, image)
        if target is None:
            yield from self._run(image, outputs, inbox, start_at, box)
            return
        yield Note(f"{image.name} is resampled from {image.voxel_size} to {target}, and the result back")
        yield from run_resampled(
            self._run,
            self._model,
            image,
            target,
            outputs,
            background_as_zero=self._config.background_as_zero,
            box=box,
            inbox=inbox,
            start_at=start_at,
        )

    def _run(
        self,
        image: Volume,
        outputs: PredictionOutputs,
        inbox: Inbox | None,
        start_at: tuple[int, int] | None,
        box: Box,
    ) -> Generator[Event, None, None]:
        """Predict an image as it is."""
        tile = self._plan(image, box)
        yield Started(
            device=str(self._device),
            device_reason=self._device_reason,
            precision=self._network.precision,
            threads=torch.get_num_threads(),
        )
        clock = TileClock(box)
        todo = [box]
        try:
            while todo:
                grids = [self._grid(image, tile, part) for part in todo]
                clock.tiles_left = sum(len(grid) for grid in grids)
                todo = []
                for grid in grids:
                    if todo:  # memory ran out: cut what is left into smaller tiles, too
                        todo.append(grid.box)
                        continue
                    todo = yield from self._cover(image, outputs, grid, clock, inbox, start_at)
                    if todo:
                        tile = _halved(grid.tile, self._footprint)
                        yield Note(f"memory ran out with tiles of {grid.tile}; going on with {tile}", "warning")
        except Stopped:
            reason = "stopped"
        else:
            reason = "done"
        yield Finished(reason, step=clock.done, seconds=clock.seconds)

    def _cover(
        self,
        image: Volume,
        outputs: PredictionOutputs,
        grid: TileGrid,
        clock: TileClock,
        inbox: Inbox | None,
        start_at: tuple[int, int] | None,
    ) -> Generator[Event, None, list[Box]]:
        """Predict the tiles of a grid; returns what is left to do when memory runs out."""
        blend = self._config.overlap > 0
        tiles = grid.tiles(None if blend else start_at)
        as_probabilities = blend or outputs.probabilities is not None or outputs.uncertainty is not None
        ids = written_ids(self._model, self._config.background_as_zero)
        head = self._model.recipe.network.head
        band: BlendBand | None = None
        done = 0
        try:
            if blend:
                band = BlendBand(grid, len(ids))
            with contextlib.closing(read_ahead(lambda t: read_tile(self._model, image, t), tiles)) as blocks:
                for tile in tiles:
                    yield from heed(inbox, clock)
                    scores = self._network(next(blocks), tile.crop, as_probabilities)
                    if note := self._network.take_note():
                        yield note
                    box = tile.kept
                    if band is not None:
                        box, blended = band.add(tile, scores.cpu().numpy())
                        scores = with_background(torch.from_numpy(blended), head)
                    write_scores(outputs, box, scores, ids, head)
                    done += 1
                    yield clock.predicted(box)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if band is not None:
            return [(slice(band.start, grid.box[0].stop), *grid.box[1:])]
        return [tile.kept for tile in tiles[done:]]

    def _grid(self, image: Volume, tile: Triple, box: Box) -> TileGrid:
        return TileGrid(image.shape, self._footprint, tile, self._config.halo, self._config.overlap, box)

    def _plan(self, image: Volume, box: Box) -> Triple:
        if self._config.tile != "auto":
            return self._footprint.legal_tile(self._config.tile, image.shape)
        memory = self._config.memory or free_memory(self._device) // 2
        facts = describe(self._model.recipe.network)
        classes = len(self._model.label_ids)
        plane = (box[1].stop - box[1].start) * (box[2].stop - box[2].start)

        def memory_of(tile: Triple) -> int:
            voxels = tile[0] * tile[1] * tile[2]
            network = facts.memory(
                tile, training=False, bytes_per_value=4 if self._network.precision == "float32" else 2
            )
            # two blocks as read and normalised; logits, probabilities and what is written, in float32
            around = voxels * (2 * image.channels * (4 + image.data.dtype.itemsize) + 4 * (3 * classes + 2))
            band = 4 * classes * plane * tile[0] if self._config.overlap > 0 else 0
            total: int = network + around + band
            return total

        return plan_tile(
            image.shape,
            self._footprint,
            memory_of=memory_of,
            memory=memory,
            halo=self._config.halo,
            overlap=self._config.overlap,
            box=box,
        )


def predict_plane(
    model: Predictable,
    image: Volume,
    axis: int,
    index: int,
    *,
    context: int = PLANE_CONTEXT,
    precision: Precision = "float32",
) -> NDArray[np.unsignedinteger]:
    """Label ids of one plane, from a thin slab around it: quick enough to look at while training goes on.

    Parameters
    ----------
    model
        Its network is used where and as it is (device, memory format), for the moment in evaluation mode.
    image
        The image; only the slab is read.
    axis, index
        The plane: index along an axis (0 = Z, 1 = Y, 2 = X).
    context
        Most voxels of halo on each side. A network with valid padding reads what it needs beyond that.
    precision
        Arithmetic.

    Returns
    -------
    ndarray
        uint8 or uint16 label ids of the other two axes, in Z Y X order.

    Raises
    ------
    DataError
        If the image has not the model's channels or dimensions, or the network gives NaN.
    """
    check_image(model, image)
    footprint = Footprint.of(model.recipe.network)
    full = footprint.full_halo
    halo = (min(full[0], context), min(full[1], context), min(full[2], context))
    z, y, x = (slice(index, index + 1) if i == axis else slice(0, size) for i, size in enumerate(image.shape))
    box = (z, y, x)
    tile = plan_tile(
        image.shape, footprint, memory_of=lambda tile: 0, memory=0, halo=halo, box=box, largest=_PLANE_VOXELS
    )
    ids = written_ids(model, background_as_zero=False)
    labels = np.zeros([part.stop - part.start for part in box], ids.dtype)
    network = TileNetwork(model.network, _device_of(model.network), precision, head=model.recipe.network.head)
    was_training = model.network.training
    model.network.eval()
    try:
        for part in TileGrid(image.shape, footprint, tile, halo, box=box).tiles():
            scores = network(read_tile(model, image, part), part.crop)
            inside = tuple(slice(0, 1) if i == axis else kept for i, kept in enumerate(part.kept))
            labels[inside] = label_ids_of(scores, ids)
    finally:
        model.network.train(was_training)
    return labels.squeeze(axis)


def _halved(tile: Triple, footprint: Footprint) -> Triple:
    """The tile with the longest side that can be shortened cut to about half.

    Raises
    ------
    DeviceError
        If it is the smallest already.
    """
    for i in sorted(range(3), key=lambda i: -tile[i]):
        sides = [size - footprint.shrink[k] for k, size in enumerate(tile)]
        sides[i] = max(footprint.stride[i], (sides[i] + 1) // 2)
        legal = footprint.legal_output(sides)
        if legal[i] < tile[i] - footprint.shrink[i]:
            z, y, x = (size + footprint.shrink[k] for k, size in enumerate(legal))
            return (z, y, x)
    raise DeviceError(
        f"memory ran out even with the smallest tile {tile} (Z Y X); close other programs, use --device cpu "
        "or a network with fewer filters"
    )


def _device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
