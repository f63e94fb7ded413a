"""What a network in training gives to the losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class NetworkOutputs(NamedTuple):
    """All that a network says about B images.

    Voxel losses take `logits`, as they take the list that ``Network.outputs`` gives; `engine.presence` takes
    `presence`.
    """

    logits: list[Tensor]
    """B K Z Y X of every head, finest first; ``Description.output_grids`` says which input voxels they cover."""
    presence: Tensor | None = None
    """B max(2, K) Z Y X at the coarsest level, from classification guidance; None without it.

    The logit of a class at a voxel says whether the class is found there; its maximum over a region says
    whether it is found in the region. With K = 1 the two channels mean absent and present.
    """
