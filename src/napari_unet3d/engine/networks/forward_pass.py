"""The forward pass of a training step, as a module of its own: to be compiled, and to be shared between processes."""

from __future__ import annotations

from torch import Tensor, nn

from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.networks.outputs import NetworkOutputs


class ForwardPass(nn.Module):
    """B F Z Y X, what enters a network's body -> all its outputs; see `Network.all_outputs_of`.

    The network keeps its own names of weights and is not compiled itself, so that copies, files and predictions are
    what they are without.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor) -> NetworkOutputs:
        return self.network.all_outputs_of(values)
