"""How much memory the layers of a prediction take, told before they are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil

from napari_unet3d.engine.progress import Box
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel

_LARGE_SHARE: Final = 0.25
"""Of the free memory: result layers that need more are told of before they are made."""

_MOST_SHARE: Final = 0.9
"""Of the free memory: result layers that need more are not made."""

LESS_MEMORY: Final = (
    "leave out the layers of probabilities and uncertainty, zoom in and predict only what is in view, or predict into "
    "a file with the command line (napari-unet3d predict)"
)
"""What to do about it."""


def label_type(model: TrainedModel) -> np.dtype[Any]:
    """uint8, or uint16 where an id is above 255."""
    return np.dtype(np.uint8 if max(model.label_ids) < 256 else np.uint16)


def bytes_needed(
    model: TrainedModel, image: ImageChoice, box: Box | None, times: int, *, probabilities: bool, uncertainty: bool
) -> int:
    """Bytes that a prediction fills.

    Parameters
    ----------
    model, image
        What is applied to what.
    box
        Z Y X part of the image; None for all. What lies outside takes no memory, for nobody writes there.
    times
        Number of time points.
    probabilities, uncertainty
        Whether there are layers of them, float32.
    """
    voxels = math.prod(part.stop - part.start for part in box) if box else math.prod(image.spatial_shape)
    floats = uncertainty + probabilities * len(model.classes)
    return voxels * times * (label_type(model).itemsize + floats * np.dtype(np.float32).itemsize)


def size_sentence(needed: int) -> str:
    """Such as: the result needs 3 GB of memory, 2 GB are free."""
    return f"the result needs {_gigabytes(needed)} of memory, {_gigabytes(free_memory())} are free"


def is_large(needed: int) -> bool:
    """Whether the user should know before."""
    return needed > _LARGE_SHARE * free_memory()


def is_too_large(needed: int) -> bool:
    """Whether there is not enough."""
    return needed > _MOST_SHARE * free_memory()


def free_memory() -> int:
    """Bytes that can be taken without swapping."""
    return int(psutil.virtual_memory().available)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
