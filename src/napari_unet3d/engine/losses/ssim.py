"""Multi-scale structural similarity of probability and truth, over completely annotated windows.

::

    painted slices: planes N K Y X ─┐   windows    luminance, contrast-structure    product over scales
    dense pieces: patches N K Z Y X ┴─> 11 voxels ─> means over complete windows ─> mean over images
                      │ 2 x 2 (x 2) means, five scales at most ^
                      └────────────────────────────────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.engine.losses.term import Term
from napari_unet3d.engine.losses.voxels import Verdict

WINDOW: Final = 11
SIGMA: Final = 1.5
SCALE_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1: Final = 0.01**2
_C2: Final = 0.03**2
_LEAST_SIMILARITY: Final = 0.05


class MultiScaleSSIM(Term):
    """One minus the multi-scale structural similarity of the probabilities and the truth (Wang et al. 2003).

    For each image and channel ``prod_j cs_j^w_j``, where ``cs_j`` is the mean contrast-structure term at scale j,
    at the coarsest scale times the luminance term: Gaussian windows of `WINDOW` voxels with standard deviation
    `SIGMA`, constants .01^2 and .03^2, and `SCALE_WEIGHTS`, as UNet 3+ has them (Huang et al. 2020, eq. 5). Each
    scale halves the one before by means over 2 x 2 (x 2) voxels.

    Partial annotation: a voxel of a coarser scale is annotated if all its voxels are, and a window counts if all
    its voxels are annotated. A patch in which a cubic window fits is one image, in three dimensions. In all others
    every plane in which a flat window fits is an image, along each axis, so that a painted slice is compared in
    its own plane. An image has as many scales as windows fit; their weights are raised to the sum of all five.
    The images' values are averaged with their number of windows as weight, and over channels.

    No complete window gives 0. Weights of voxels and classes do not matter, but a voxel of weight 0 counts as not
    annotated.

    A similarity may be negative. With one scale that is no harm; with several, fractional powers have no value
    below 0 and no slope at 0, so below .05 the factors are bent to stay positive, see `positive`.
    """

    def sums(self, verdict: Verdict) -> Tensor:
        """Sum of the images' losses times their number of windows, and sum of these numbers."""
        sums = verdict.p.new_zeros(2)
        for p, truth, seen in images(verdict):
            similarity, windows = ms_ssim(p, truth, seen)
            sums = sums + torch.stack([(windows * (1 - similarity)).sum(), windows.sum()])
        # without an image too the gradient is 0, not missing
        return sums + 0 * verdict.p.sum()

    def value(self, sums: Tensor) -> Tensor:
        """Mean over the windows of all images."""
        loss, windows = sums.unbind()
        return loss / windows.clamp(min=1)


