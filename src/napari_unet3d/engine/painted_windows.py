"""Whether there is anything to compare by structural similarity: flat windows that are painted completely."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.engine.config import TrainConfig, Triple
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.losses.ssim import WINDOW


def has_painted_window(labels: Iterable[NDArray[np.unsignedinteger]]) -> bool:
    """Whether a window of `WINDOW` x `WINDOW` voxels in a plane along any axis is annotated without a gap.

    Parameters
    ----------
    labels
        Z Y X label ids of each volume, 0 = not annotated.
    """
    return any(
        ndimage.minimum_filter(plane, WINDOW, mode="constant", cval=0).any()
        for values in labels
        for axis in range(3)
        for plane in _full_enough(values != 0, axis)
    )


def _full_enough(painted: NDArray[np.bool_], axis: int) -> Iterable[NDArray[np.bool_]]:
    """Planes along an axis with enough annotated voxels for a window, the fullest first."""
    planes = np.moveaxis(painted, axis, 0)
    counts = np.count_nonzero(planes, axis=(1, 2))
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index] >= WINDOW**2]
    return (planes[index] for index in order)


def lacking_windows(
    config: TrainConfig, labels: Iterable[NDArray[np.unsignedinteger]], patch: Triple, border: Sequence[int]
) -> str | None:
    """What to tell a user whose loss compares windows though there are none; None where all is well.

    Parameters
    ----------
    config
        Of the training.
    labels
        As of `has_painted_window`; all 0 is well, as strokes may come.
    patch
        Z Y X voxels of a patch.
    border
        Z Y X voxels at each side of it that a network without padding gives no output for.

    Raises
    ------
    ConfigError
        If nothing else is in the loss.
    """
    if "ms_ssim" not in config.loss_terms:
        return None
    labels = [values for values in labels if values.any()]
    sides = sorted(size - 2 * edge for size, edge in zip(patch, border, strict=True))
    if sides[1] < WINDOW:
        problem = f"a patch of {patch} (Z Y X) holds none; raise train.patch_size"
    elif labels and not has_painted_window(labels):
        problem = "none is painted completely; paint areas without gaps, background too"
    else:
        return None
    text = f"train.loss = {config.loss} compares flat windows of {WINDOW} x {WINDOW} voxels, but {problem}"
    if len(config.loss_terms) == 1:
        raise ConfigError(f"{text}, or take another train.loss")
    return f"{text}; its similarity term counts 0"
