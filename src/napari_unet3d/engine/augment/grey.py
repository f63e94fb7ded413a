"""Random changes of the grey values of a training patch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.engine.augment.separable import along_axes
from napari_unet3d.engine.config import AugmentConfig
from napari_unet3d.engine.mirror import mirrored


def augment_grey(
    patch: Tensor,
    config: AugmentConfig,
    rng: np.random.Generator,
    *,
    intensity: Sequence[bool],
    channel_groups: Sequence[int] | None = None,
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """A patch with blur, gamma, gain, offset and noise drawn anew for each image channel.

    Channels may be features computed from the image beforehand, if they scale with it (homogeneous of degree
    one): gain then multiplies all of them, and the offset moves only grey values and their smoothed versions,
    exactly as if the features had been computed from the changed image. Blur, gamma and noise do not commute
    with features: blur and gamma are left out where there are any, and noise goes to the grey values alone,
    the first intensity channel of each image channel.

    Parameters
    ----------
    patch
        C Z Y X, floating point, normalised grey values and features.
    config
        Largest magnitudes; those of zero change nothing.
    rng
        The only source of randomness. Noise is drawn on the device of the patch: it repeats on devices of one
        kind.
    intensity
        For each channel, whether an offset of the image moves it.
    channel_groups
        For each channel, which image channel it comes from; by default they all come from one.
    voxel
        Z Y X edges of a voxel, relative to the finest.

    Returns
    -------
    Tensor
        C Z Y X, dtype and memory layout of `patch`, which is left as it is.
    """
    source_of = np.zeros(len(patch)) if channel_groups is None else channel_groups
    _, group_of = np.unique(source_of, return_inverse=True)
    groups = int(group_of.max()) + 1
    if groups == len(patch):
        patch = _blurred(patch, rng.uniform(0, config.blur, groups), voxel) if config.blur else patch
        patch = _gamma(patch, 1 + rng.uniform(-config.gamma, config.gamma, groups)) if config.gamma else patch
    if not (config.gain or config.offset or config.noise):
        return patch
    gain = 1 + rng.uniform(-config.gain, config.gain, groups)
    offset = rng.uniform(-config.offset, config.offset, groups)
    changed = patch * _per_channel(gain[group_of], patch)
    # channel by channel: broadcasting an addition over bfloat16 is ten times slower
    for channel in np.flatnonzero(intensity).tolist():
        changed[channel] += float(offset[group_of[channel]])
    if config.noise:
        noise = torch.Generator(patch.device).manual_seed(int(rng.integers(2**63)))
        for group, sd in enumerate(rng.uniform(0, config.noise, groups)):
            grey = np.flatnonzero((group_of == group) & intensity)[:1]
            for channel in grey.tolist():
                drawn = torch.randn(patch.shape[1:], generator=noise, device=patch.device)
                changed[channel] += drawn.mul_(sd).to(patch.dtype)
    return changed


def _per_channel(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).to(like.device, like.dtype)[:, None, None, None]


def _gamma(patch: Tensor, exponents: NDArray[np.float64]) -> Tensor:
    """Each channel bent by a power law between its smallest and largest value."""
    values = patch.float()
    low = values.amin((1, 2, 3), keepdim=True)
    span = (values.amax((1, 2, 3), keepdim=True) - low).clamp(min=torch.finfo(torch.float32).tiny)
    bent = ((values - low) / span) ** _per_channel(exponents, values)
    return (bent * span + low).to(patch.dtype)


def _blurred(patch: Tensor, sds: NDArray[np.float64], voxel: tuple[float, float, float]) -> Tensor:
    """Each channel convolved with a Gaussian, mirrored at the border of the patch."""
    channels = [
        along_axes(
            channel[None].float(),
            [_blur_matrix(n, sd / edge) for n, edge in zip(channel.shape, voxel, strict=True)],
        )
        for channel, sd in zip(patch, sds, strict=True)
    ]
    return torch.empty_like(patch).copy_(torch.cat(channels))


def _blur_matrix(length: int, sd: float) -> NDArray[np.float64]:
    """Gaussian of this standard deviation in voxels, cut off at four of them: length x length."""
    radius = math.ceil(4 * sd)
    reach = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (reach / max(sd, 1e-6)) ** 2)
    matrix = np.zeros((length, length))
    rows = np.arange(length)[:, np.newaxis]
    np.add.at(matrix, (rows, mirrored(rows + reach, length)), weights / weights.sum())
    return matrix
