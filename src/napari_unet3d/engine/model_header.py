"""What files of models say besides the weights, as JSON.

Model files and exported models carry the same header, so whoever has one of them knows classes, voxel size,
normalisation and recipe.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import Config, Recipe
from napari_unet3d.engine.errors import ModelFileError
from napari_unet3d.engine.normalize import Normalization
from napari_unet3d.engine.trained_model import History, TrainedModel

FORMAT_VERSION: Final = 1
HEADER_KEY: Final = "napari_unet3d"
"""Name of the header among the metadata of a file."""

_Edge: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Size(Config):
    z: _Edge
    y: _Edge
    x: _Edge
    unit: Literal["angstrom", "nm", "um", "mm", "cm", "m", "pixel"]


class ModelHeader(Config):
    """Everything in a file of a model that is not a tensor."""

    format_version: int
    """Of the header and of what stands beside it."""
    versions: dict[str, str]
    """Packages that wrote the file."""
    recipe: Recipe
    """The whole configuration."""
    normalization: Normalization
    """From grey values to network input."""
    classes: tuple[ClassInfo, ...]
    """Class index -> label id, name and colour."""
    voxel_size: _Size
    """Of the (first) training image."""
    spatial_dims: Literal[2, 3]
    """Dimensions of the training images."""
    history: History
    """Curves of the training."""
    state: dict[str, Any] | None = None
    """Plain values that resuming needs."""

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        network = self.recipe.network
        if len(self.classes) != network.label_count:
            raise ValueError("the network has another number of classes")
        if len(self.normalization.channels) != network.in_channels:
            raise ValueError("the network has another number of channels")
        return self

    @classmethod
    def of(cls, model: TrainedModel, with_state: bool) -> ModelHeader:
        """The header of a model."""
        return cls(
            format_version=FORMAT_VERSION,
            versions=_versions(),
            recipe=model.recipe,
            normalization=model.normalization,
            classes=model.classes,
            voxel_size=_Size.model_validate(asdict(model.voxel_size)),
            spatial_dims=3 if model.spatial_dims == 3 else 2,
            history=model.history,
            state=dict(model.state.values) if model.state and with_state else None,
        )

    @classmethod
    def parse(cls, path: Path, text: str) -> ModelHeader:
        """The header that stands as `text` in the file `path`.

        Raises
        ------
        ModelFileError
            If it is damaged or of a newer format.
        """
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise ModelFileError(f"the header of {path} is damaged; train or copy the model again") from None
        found = values.get("format_version") if isinstance(values, dict) else None
        if isinstance(found, int) and found > FORMAT_VERSION:
            raise ModelFileError(
                f"{path} has format version {found}, this program reads up to {FORMAT_VERSION}; update napari-unet3d"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "its top"
            raise ModelFileError(
                f"the header of {path} is damaged at {where!r}; train or copy the model again"
            ) from None

    def text(self) -> str:
        """The header as JSON; NaN is none, records use null for it."""
        return json.dumps(self.model_dump(mode="json"), allow_nan=False)

    @property
    def size(self) -> VoxelSize:
        """The voxel size as the engine's type."""
        return VoxelSize(**self.voxel_size.model_dump())


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "numpy": np.__version__}
    try:
        found["napari-unet3d"] = version("napari-unet3d")
    except PackageNotFoundError:  # run from a source tree that is not installed
        found["napari-unet3d"] = "unknown"
    return found
