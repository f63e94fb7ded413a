"""A trained model that learns further classes: what it knows is kept, and the new classes get outputs of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import NetworkConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.trained_model import TrainedModel

_CLASSES_AXIS: Final = 0
"""Of every tensor whose size depends on the number of classes: weights and biases of heads and classifier."""


def with_classes(model: TrainedModel, classes: Sequence[ClassInfo], random_state: int = 0) -> TrainedModel:
    """The model with an output for each of `classes`, ready to be trained further from its weights.

    Outputs of classes that it knows keep their weights, so that among these classes it decides as before. Those of
    new classes are drawn at random, as in a fresh network.

    Parameters
    ----------
    model
        With weights; it is not changed.
    classes
        In ascending order of their ids, the first being the background; all the model's own and some more.
    random_state
        Draws the new weights.

    Returns
    -------
    TrainedModel
        Without training state and history, which belong to the old classes.

    Raises
    ------
    ConfigError
        If a class of the model is missing, or the order is another.
    """
    ids = tuple(entry.id for entry in classes)
    if list(ids) != sorted(set(ids)) or not set(model.label_ids) <= set(ids):
        raise ConfigError(f"the classes {ids} need to be those of the model, {model.label_ids}, and more, ascending")
    old = model.recipe.network
    config = old.updated(classes=len(ids) - 1 if old.head == "sigmoid" else len(ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        network = build_network(config)
    known = _channels(old, model.label_ids)
    wanted = _channels(config, ids)
    given = model.network.state_dict()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.shape == given[name].shape:
                tensor.copy_(given[name])
            else:
                _copy_rows(tensor, given[name], wanted, known)
    return replace(
        model,
        network=network.eval().requires_grad_(False),
        recipe=model.recipe.updated(network=config, record=None),
        classes=tuple(classes),
        state=None,
        history=type(model.history)(),
    )


def _channels(config: NetworkConfig, label_ids: Sequence[int]) -> tuple[int, ...]:
    """Label id of each output channel; see `engine.heads`."""
    has_background = config.head == "softmax" and config.classes > 1
    return tuple(label_ids if has_background else label_ids[1:])


def _copy_rows(tensor: Tensor, given: Tensor, wanted: Sequence[int], known: Sequence[int]) -> None:
    """Copy the weights of the channels that both have; a lone structure stood against a background of zeros."""
    rows = {label_id: given.select(_CLASSES_AXIS, number) for number, label_id in enumerate(known)}
    is_lone = len(known) == 1 and len(wanted) > 1
    for number, label_id in enumerate(wanted):
        if label_id in rows:
            tensor[number] = rows[label_id]
        elif is_lone and number == 0:
            tensor[number] = 0
