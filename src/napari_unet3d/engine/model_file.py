"""Model files: one ``.safetensors`` file with the weights and, as JSON in its metadata, everything else.

Nothing is ever unpickled. See ``docs/model-file.md`` for the format.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import Config, NetworkConfig, Recipe
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import FileError, ModelFileError
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.normalize import Normalization
from napari_unet3d.engine.trained_model import ClassInfo, History, TrainedModel, TrainingState

FORMAT_VERSION: Final = 1
SUFFIX: Final = ".safetensors"
_KEY: Final = "napari_unet3d"
_WEIGHTS: Final = "network."
_STATE: Final = "training."
_Edge: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Size(Config):
    z: _Edge
    y: _Edge
    x: _Edge
    unit: Literal["angstrom", "nm", "um", "mm", "cm", "m", "pixel"]


class _Header(Config):
    """Everything in a model file that is not a tensor."""

    format_version: int
    versions: dict[str, str]
    recipe: Recipe
    normalization: Normalization
    classes: tuple[ClassInfo, ...]
    voxel_size: _Size
    spatial_dims: Literal[2, 3]
    history: History
    state: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        network = self.recipe.network
        if len(self.classes) != max(2, network.classes):
            raise ValueError("the network has another number of classes")
        if len(self.normalization.channels) != network.in_channels:
            raise ValueError("the network has another number of channels")
        return self


def check_model_output(path: str | os.PathLike[str]) -> Path:
    """The path, if a model file can be written there.

    Raises
    ------
    FileError
        If the suffix is not ``.safetensors``, the folder does not exist or cannot be written to.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise FileError(f"{path} does not end in {SUFFIX}; a model file needs that suffix")
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileError(f"the folder {path.parent} does not exist; make it first or give another --out")
    try:  # permission bits say little on network and read-only file systems
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileError(
            f"the folder {path.parent} cannot be written to ({error.strerror}); give another --out"
        ) from None
    return path


def save_model(model: TrainedModel, path: str | os.PathLike[str]) -> Path:
    """Write a model file, atomically: an older file at `path` stays until the new one is complete.

    Raises
    ------
    FileError
        If the file cannot be written, for example because the disk is full.
    """
    path = check_model_output(path)
    header = _Header(
        format_version=FORMAT_VERSION,
        versions=_versions(),
        recipe=model.recipe,
        normalization=model.normalization,
        classes=model.classes,
        voxel_size=_Size.model_validate(asdict(model.voxel_size)),
        spatial_dims=3 if model.spatial_dims == 3 else 2,
        history=model.history,
        state=dict(model.state.values) if model.state else None,
    )
    tensors = {_WEIGHTS + name: tensor for name, tensor in model.network.state_dict().items()}
    if model.state:
        tensors |= {_STATE + name: tensor for name, tensor in model.state.tensors.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # NaN is no JSON: records use None for it
    content = save(contiguous, {_KEY: json.dumps(header.model_dump(mode="json"), allow_nan=False)})
    _write_atomically(path, content)
    return path


def _write_atomically(path: Path, content: bytes) -> None:
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"cannot write {path}: {reason}; free some space or give another --out") from None
    finally:
        if temporary is not None:
            with suppress(OSError):  # gone where it became the file
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_model(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a model file.

    Raises
    ------
    ModelFileError
        If the file is missing, is no model file of this program, is damaged, of a newer format, or its weights do
        not fit its network.
    """
    path = Path(path)
    with _opened(path) as file:
        header = _read_header(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    weights = {k.removeprefix(_WEIGHTS): v for k, v in tensors.items() if k.startswith(_WEIGHTS)}
    _check_size(path, header.recipe.network, weights)
    network = build_network(header.recipe.network)
    _check_weights(path, network.state_dict(), weights)
    network.load_state_dict(weights)
    state = None
    if header.state is not None:
        state = TrainingState(
            {k.removeprefix(_STATE): v for k, v in tensors.items() if k.startswith(_STATE)}, header.state
        )
    return TrainedModel(
        network=network.eval().requires_grad_(False),
        recipe=header.recipe,
        normalization=header.normalization,
        classes=header.classes,
        voxel_size=VoxelSize(**header.voxel_size.model_dump()),
        spatial_dims=header.spatial_dims,
        history=header.history,
        state=state,
    )


def read_versions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Versions of the packages that wrote a model file.

    Raises
    ------
    ModelFileError
        As `load_model`.
    """
    path = Path(path)
    with _opened(path) as file:
        return _read_header(path, file).versions


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file for `safetensors`, its troubles told in one line."""
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ModelFileError(f"{path} is no model file, or is damaged ({error}); train or copy it again") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None


def _read_header(path: Path, file: Any) -> _Header:
    metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise ModelFileError(f"{path} was not written by napari-unet3d; give a model it trained")
    try:
        values = json.loads(metadata[_KEY], parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ModelFileError(f"the header of {path} is damaged; train or copy the model again") from None
    found = values.get("format_version") if isinstance(values, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {found}, this program reads up to {FORMAT_VERSION}; update napari-unet3d"
        )
    try:
        return _Header.model_validate(values)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its top"
        raise ModelFileError(f"the header of {path} is damaged at {where!r}; train or copy the model again") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _check_size(path: Path, network: NetworkConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse a recipe whose network is larger than the file's weights, before anything of its size is made."""
    layers_fit = sum(network.convolutions_per_level) <= len(weights)
    if not layers_fit or describe(network).parameters > sum(tensor.numel() for tensor in weights.values()):
        raise ModelFileError(f"{path} is damaged: its network has more weights than the file; train or copy it again")


def _check_weights(path: Path, needed: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    if needed.keys() != found.keys():
        name = sorted(needed.keys() ^ found.keys())[0]
        raise ModelFileError(f"{path} is damaged: the weights {name!r} do not belong to its network, or are missing")
    for name, tensor in needed.items():
        if tensor.dtype != found[name].dtype:
            raise ModelFileError(
                f"{path} is damaged: {name!r} is {found[name].dtype}, its network needs {tensor.dtype}"
            )
        if tensor.shape != found[name].shape:
            raise ModelFileError(
                f"{path} is damaged: {name!r} has shape {tuple(found[name].shape)}, "
                f"its network needs {tuple(tensor.shape)}"
            )
        if found[name].is_floating_point() and not torch.isfinite(found[name]).all():
            raise ModelFileError(f"{path} is damaged: {name!r} holds values that are not finite")


def _versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "numpy": np.__version__}
    try:
        found["napari-unet3d"] = version("napari-unet3d")
    except PackageNotFoundError:  # run from a source tree that is not installed
        found["napari-unet3d"] = "unknown"
    return found
