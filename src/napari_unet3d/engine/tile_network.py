"""A network computing one tile: arithmetic, mirrored averaging, and a second try where numbers overflow."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.engine.compilation import interpret, is_compiled, not_compiled_note, reason_in_short
from napari_unet3d.engine.device import Precision, autocast
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.heads import Head, class_logits, class_probabilities, with_background
from napari_unet3d.engine.progress import Box, Note


class TileNetwork:
    """A network on its device in its arithmetic, one tile at a time.

    Parameters
    ----------
    network
        On `device`, in evaluation mode.
    flip_axes
        Spatial axes (0 = Z) to mirror; the probabilities of all mirrored versions are averaged.
    head
        What the channels of the output mean.
    compiled
        Whether to compile the network first; where that fails it goes on interpreted, with a note.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: Precision,
        flip_axes: tuple[int, ...] = (),
        head: Head = "softmax",
        compiled: bool = False,
    ) -> None:
        self.precision = precision
        self._network = network
        self._is_compiled = compiled
        self._device = device
        self._head = head
        self._flips = [
            tuple(2 + axis for axis in axes)  # B C Z Y X
            for count in range(len(flip_axes) + 1)
            for axes in itertools.combinations(flip_axes, count)
        ]
        self._note: Note | None = None
        self._has_warned = False

    def take_note(self) -> Note | None:
        """What the user should know about the last tile, once."""
        note, self._note = self._note, None
        return note

    @torch.inference_mode()
    def __call__(self, block: NDArray[np.float32], crop: Box, as_probabilities: bool = False) -> Tensor:
        """Scores K Z Y X of the part `crop` of the output, for a C Z Y X block of network input.

        Logits in the arithmetic of the network, or float32 probabilities; with flips always the latter. One
        channel for each label id, see `engine.heads`.

        Raises
        ------
        DataError
            If the logits are not finite even in float32.
        """
        image = torch.from_numpy(block)[None].to(self._device)
        if len(self._flips) == 1:
            logits = self._logits(image, crop)
            return class_probabilities(logits, self._head) if as_probabilities else logits
        total: Tensor | None = None
        for axes in self._flips:
            probabilities = class_probabilities(self._logits(image.flip(axes), crop, axes), self._head)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        return with_background(total.div_(len(self._flips)), self._head)

    def _logits(self, image: Tensor, crop: Box, flipped: tuple[int, ...] = ()) -> Tensor:
        logits = self._forward(image, crop, flipped, self.precision)
        if not _is_finite(logits) and self.precision != "float32":
            if not self._has_warned:
                self._note = Note(
                    f"{self.precision} gave values that are not finite: such tiles are computed in float32",
                    "warning",
                )
                self._has_warned = True
            logits = self._forward(image, crop, flipped, "float32")
        if not _is_finite(logits):
            raise DataError("the network gives NaN or infinite values: its weights are damaged, train it again")
        return logits

    def _forward(self, image: Tensor, crop: Box, flipped: tuple[int, ...], precision: Precision) -> Tensor:
        if self._device.type != "mps":
            image = image.contiguous(memory_format=torch.channels_last_3d)
        with autocast(self._device, precision):
            output = self._compiled_output(image) if self._is_compiled else self._output(image)
        if flipped:
            output = output.flip(flipped)
        return class_logits(output[0, :, *crop], self._head)

    def _output(self, image: Tensor) -> Tensor:
        output: Tensor = self._network(image)
        return output

    def _compiled_output(self, image: Tensor) -> Tensor:
        with warnings.catch_warnings(action="ignore"):  # compilers warn of what users cannot change
            try:
                if not is_compiled(self._network):
                    self._network.compile()
                return self._output(image)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._note = Note(not_compiled_note(reason_in_short(error)), "warning")
        self._is_compiled = False
        interpret(self._network)
        return self._output(image)


def _is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite, in one pass."""
    return bool(torch.isfinite(values.sum(dtype=torch.float32)))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that there was not enough memory, on whatever device."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )
