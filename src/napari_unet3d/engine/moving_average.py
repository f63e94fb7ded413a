"""The moving average of a network's weights: what is validated, shown and kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from napari_unet3d.engine.networks.build import Network


class MovingAverage:
    """A second network whose weights and running statistics follow those of the first (Polyak & Juditsky 1992).

    After n updates the weight of the past is min(decay, (1 + n) / (10 + n)): the memory grows with the run, so that
    early weights are soon forgotten. The first update copies.

    Parameters
    ----------
    network
        The network to follow; it is copied.
    decay
        Weight of the past, 0..1; with 0 the copy equals the network after every update.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """In evaluation mode."""
        self.count = 0
        """Updates so far."""
        self._decay = decay

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Follow the network by one step."""
        decay = min(self._decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        for average, newest in zip(_tensors(self.network), _tensors(network), strict=True):
            if average.is_floating_point():
                average.lerp_(newest, 1 - decay)
            else:
                average.copy_(newest)
        self.count += 1


def _tensors(network: Network) -> Iterator[Tensor]:
    yield from network.body.parameters()
    yield from network.body.buffers()
