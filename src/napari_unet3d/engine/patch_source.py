"""Where training patches and previews are cut from: one volume, normalised, with its features, on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.normalize import Normalization
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import Volume

_BLOCK: Final = (32, 192, 192)
"""Z Y X voxels whose features are computed at once: small enough for the processor's cache."""


class PatchSource:
    """Network input of one volume as Z Y X C, read box by box.

    Features are computed once for the whole volume where it is kept (channels last, so that a voxel's features lie
    together), in the memory of the device or, where that has no room, of the computer; otherwise for every box anew,
    from the image file if need be.

    Parameters
    ----------
    image
        The image.
    normalization
        Applied to everything read.
    features
        1 C Z Y X normalised grey values -> 1 F Z Y X (``network.inputs``).
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
        features: Callable[[Tensor], Tensor],
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

    @staticmethod
    def needed_bytes(image: Volume, channels: int, dtype: torch.dtype) -> int:
        """Bytes that a kept volume takes."""
        z, y, x = image.shape
        return z * y * x * channels * dtype.itemsize

    @property
    def shape(self) -> tuple[int, int, int]:
        """Z Y X."""
        return self.image.shape

    def prepare(self) -> Iterator[float]:
        """Compute what is kept; yields the share done (0..1] after every block."""
        kept = self._room()
        if kept is None:
            return
        steps = [range(0, length, size) for length, size in zip(self.shape, _BLOCK, strict=True)]
        origins = list(itertools.product(*steps))
        for done, origin in enumerate(origins, start=1):
            z, y, x = (
                slice(start, min(start + size, length))
                for start, size, length in zip(origin, _BLOCK, self.shape, strict=True)
            )
            kept[z, y, x] = self._compute((z, y, x))
            yield done / len(origins)
        self._kept = kept

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
        return self._compute(box) if self._kept is None else self._kept[box].to(self._device)

    def _compute(self, box: Box) -> Tensor:
        wide = tuple(
            slice(max(0, part.start - reach), min(length, part.stop + reach))
            for part, reach, length in zip(box, self._radius, self.shape, strict=True)
        )
        z, y, x = wide
        grey = torch.from_numpy(self._normalization.apply(self.image.read((z, y, x)))).to(self._device)
        with torch.inference_mode():
            values = self._features(grey[None])[0]  # F Z Y X
        inner = tuple(
            slice(part.start - outer.start, part.stop - outer.start) for part, outer in zip(box, wide, strict=True)
        )
        last = values[:, inner[0], inner[1], inner[2]].permute(1, 2, 3, 0).to(self._dtype)
        # a clone, because tensors made in inference mode cannot enter a graph
        return last.clone(memory_format=torch.contiguous_format)
