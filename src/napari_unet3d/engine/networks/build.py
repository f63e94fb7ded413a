"""From a configuration to a network that takes volumes."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet3d.engine.config import NetworkConfig, UNet3PlusConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.filters import WHOLE, ScaleSpace
from napari_unet3d.engine.networks.outputs import NetworkOutputs
from napari_unet3d.engine.networks.unet import UNet
from napari_unet3d.engine.networks.unet3plus import UNet3Plus
from napari_unet3d.engine.progress import Box


class Network(nn.Module):
    """Fixed features in front of a trainable body.

    ``forward`` takes an image B C Z Y X, C = ``config.in_channels``, and gives logits B K Z' Y' X', K =
    ``config.classes``; as large as the image, or smaller by the margin of a valid network. A
    two-dimensional network treats every plane by itself, or with its neighbours, and takes B C Y X too. Where its
    planes lie across all axes, the logits are those of the mean of the three probabilities.

    Attributes
    ----------
    features
        B C Z Y X -> B ``config.body_channels`` Z Y X, without trainable parameters.
    body
        The network proper.

    Raises
    ------
    ConfigError
        If an image has a size that the network cannot take; `padded_to_legal` makes any size legal.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.description = describe(config)
        self.features = _features(config)
        self.body = UNet3Plus(config) if isinstance(config, UNet3PlusConfig) else UNet(config)

    def forward(self, x: Tensor) -> Tensor:
        volume = x if x.ndim == 5 else x[:, :, None]  # B C Z Y X
        if not torch.compiler.is_compiling():
            z, y, x_size = volume.shape[2:]
            self.description.check_shape((z, y, x_size))
        logits = self.logits_of(self.inputs(volume))  # B K Z' Y' X'
        return logits if x.ndim == 5 else logits[:, :, 0]

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Logits of every head for B C Z Y X normalised grey values, finest first, each at its resolution.

        One element without deep supervision.
        """
        return self.outputs_of(self.inputs(image))

    def inputs(self, image: Tensor, inner: Box = WHOLE) -> Tensor:
        """What enters the body: B C Z Y X normalised grey values -> B ``config.body_channels`` Z Y X.

        Where a box is given, of the voxels inside; the others are context for their features.
        """
        if self.config.dimensions == 3:
            return self._features_of(image, inner)
        z, y, x = inner
        planes = _folded(image[:, :, z])[:, :, None]  # B*Z C 1 Y X
        return _unfolded(self._features_of(planes, (slice(None), y, x))[:, :, 0], image.shape[0])

    def _features_of(self, image: Tensor, inner: Box) -> Tensor:
        if self.config.features == "none":
            z, y, x = inner
            return image[:, :, z, y, x]
        features: Tensor = self.features(image, inner)
        return features

    def outputs_of(self, values: Tensor) -> list[Tensor]:
        """Logits (B K Z Y X) of every head for what `inputs` gave, finest first."""
        return self.all_outputs_of(values).logits

    def all_outputs_of(self, values: Tensor) -> NetworkOutputs:
        """Logits of every head, and the presence of the classes, for what `inputs` gave.

        For training: of the axes across which planes may lie, only the shortest is taken.
        """
        if self.config.dimensions == 3:
            return self.body.outputs(values)
        across, batch = self.config.cut_across(values.shape[2:]), values.shape[0]
        outputs = self.body.outputs(self._planes(values, across))
        presence = None if outputs.presence is None else _unfolded(outputs.presence, batch, across)
        return NetworkOutputs([_unfolded(logits, batch, across) for logits in outputs.logits], presence)

    def logits_of(self, values: Tensor) -> Tensor:
        """B K Z Y X logits of the finest head for what `inputs` gave."""
        if self.config.dimensions == 3:
            logits: Tensor = self.body(values)
            return logits
        batch, axes = values.shape[0], self.config.plane_axes
        passes = (_unfolded(self.body(self._planes(values, across)), batch, across) for across in axes)
        if len(axes) == 1:
            return next(passes)
        is_sigmoid = self.config.classes == 1 or self.config.head == "sigmoid"
        return mean_of(passes, is_sigmoid=is_sigmoid)

    def _planes(self, values: Tensor, across: int) -> Tensor:
        """Every plane across an axis with its n neighbours on each side, in their order.

        Across Z: B C Z Y X -> B*Z (1 + 2 n) C Y X.
        """
        values = values.movedim(2 + across, 2)
        reach, depth = self.config.neighbours, values.shape[2]
        if reach == 0:
            return _folded(values)
        here = torch.arange(depth, device=values.device)
        shifted = [(here + shift).clamp(0, depth - 1) for shift in range(-reach, reach + 1)]
        return _folded(torch.cat([values.index_select(2, index) for index in shifted], dim=1))


def _folded(volume: Tensor) -> Tensor:
    """B C Z Y X -> B*Z C Y X; a view where memory is channels-last."""
    return volume.transpose(1, 2).flatten(0, 1)


def _unfolded(planes: Tensor, batch: int, across: int = 0) -> Tensor:
    """Planes back into volumes; across Z: B*Z K Y X -> B K Z Y X."""
    return planes.reshape(batch, -1, *planes.shape[1:]).transpose(1, 2).movedim(2, 2 + across)


def mean_of(passes: Iterable[Tensor], *, is_sigmoid: bool) -> Tensor:
    """Float32 logits of the mean of the probabilities that several logits (B K Z Y X) stand for."""
    wide = (logits.float() for logits in passes)
    if not is_sigmoid:
        total: Tensor = functools.reduce(torch.logaddexp, (logits.log_softmax(1) for logits in wide))
        return total
    pairs = (torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)]) for logits in wide)
    yes, no = functools.reduce(torch.logaddexp, pairs).unbind()
    return yes - no


def build_network(config: NetworkConfig) -> Network:
    """A network with fresh weights, on the CPU, in float32, in training mode.

    Parameters
    ----------
    config
        ``auto`` kernels and strides count as isotropic; ``config.for_voxels`` settles them for a voxel size.
    """
    return Network(config)


def padded_to_legal(config: NetworkConfig, x: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """An image padded to a size that the network takes, and the crop that undoes it.

    ``network(padded)[crop]`` is as large as the image, whatever its size. Padding repeats the outermost
    voxel: at the far end of each axis up to a legal size, and for valid networks first on both sides by the
    lost margin.

    Parameters
    ----------
    config
        Configuration of the network.
    x
        B C Z Y X (two-dimensional networks: also B C Y X), no axis empty; any dtype that PyTorch pads.

    Returns
    -------
    padded
        The image itself where nothing has to be added.
    crop
        Index into the logits, B K Z Y X.
    """
    description = describe(config)
    axes = description.geometry[5 - x.ndim :]
    sizes = tuple(x.shape[2:])
    widths: list[int] = []
    for axis, size in zip(axes, sizes, strict=True):
        needed = axis.legal(size + 2 * axis.margin)
        widths = [axis.margin, needed - size - axis.margin, *widths]  # F.pad starts with the last axis
    padded = F.pad(x, widths, mode="replicate") if any(widths) else x
    return padded, (slice(None), slice(None), *(slice(0, size) for size in sizes))


def _features(config: NetworkConfig) -> nn.Module:
    if config.features == "none":
        return nn.Identity()
    return ScaleSpace(in_channels=config.in_channels, scales=config.feature_scales, voxel=config.feature_voxel)
