"""Weights that make rare classes count as much as frequent ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_unet3d.engine.errors import ConfigError


def balanced_weights(counts: ArrayLike) -> tuple[float, ...]:
    """Class weights in inverse proportion to how often a class is annotated.

    Parameters
    ----------
    counts
        Annotated voxels of each class, K numbers of at least 0.

    Returns
    -------
    tuple of float
        K weights whose mean over the annotated classes is 1. A class that is not annotated gets 0: it is in
        no target, so its weight is never read. All 0 where nothing is annotated.
    """
    numbers = np.asarray(counts, dtype=np.float64)
    present = numbers > 0
    inverse = np.divide(1.0, numbers, out=np.zeros_like(numbers), where=present)
    mean = inverse[present].mean() if present.any() else 1.0
    return tuple(float(weight) for weight in inverse / mean)


def class_weights_for(
    setting: Literal["off", "balanced"] | Sequence[float], counts: ArrayLike
) -> tuple[float, ...] | None:
    """The weights that `TrainConfig.class_weights` stands for; None for equal weights.

    Parameters
    ----------
    setting
        ``off``, ``balanced`` or one weight for each class.
    counts
        Annotated voxels of each class, K numbers of at least 0.

    Raises
    ------
    ConfigError
        If the number of given weights is not K, or every annotated class has weight 0.
    """
    if setting == "off":
        return None
    if setting == "balanced":
        return balanced_weights(counts)
    numbers = np.asarray(counts)
    weights = tuple(float(weight) for weight in setting)
    if len(weights) != numbers.size:
        raise ConfigError(
            f"class_weights has {len(weights)} entries but there are {numbers.size} classes; give one weight "
            "for each class, or balanced"
        )
    if not (np.asarray(weights)[numbers > 0] > 0).any():
        raise ConfigError(
            f"class_weights = {weights} leaves no annotated class to learn from; make one of them positive"
        )
    return weights
