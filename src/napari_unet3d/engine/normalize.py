"""Grey values to network input: fitted once on the training images, carried by the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_unet3d.engine.config import Config, NormalizeConfig
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import Volume

_SAMPLED_VALUES: Final = 4_000_000
_BLOCK: Final = 128
_PLANES: Final = 16
"""Side of the blocks, and least number of planes, that values are taken from where an image holds more."""

_LIMIT: Final = 10.0
"""Normalised values are kept within +-10 so that a hot pixel cannot dominate a patch."""


class ChannelNormalization(Config):
    """value -> (clip(value, low, high) - offset) * factor for one channel."""

    offset: float
    """Grey value that becomes 0."""
    factor: float
    """Normalised units for one grey value."""
    low: float
    """Grey values below count as this."""
    high: float
    """Grey values above count as this."""
    fill: float
    """Grey value put in place of NaN and infinite ones."""


class Normalization(Config):
    """The fitted normalisation of every channel."""

    channels: tuple[ChannelNormalization, ...] = Field(min_length=1)
    """One entry for each image channel."""

    def apply(self, grey: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise C Z Y X grey values of any real dtype to float32, mostly within -1..1.

        NaN and infinite values become the channel's median.

        Raises
        ------
        DataError
            If the channels differ in number from those fitted.
        """
        if grey.shape[0] != len(self.channels):
            raise DataError(
                f"the image has {grey.shape[0]} channels, the model needs {len(self.channels)}; "
                "name the channel axis with --axes or select the right channels"
            )
        values = np.empty(grey.shape, dtype=np.float32)
        working = np.promote_types(grey.dtype, np.float32)  # float64 for 32-bit integers and wider numbers
        lowest, highest = float(np.finfo(working).min), float(np.finfo(working).max)
        for channel, fitted, result in zip(grey, self.channels, values, strict=True):
            channel = channel.astype(working)
            if grey.dtype.kind == "f":
                channel[~np.isfinite(channel)] = fitted.fill
            np.clip(channel, max(fitted.low, lowest), min(fitted.high, highest), out=channel)
            channel -= fitted.offset
            channel *= fitted.factor
            result[:] = channel
        return values


def fit_normalization(images: Sequence[Volume], config: NormalizeConfig) -> Normalization:
    """Fit the normalisation to images with equally many channels, from a few million values spread over them.

    Raises
    ------
    DataError
        If a channel is constant, or holds no finite value.
    """
    samples = [_sample(image, _SAMPLED_VALUES // len(images)) for image in images]
    fitted = []
    for channel in range(images[0].channels):
        values = np.concatenate([sample[channel] for sample in samples])
        values = values[np.isfinite(values)]
        name = images[0].name if images[0].channels == 1 else f"channel {channel} of {images[0].name}"
        if not values.size:
            raise DataError(f"{name} holds no finite value; check the file")
        if values.min() == values.max():
            raise DataError(
                f"{name} is constant ({values.min():g} everywhere); nothing can be learnt from it, check the file"
            )
        with np.errstate(all="ignore"):
            fitted.append(_fit_channel(values, config))
        if not (np.isfinite(fitted[-1].factor) and np.isfinite(fitted[-1].offset) and fitted[-1].factor > 0):
            raise DataError(
                f"{name} has values from {values.min():g} to {values.max():g}, too far apart or too close to compute "
                "with; rescale them"
            )
    return Normalization(channels=tuple(fitted))


def _sample(image: Volume, count: int) -> NDArray[np.float64]:
    """C x N values: the whole image, or at most about `count` of each channel from blocks spread evenly over it."""
    z, y, x = image.shape
    if z * y * x <= count:
        return image.read().reshape(image.channels, -1).astype(np.float64)
    height, width = min(y, _BLOCK), min(x, _BLOCK)
    blocks = max(1, count // (height * width))
    rows, columns = -(-y // height), -(-x // width)
    planes = min(z, blocks, max(_PLANES, blocks // (rows * columns)))
    along = max(1, math.isqrt(blocks // planes))
    starts = itertools.product(
        _evenly(z - 1, planes), _evenly(y - height, min(rows, along)), _evenly(x - width, min(columns, along))
    )
    read = [image.read((slice(k, k + 1), slice(j, j + height), slice(i, i + width))) for k, j, i in starts]
    return np.concatenate([part.reshape(image.channels, -1) for part in read], axis=1).astype(np.float64)


def _evenly(last: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 0..last."""
    return [int((i + 0.5) / count * last) for i in range(count)]


def _fit_channel(values: NDArray[np.float64], config: NormalizeConfig) -> ChannelNormalization:
    fill = float(np.median(values))
    low, high = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    if config.method == "percentile":
        first, last = np.percentile(values, [config.low, config.high])
        if first == last:  # nearly constant, such as a few bright spots on black
            first, last = values.min(), values.max()
        offset, factor = (first + last) / 2, 2 / (last - first)
    elif config.method == "zscore":
        offset, factor = values.mean(), 1 / values.std()
    elif config.method == "minmax":
        offset, factor = values.min(), 1 / (values.max() - values.min())
    elif config.method == "window":
        offset, factor = config.low, 1 / (config.high - config.low)
        low, high = config.low, config.high
    else:
        offset, factor = 0.0, 1.0
    if config.method in ("percentile", "zscore", "minmax"):
        low, high = offset - _LIMIT / factor, offset + _LIMIT / factor
    limits = np.finfo(np.float64)
    return ChannelNormalization(
        offset=float(offset),
        factor=float(factor),
        low=float(max(low, limits.min)),
        high=float(min(high, limits.max)),
        fill=fill,
    )
