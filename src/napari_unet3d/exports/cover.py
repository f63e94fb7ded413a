"""The picture of a package: a slice as it is, and beside it what the model makes of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.exports.dependencies import require

_SIDE: Final = 256
_OPACITY: Final = 0.5


def cover_png(grey: NDArray[Any], classes: NDArray[np.intp], colours: Sequence[str]) -> bytes:
    """A PNG picture, twice as wide as high.

    Parameters
    ----------
    grey
        Z Y X; its middle slice is shown, stretched from its lowest to its highest finite value.
    classes
        Z Y X class indices around the same centre, not larger.
    colours
        Hexadecimal RGB of each class; the first (background) is not painted.

    Raises
    ------
    ExportError
        If the package Pillow is missing.
    """
    pictures = require("PIL.Image", "drawing the cover")
    plane = _middle_plane(grey, classes.shape).astype(np.float64)
    finite = plane[np.isfinite(plane)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    plain = np.nan_to_num((plane - low) / max(high - low, 1e-30), nan=0.0).clip(0, 1)[..., None] * np.full(3, 255.0)
    shown = classes[classes.shape[0] // 2]
    palette = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours], float)
    opacity = _OPACITY * (shown > 0)[..., None]
    painted = (1 - opacity) * plain + opacity * palette[shown]
    picture = np.hstack([_enlarged(plain), _enlarged(painted)]).astype(np.uint8)
    file = io.BytesIO()
    pictures.fromarray(picture).save(file, "png")
    return file.getvalue()


def _middle_plane(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """The middle Z slice (Y X) of `values`, cut to the middle `shape`."""
    starts = [(size - wanted) // 2 for size, wanted in zip(values.shape, shape, strict=True)]
    return values[starts[0] + shape[0] // 2, starts[1] : starts[1] + shape[1], starts[2] : starts[2] + shape[2]]


def _enlarged(plane: NDArray[Any]) -> NDArray[Any]:
    """The largest middle square of a picture (Y X RGB), as 256 x 256 pixels."""
    side = min(plane.shape[:2])
    y, x = ((size - side) // 2 + np.arange(_SIDE) * side // _SIDE for size in plane.shape[:2])
    return plane[np.ix_(y, x)]
