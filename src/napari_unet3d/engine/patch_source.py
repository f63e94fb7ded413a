"""Where training patches and previews are cut from: one volume, normalised, with its features, on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.normalize import Normalization
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import Volume

_BLOCK: Final = (48, 96, 96)
"""Z Y X voxels whose features are computed at once: small enough for the processor's cache and for a quick first patch,
large enough for the context around it not to weigh much."""


class PatchSource:
    """Network input of one volume as Z Y X C, read box by box.

    Where the volume is kept, features are computed once, block by block when they are first read, so that training can
    begin at once and what nobody looks at costs nothing. They are kept channels last, so that a voxel's features lie
    together, in the memory of the device or, where that has no room, of the computer; otherwise they are computed for
    every box anew, from the image file if need be.

    Parameters
    ----------
    image
        The image.
    normalization
        Applied to everything read.
    features
        1 C Z Y X normalised grey values and a box in them -> 1 F Z Y X of the box (``network.inputs``).
    radius
        Z Y X voxels around a voxel that its features depend on.
    channels
        F.
    device, dtype
        Of the tensors read.
    keep
        In whose memory to hold all of the volume; None: nowhere. See `needed_bytes`.
    """

    def __init__(
        self,
        image: Volume,
        normalization: Normalization,
        features: Callable[[Tensor, Box], Tensor],
        radius: tuple[int, int, int],
        channels: int,
        device: torch.device,
        dtype: torch.dtype,
        keep: torch.device | None,
    ) -> None:
        self.image = image
        self._normalization = normalization
        self._features = features
        self._radius = radius
        self._channels = channels
        self._device = device
        self._dtype = dtype
        self._keep = keep
        self._kept: Tensor | None = None
        self._is_computed = np.zeros([-(-n // size) for n, size in zip(image.shape, _BLOCK, strict=True)], np.bool_)

    @staticmethod
    def needed_bytes(image: Volume, channels: int, dtype: torch.dtype) -> int:
        """Bytes that a kept volume takes."""
        z, y, x = image.shape
        return z * y * x * channels * dtype.itemsize

    @property
    def shape(self) -> tuple[int, int, int]:
        """Z Y X."""
        return self.image.shape

    def make_room(self) -> None:
        """Take the memory for what is kept, where there is room."""
        self._kept = self._room()

    def _room(self) -> Tensor | None:
        """An empty Z Y X F tensor for the whole volume, where there is room for it."""
        while self._keep is not None:
            try:
                return torch.empty(*self.shape, self._channels, dtype=self._dtype, device=self._keep)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._keep = None if self._keep.type == "cpu" else torch.device("cpu")
        return None

    @property
    def kept_on(self) -> torch.device | None:
        """In whose memory the volume is held; None: nowhere."""
        return self._keep

    def leave_device(self) -> bool:
        """Move a volume that is held by a device into the computer's memory; whether there was one."""
        if self._kept is None or self._kept.device.type == "cpu":
            return False
        self._keep = torch.device("cpu")
        self._kept = self._kept.cpu()
        return True

    def read(self, box: Box) -> Tensor:
        """Z Y X F values of a box inside the volume, on the device, a voxel's together; a view where it is kept."""
        if self._kept is None:
            return self._compute(box)
        self._complete(box, self._kept)
        return self._kept[box].to(self._device)

    def _complete(self, box: Box, kept: Tensor) -> None:
        """Compute the blocks around a box that nobody has read yet."""
        first = [part.start // size for part, size in zip(box, _BLOCK, strict=True)]
        met = tuple(slice(a, -(-part.stop // size)) for a, part, size in zip(first, box, _BLOCK, strict=True))
        for place in np.argwhere(~self._is_computed[met]) + first:
            z, y, x = (
                slice(n * size, min((n + 1) * size, length))
                for n, size, length in zip(place.tolist(), _BLOCK, self.shape, strict=True)
            )
            kept[z, y, x] = self._compute((z, y, x))
            self._is_computed[tuple(place)] = True

    def _compute(self, box: Box) -> Tensor:
        wide = tuple(
            slice(max(0, part.start - reach), min(length, part.stop + reach))
            for part, reach, length in zip(box, self._radius, self.shape, strict=True)
        )
        z, y, x = wide
        grey = torch.from_numpy(self._normalization.apply(self.image.read((z, y, x)))).to(self._device)
        z, y, x = (
            slice(part.start - outer.start, part.stop - outer.start) for part, outer in zip(box, wide, strict=True)
        )
        with torch.inference_mode():
            values = self._features(grey[None], (z, y, x))[0]  # F Z Y X
        last = values.permute(1, 2, 3, 0).to(self._dtype)
        # a clone, because tensors made in inference mode cannot enter a graph
        return last.clone(memory_format=torch.contiguous_format)
