"""Model files: one ``.safetensors`` file with the weights and, as JSON in its metadata, everything else.

Nothing is ever unpickled. See ``docs/model-file.md`` for the format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_unet3d.engine.atomic_file import check_writable, write_atomically
from napari_unet3d.engine.config import NetworkConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import FileError, ModelFileError
from napari_unet3d.engine.model_header import HEADER_KEY, ModelHeader
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.trained_model import TrainedModel, TrainingState

SUFFIX: Final = ".safetensors"
_WEIGHTS: Final = "network."
_STATE: Final = "training."


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
    check_writable(path)
    return path


def save_model(model: TrainedModel, path: str | os.PathLike[str]) -> Path:
    """Write a model file, atomically: an older file at `path` stays until the new one is complete.

    Raises
    ------
    FileError
        If the file cannot be written, for example because the disk is full.
    """
    path = check_model_output(path)
    tensors = {_WEIGHTS + name: tensor for name, tensor in model.network.state_dict().items()}
    if model.state:
        tensors |= {_STATE + name: tensor for name, tensor in model.state.tensors.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, {HEADER_KEY: ModelHeader.of(model, with_state=True).text()}))
    return path


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
    state = None
    if header.state is not None:
        state = TrainingState(
            {k.removeprefix(_STATE): v for k, v in tensors.items() if k.startswith(_STATE)}, header.state
        )
    return assembled(path, header, weights, state)


def assembled(
    path: Path, header: ModelHeader, weights: Mapping[str, Tensor], state: TrainingState | None = None
) -> TrainedModel:
    """The model of a header and the weights that stand beside it.

    Parameters
    ----------
    path
        Where they come from, for messages.
    header
        Its recipe says which network.
    weights
        By their names in the network.
    state
        What resuming needs, if it is there.

    Raises
    ------
    ModelFileError
        If the weights do not fit the network.
    """
    _check_size(path, header.recipe.network, weights)
    network = build_network(header.recipe.network)
    _check_weights(path, network.state_dict(), weights)
    network.load_state_dict(weights)
    return TrainedModel(
        network=network.eval().requires_grad_(False),
        recipe=header.recipe,
        normalization=header.normalization,
        classes=header.classes,
        voxel_size=header.size,
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
        raise ModelFileError(
            f"{path} is no model file ({SUFFIX}), or is damaged ({error}); train or copy it again"
        ) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None


def _read_header(path: Path, file: Any) -> ModelHeader:
    metadata = file.metadata() or {}
    if HEADER_KEY not in metadata:
        raise ModelFileError(f"{path} was not written by napari-unet3d; give a model it trained")
    return ModelHeader.parse(path, metadata[HEADER_KEY])


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
