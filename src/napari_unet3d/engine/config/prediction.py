"""How a model is applied."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from napari_unet3d.engine.config.settings import Config, Triple


class PredictConfig(Config):
    """How a model is applied."""

    tile: Triple | Literal["auto"] = "auto"
    """Z Y X voxels of the network's input block. auto: least work within `memory`, up to 5 million."""
    halo: tuple[int, int, int] | Literal["auto"] = "auto"
    """Z Y X context around each tile that is discarded. auto: what the network sees, up to 16 voxels
    and a third of a tile."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a tile that neighbours share and blend."""
    memory: Annotated[int, Field(gt=0)] | None = None
    """Bytes the prediction may use; empty: half of what is free."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic. auto: what a short trial on the machine finds fastest."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    flips: bool = False
    """Average the predictions of mirrored tiles (eight times the work in three dimensions)."""
    compile: bool = False
    """Compile the network (torch.compile): takes a minute or more at first, for large volumes on GPUs."""
    background_as_zero: bool = False
    """Write 0 instead of the background's id (the lowest class)."""