def images(verdict: Verdict) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images in which a complete window fits: probabilities and truth (N K and 2 or 3 axes), annotated (N and axes).

    What is not annotated is 0. Images of one size come together.
    """
    positions = verdict.voxels.positions

    def spread(rows: Tensor) -> Tensor:  # N K -> B ... K
        flat = rows.new_zeros(math.prod(verdict.shape), rows.shape[1]).index_copy(0, positions, rows)
        return flat.view(*verdict.shape, -1)

    seen = torch.zeros(verdict.shape, dtype=torch.bool, device=positions.device)
    seen.view(-1)[positions] = True
    p, truth = spread(verdict.p), spread(verdict.truth)
    whole = has_window(seen)
    if whole.any():
        yield p[whole].movedim(-1, 1), truth[whole].movedim(-1, 1), seen[whole]
    axes = (1, 2, 3) if seen.ndim == 4 else ()
    for axis in axes:
        planes = seen.movedim(axis, 1)  # B n and two axes
        fits = has_window(planes.flatten(0, 1)).view(planes.shape[:2]) & ~whole[:, None]
        if fits.any():
            chosen, true = (values.movedim(axis, 1)[fits].movedim(-1, 1) for values in (p, truth))
            yield chosen, true, planes[fits]


def has_window(seen: Tensor) -> Tensor:
    """For each of N images (N and 2 or 3 axes, bool), whether a complete window fits."""
    if min(seen.shape[1:]) < WINDOW:
        return seen.new_zeros(len(seen))
    result: Tensor = seen.flatten(1).sum(1) >= WINDOW ** (seen.ndim - 1)
    if result.any():
        result[result.clone()] = complete_windows(seen[result]).flatten(1).any(1)
    return result


def complete_windows(seen: Tensor) -> Tensor:
    """For each window of N images (N and 2 or 3 axes, bool), whether all of it is annotated; 10 less an axis."""
    # a box is complete if its rows, then their columns, then their planes are
    complete = seen
    for axis in range(1, seen.ndim):
        complete = complete.unfold(axis, WINDOW, 1).all(-1)
    return complete


def ms_ssim(p: Tensor, truth: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Multi-scale structural similarity of each image, mean over channels, and its number of windows.

    Parameters
    ----------
    p, truth
        N K and 2 or 3 axes, values in 0..1.
    seen
        N and the axes, bool: what is annotated.
    """
    structure: list[Tensor] = []
    full: list[Tensor] = []
    windows: list[Tensor] = []
    for scale in range(len(SCALE_WEIGHTS)):
        if scale > 0:
            p, truth, seen = halved(p), halved(truth), halved(seen[:, None].to(p))[:, 0] == 1
        if min(seen.shape[1:]) < WINDOW:
            break
        complete = complete_windows(seen)
        if not complete.any():
            break
        count = complete.flatten(1).sum(1).to(p)  # N
        windows.append(count)
        for found, values in zip((structure, full), similarity_maps(p, truth), strict=True):
            inside = torch.where(complete[:, None], values, 0.0).flatten(2).sum(2)  # N K
            found.append(inside / count.clamp(min=1)[:, None])
    fits = torch.stack(windows) > 0  # scales N
    is_last = fits & ~torch.cat([fits[1:], torch.zeros_like(fits[:1])])
    weights = fits * torch.tensor(SCALE_WEIGHTS[: len(fits)]).to(p)[:, None]
    weights = weights * (sum(SCALE_WEIGHTS) / weights.sum(0))
    factors = torch.where(is_last[..., None], torch.stack(full), torch.stack(structure))  # scales N K
    product = (weights[..., None] * positive(factors).log()).sum(0).exp()
    similarity = torch.where(is_last[0][:, None], full[0], product)  # N K
    return similarity.mean(1), windows[0]


def similarity_maps(p: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast-structure, and luminance times it, for every window of N K images; 10 less an axis."""
    mean_p, mean_t, square_p, square_t, product = smoothed(
        torch.stack([p, truth, p * p, truth * truth, p * truth])
    ).unbind()
    variance = square_p - mean_p**2 + square_t - mean_t**2
    covariance = product - mean_p * mean_t
    structure = (2 * covariance + _C2) / (variance + _C2)
    luminance = (2 * mean_p * mean_t + _C1) / (mean_p**2 + mean_t**2 + _C1)
    return structure, luminance * structure


def smoothed(values: Tensor) -> Tensor:
    """Gaussian means over the windows, along all axes behind the first three; each loses 10 voxels.

    Sums of shifted copies: convolutions may run in TF32 on a GPU, too coarse for differences of squares.
    """
    for axis in range(3, values.ndim):
        size = values.shape[axis] - WINDOW + 1
        total = torch.zeros((), device=values.device, dtype=values.dtype)
        for shift, share in enumerate(_window_shares()):
            total = total + share * values.narrow(axis, shift, size)
        values = total
    return values


def _window_shares() -> Sequence[float]:
    shares = [math.exp(-(((i - WINDOW // 2) / SIGMA) ** 2) / 2) for i in range(WINDOW)]
    return [share / sum(shares) for share in shares]


def halved(values: Tensor) -> Tensor:
    """Means over 2 x 2 (x 2) voxels of N K images; an odd last row is left out."""
    return functional.avg_pool2d(values, 2) if values.ndim == 4 else functional.avg_pool3d(values, 2)


def positive(values: Tensor) -> Tensor:
    """The values, but e^2 / (2 e - x) for x below e = .05: positive and rising everywhere, with one slope at e."""
    low = _LEAST_SIMILARITY
    return torch.where(values > low, values, low**2 / (2 * low - values.clamp(max=low)))
