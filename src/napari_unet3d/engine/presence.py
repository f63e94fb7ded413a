"""Which classes are present in a patch, told from sparse annotation: what classification guidance learns from.

The coarsest level of the network divides a patch into blocks, one to each voxel there. In each region (a patch of a
three-dimensional network, a plane of a two-dimensional one), for each class::

    the class is annotated somewhere      present; the blocks with an annotated voxel of it must tell
    else, some blocks are well annotated  absent; these blocks must all deny it
    else                                  unknown: does not count

A block is well annotated where at least a quarter of one slice through it is, the widest one. So painted slices
teach absence as well as presence, in three dimensions too, where no patch is ever annotated throughout: what a slice
shows is taken to hold for the block around it. Strokes too small for that teach presence only, and what nobody
painted teaches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_unet3d.engine.config import UNet3PlusConfig
from napari_unet3d.engine.networks.guidance import presence_of_channels
from napari_unet3d.engine.volume import IGNORE_INDEX

_WELL = 0.25  # of the widest slice through a block


def presence_loss(
    presence: Tensor,
    target: Tensor,
    network: UNet3PlusConfig,
    summed: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Binary cross-entropy of the presence of classes (Huang et al. 2020, section 2.3), over what is known.

    Parameters
    ----------
    presence
        B max(2, K) Z' Y' X' logits, as in `NetworkOutputs`. A class is as present as where it is most.
    target
        B Z Y X, int64: class indices, `IGNORE_INDEX` where not annotated; sizes are multiples of those of
        `presence`.
    network
        Its classes K, head and dimensions.
    summed
        As of `Loss`.

    Returns
    -------
    Tensor
        Mean over all known pairs of region and class; float32; 0 where nothing is known.
    """
    logits = presence_of_channels(presence, network.classes)  # B K Z' Y' X'
    if network.dimensions == 2:  # every plane by itself
        across = network.cut_across(target.shape[1:])
        logits = logits.movedim(2 + across, 1).flatten(0, 1)[:, :, None]
        target = target.movedim(1 + across, 1).flatten(0, 1)[:, None]
    is_sigmoid = network.classes == 1 or network.head == "sigmoid"
    classes = torch.arange(network.classes, device=target.device) + is_sigmoid  # no channel for the background
    blocks = _blocks(target, logits.shape[2:])  # B V N: blocks and their voxels
    found = torch.stack([(blocks == index).any(2) for index in classes], dim=1)  # B K V
    known = (blocks != IGNORE_INDEX).sum(2) >= _WELL * _widest_slice(target.shape[1:], logits.shape[2:])  # B V
    is_present = found.any(2, keepdim=True)  # B K 1
    asked = torch.where(is_present, found, known[:, None])  # B K V
    most = logits.flatten(2).masked_fill(~asked, -math.inf).amax(2)  # B K
    counts = asked.any(2)
    truth = is_present[:, :, 0][counts].to(most)
    losses = F.binary_cross_entropy_with_logits(most[counts], truth, reduction="none").float()
    sums = torch.stack([losses.sum(), counts.sum().to(losses)])
    loss, pairs = (sums if summed is None else summed(sums)).unbind()
    return loss / pairs.clamp(min=1)


def _blocks(target: Tensor, grid: torch.Size) -> Tensor:
    """B Z Y X -> B V N: the voxels of each of the V = Z'*Y'*X' blocks."""
    z, y, x = (size // count for size, count in zip(target.shape[1:], grid, strict=True))
    split = target.reshape(target.shape[0], grid[0], z, grid[1], y, grid[2], x)
    return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def _widest_slice(shape: torch.Size, grid: torch.Size) -> int:
    """Voxels of the widest slice through a block."""
    edges = [size // count for size, count in zip(shape, grid, strict=True)]
    return math.prod(edges) // min(edges)
