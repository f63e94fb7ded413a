"""Grey values to network input: fitted once on the training images, carried by the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_unet3d.engine.config import Config, NormalizeConfig
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import Volume

_SAMPLED_VALUES: Final = 4_000_000
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
        values = np.array(grey, dtype=np.float32)
        for channel, fitted in zip(values, self.channels, strict=True):
            if grey.dtype.kind == "f":
                channel[~np.isfinite(channel)] = fitted.fill
            np.clip(channel, fitted.low, fitted.high, out=channel)
            channel -= np.float32(fitted.offset)
            channel *= np.float32(fitted.factor)
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
        fitted.append(_fit_channel(values, config))
    return Normalization(channels=tuple(fitted))


def _sample(image: Volume, count: int) -> NDArray[np.float64]:
    """C x N values from evenly spaced planes, at most about `count` of each channel."""
    z, y, x = image.shape
    planes = np.unique(np.linspace(0, z - 1, max(1, min(z, count // (y * x)))).round().astype(int))
    thin = max(1, int(np.ceil(np.sqrt(y * x * len(planes) / count))))
    read = [
        image.read((slice(p, p + 1), slice(0, y), slice(0, x)))[:, :, ::thin, ::thin] for p in planes.tolist()
    ]
    return np.concatenate([part.reshape(image.channels, -1) for part in read], axis=1).astype(np.float64)


def _fit_channel(values: NDArray[np.float64], config: NormalizeConfig) -> ChannelNormalization:
    fill = float(np.median(values))
    low, high = -np.inf, np.inf
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
    limits = np.finfo(np.float32)
    return ChannelNormalization(
        offset=float(offset),
        factor=float(factor),
        low=float(max(low, limits.min)),
        high=float(min(high, limits.max)),
        fill=fill,
    )
