"""Scale-space features: fixed Gaussian-derivative filters in front of a network.

A painted slice holds too few voxels to learn edge, blob and sheet detectors from; these are given. For every image
channel, and at every scale s, five features follow the grey value g itself:

====================  =================================================================================
smoothed              G = g convolved with a Gaussian of standard deviation s
gradient magnitude    s * |grad G|
curvature mean        m = s^2 * trace(H) / 3, with H the Hessian of G
curvature spread      p = s^2 * sqrt(|H - trace(H)/3|_F^2 / 6)
curvature shape       p * r, with r = det((H s^2 - m) / p) / 2 in -1..1 (bright sheet or dark tube ... reverse)
====================  =================================================================================

The last three hold the same as the Hessian's eigenvalues m + 2 p cos(arccos(r) / 3 + 2 pi k / 3), without the
trigonometry. All features are invariant to rotation and homogeneous of degree one in the grey value: a gain may be
applied to the features instead of the image, so patches cut from features computed once can still be augmented.
Scales and derivatives are in units of the finest voxel edge, so voxels may be anisotropic; an axis with a single
voxel has no derivative. Lindeberg, Scale-Space Theory (1994); closed-form eigenvalues: Smith, CACM 4 (1961).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from napari_unet3d.engine.config import FEATURES_PER_SCALE
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.scales import smoothing_reach, smoothing_steps

WHOLE: Final[Box] = (slice(None), slice(None), slice(None))
"""The box of all voxels."""

INTENSITY = (True, False, False, False, False)
"""Which of the features of one scale shift with the grey values."""


class ScaleSpace(nn.Module):
    """Scale-space features of an image, as a module without trainable parameters.

    Parameters
    ----------
    in_channels
        Channels C of the image.
    scales
        Standard deviations, in units of the finest voxel edge, computed in ascending order.
    voxel
        Z Y X voxel edges, the finest being 1.

    Notes
    -----
    ``forward``: B C Z Y X -> B C*(1 + 5*len(scales)) Z Y X (of the box, where one is given), in float32 whatever
    autocast says. The channels of one image channel stay together: grey value, then the five features of every scale.
    Beyond the border the outermost voxel is repeated. Each feature is multiplied by its entry of the buffer `gain`, by
    which a trainer brings all features of its volumes to similar size.
    """

    def __init__(self, in_channels: int, scales: Sequence[float], voxel: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.scales = tuple(sorted(scales))
        self.voxel = tuple(voxel)
        channels = in_channels * (1 + FEATURES_PER_SCALE * len(self.scales))
        self.gain: Tensor
        self.register_buffer("gain", torch.ones(channels))

    def forward(self, image: Tensor, inner: Box = WHOLE) -> Tensor:
        """Features of the voxels inside a box of the image; the others are context."""
        with torch.autocast(image.device.type, enabled=False):
            batch, channels, *zyx = image.shape
            smooth = image.float().reshape(batch * channels, *zyx)  # N Z Y X
            z, y, x = inner
            features = [smooth[:, z, y, x]]
            steps = smoothing_steps(self.scales)
            within = list(inner)
            for number, (scale, step) in enumerate(zip(self.scales, steps, strict=True), start=1):
                for axis, edge in enumerate(self.voxel):
                    # what the differences, and later scales, look at
                    context = 1 + sum(smoothing_reach(later / edge) for later in steps[number:])
                    smooth, within[axis] = _smooth(smooth, axis + 1, step / edge, within[axis], context)
                features += self._at_scale(smooth, scale, within)
            stacked = torch.stack(features, dim=1)  # N F Z Y X
            stacked = stacked.reshape(batch, -1, *stacked.shape[2:])
            return stacked.mul_(self.gain[:, None, None, None])

    def _at_scale(self, smoothed: Tensor, scale: float, inner: Sequence[slice]) -> list[Tensor]:
        """The five features (each N Z Y X) of a smoothed image, inside a box."""
        sz, sy, sx = (scale / edge for edge in self.voxel)
        at = _Shifts(smoothed, inner)
        smooth = at(0, 0, 0)
        up, down, north, south, east, west = (
            at(1, 0, 0), at(-1, 0, 0), at(0, 1, 0), at(0, -1, 0), at(0, 0, 1), at(0, 0, -1)
        )  # fmt: skip
        gradient = torch.sqrt(
            ((up - down) * (sz / 2)) ** 2 + ((north - south) * (sy / 2)) ** 2 + ((east - west) * (sx / 2)) ** 2
        )
        zz = (up + down - 2 * smooth) * sz**2
        yy = (north + south - 2 * smooth) * sy**2
        xx = (east + west - 2 * smooth) * sx**2
        zy = (at(1, 1, 0) - at(1, -1, 0) - at(-1, 1, 0) + at(-1, -1, 0)) * (sz * sy / 4)
        zx = (at(1, 0, 1) - at(1, 0, -1) - at(-1, 0, 1) + at(-1, 0, -1)) * (sz * sx / 4)
        yx = (at(0, 1, 1) - at(0, 1, -1) - at(0, -1, 1) + at(0, -1, -1)) * (sy * sx / 4)

        mean = (zz + yy + xx) / 3
        zz, yy, xx = zz - mean, yy - mean, xx - mean
        squares = (zz * zz + yy * yy + xx * xx) / 6 + (zy * zy + zx * zx + yx * yx) / 3
        determinant = zz * (yy * xx - yx * yx) - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx)
        return [smooth, gradient, mean, torch.sqrt(squares), determinant / (2 * squares).clamp_min(1e-12)]


class _Shifts:
    """Views of a box of N Z Y X values, moved by -1, 0 or 1 voxel along each axis, the border voxels repeated."""

    def __init__(self, values: Tensor, inner: Sequence[slice]) -> None:
        self._starts = [part.start or 0 for part in inner]
        stops = (n if part.stop is None else part.stop for part, n in zip(inner, values.shape[1:], strict=True))
        self._lengths = [stop - start for start, stop in zip(self._starts, stops, strict=True)]
        self._padded = nn.functional.pad(values[:, None], (1, 1, 1, 1, 1, 1), mode="replicate")[:, 0]

    def __call__(self, *steps: int) -> Tensor:
        view = self._padded
        for axis, (step, start, length) in enumerate(zip(steps, self._starts, self._lengths, strict=True), start=1):
            view = view.narrow(axis, 1 + start + step, length)
        return view


def _smooth(values: Tensor, axis: int, sigma: float, wanted: slice, context: int) -> tuple[Tensor, slice]:
    """Gaussian smoothing along one axis; what lies farther than the context from what is wanted is left out.

    As a product with a banded matrix: many times faster than a convolution with one channel, on CPU and GPU. Also gives
    where the wanted part lies now.
    """
    length = values.shape[axis]
    matrix = _smoothing_matrix(length, sigma, values.device)
    if wanted != slice(None):
        start, stop = max(0, wanted.start - context), min(length, wanted.stop + context)
        matrix, wanted = matrix[start:stop], slice(wanted.start - start, wanted.stop - start)
    return torch.movedim(torch.movedim(values, axis, -1) @ matrix.T, -1, axis), wanted


def _smoothing_matrix(length: int, sigma: float, device: torch.device) -> Tensor:
    """Length x length; row i holds the Gaussian's weights around voxel i, those beyond the border moved onto it."""
    radius = smoothing_reach(sigma)
    offsets = torch.arange(-radius, radius + 1, device=device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    columns = (torch.arange(length, device=device)[:, None] + offsets).clamp(0, length - 1)
    matrix = torch.zeros(length, length, device=device)
    return matrix.scatter_add_(1, columns, weights.expand(length, -1))
