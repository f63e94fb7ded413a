"""What there is to draw: the layers of a network gathered into one block on each side of each level. No Qt.

::

    image ─► encoder 0 ─────── skip ───────► decoder 0 ─► output
                 ▼                               ▲
             encoder 1 ─────── skip ───────► decoder 1
                 ▼                               ▲
                 └───────► bottleneck ───────────┘
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.describe import Description
from napari_unet3d.engine.networks.layers import Layer

Side: TypeAlias = Literal["encoder", "decoder"]
Place: TypeAlias = tuple[Side, int]
"""Side and level of a block; the bottleneck is the encoder's last."""

_DECODING: Final = ("decoder", "head", "side_heads")
_HEADS: Final = ("head", "side head", "classifier")
_BRANCH: Final = re.compile(r"decoder\.nodes\.(\d+)\.branches\.(\d+)")


@dataclass(frozen=True)
class Block:
    """All that happens on one side of one level.

    Attributes
    ----------
    channels, size
        Of what leaves the block; Z Y X voxels.
    layers
        With the size that leaves each.
    """

    side: Side
    level: int
    channels: int
    size: Triple
    layers: tuple[tuple[Layer, Triple], ...]

    @property
    def place(self) -> Place:
        """Side and level."""
        return (self.side, self.level)

    @property
    def parameters(self) -> int:
        """Trainable values."""
        return sum(layer.parameters for layer, _ in self.layers)

    @property
    def has_side_head(self) -> bool:
        """Whether training looks at an output of this block (deep supervision)."""
        return any(layer.kind == "side head" for layer, _ in self.layers)


@dataclass(frozen=True)
class Picture:
    """A network as blocks and what joins them.

    Attributes
    ----------
    blocks
        By place.
    strides
        Z Y X, from each level to the next.
    skips
        Pairs of blocks: whose output enters which other block, apart from the way down and up.
    crops
        Z Y X voxels cut from each side of the skip of each level; 0 for padded networks.
    """

    blocks: dict[Place, Block]
    strides: tuple[Triple, ...]
    skips: tuple[tuple[Place, Place], ...]
    crops: tuple[Triple, ...]
    in_channels: int
    classes: int

    @property
    def levels(self) -> int:
        """Resolution levels."""
        return 1 + max(level for _, level in self.blocks)

    @property
    def last(self) -> Place:
        """The block that the output comes from."""
        return ("decoder", 0) if ("decoder", 0) in self.blocks else ("encoder", 0)


def picture_of(network: Description, patch: Triple) -> Picture:
    """Gather the layers of a network for an input of a size (Z Y X).

    Raises
    ------
    ConfigError
        If a network without padding cannot take the size.
    """
    coarsest = max(layer.level for layer in network.layers)
    gathered: dict[Place, list[tuple[Layer, Triple]]] = {}
    for layer, size in zip(network.layers, network.layer_shapes(patch), strict=True):
        decodes = layer.name.startswith(_DECODING) and layer.level < coarsest
        gathered.setdefault(("decoder" if decodes else "encoder", layer.level), []).append((layer, size))
    blocks = {place: _block(place, layers) for place, layers in gathered.items()}
    return Picture(
        blocks=blocks,
        strides=network.config.stride_per_level,
        skips=_skips(network.layers, blocks, coarsest),
        crops=tuple(row.crop or (0, 0, 0) for row in network.shapes(patch)),
        in_channels=network.config.in_channels,
        classes=network.config.classes,
    )


def _block(place: Place, layers: Sequence[tuple[Layer, Triple]]) -> Block:
    side, level = place
    body = [(layer, size) for layer, size in layers if layer.kind not in _HEADS] or layers
    layer, size = body[-1]
    return Block(side, level, layer.out_channels, size, tuple(layers))


def _skips(layers: Sequence[Layer], blocks: dict[Place, Block], coarsest: int) -> tuple[tuple[Place, Place], ...]:
    branches = [tuple(map(int, match.groups())) for layer in layers if (match := _BRANCH.fullmatch(layer.name))]
    if not branches:
        return tuple((("encoder", level), ("decoder", level)) for side, level in blocks if side == "decoder")
    found: list[tuple[Place, Place]] = []
    for node, level in branches:
        source: Place = ("encoder" if level <= node or level == coarsest else "decoder", level)
        if level != node + 1:  # the way up is drawn anyway
            found.append((source, ("decoder", node)))
    return tuple(found)


# --- words ------------------------------------------------------------------------------------------------


def sizes(values: Sequence[int]) -> str:
    """``12×80×80``."""
    return "×".join(map(str, values))


def stride_text(stride: Triple, dimensions: int) -> str:
    """``2`` where all (drawn) axes agree, else ``1×2×2``."""
    axes = stride if dimensions == 3 else stride[1:]
    return str(axes[0]) if len(set(axes)) == 1 else sizes(stride)


def block_text(block: Block) -> list[str]:
    """What a block is, and one line for each of its layers."""
    name = f"{block.side.capitalize()}, level {block.level}"
    head = f"{name}: {block.channels} channels of {sizes(block.size)} voxels (Z Y X), {block.parameters:,} parameters"
    return [head, *(_layer_text(layer) for layer, _ in block.layers)]


def _layer_text(layer: Layer) -> str:
    channels = f"{layer.in_channels} → {layer.out_channels} channels"
    kernel = "" if layer.kernel == (1, 1, 1) else f" {sizes(layer.kernel)}"
    stride = "" if layer.stride == (1, 1, 1) else f", stride {sizes(layer.stride)}"
    parameters = f", {layer.parameters:,} parameters" if layer.parameters else ""
    return f"{layer.kind}{kernel}: {channels}{stride}{parameters}"
