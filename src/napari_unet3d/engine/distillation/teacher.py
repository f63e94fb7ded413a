"""Teachers: which may teach together, and what they say about an image."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.engine.config import DistillConfig, PredictConfig, Recipe, TeacherRecord
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.distillation.scores import probabilities_of, score_channels, scores_of
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.heads import Head
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.prediction_io import PredictionOutputs, check_image
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Box, Event
from napari_unet3d.engine.tiling import whole
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

_SMALLEST_SPREAD: Final = 0.01
_LARGEST_MIDDLE: Final = 4.0
_LOOKED_AT: Final = 5  # planes of an image


class Teacher(NamedTuple):
    """A model under the name by which messages and records call it."""

    name: str
    model: TrainedModel

    def record(self) -> TeacherRecord:
        """What a student's file says about it."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        ious = [entry.mean_iou for entry in self.model.history.validations if entry.mean_iou is not None]
        return TeacherRecord(
            name=self.name,
            fingerprint=digest.hexdigest(),
            parameters=describe(self.model.recipe.network).parameters,
            mean_iou=max(ious, default=None),
        )


# --- who may teach ----------------------------------------------------------------------------------------


def check_teachers(teachers: Sequence[Teacher], volumes: Sequence[AnnotatedVolume]) -> None:
    """Make sure that the teachers agree in what they label, and can look at the volumes.

    Raises
    ------
    ConfigError
        If there is no teacher, or classes, head, channels, dimensions or normalisation differ between teachers, or
        something is painted that is no class of theirs.
    DataError
        If an image has other channels or dimensions, or grey values far from those that the teachers know.
    """
    if not teachers:
        raise ConfigError("there is no teacher; give the .safetensors file of a trained model")
    first = teachers[0]
    for other in teachers[1:]:
        _check_alike(first, other)
    for volume in volumes:
        check_image(first.model, volume.image)
        unknown = [label_id for label_id in volume.label_ids if label_id not in first.model.label_ids]
        if unknown:
            raise ConfigError(
                f"class {unknown[0]} is painted on {volume.image.name}, but the classes of the teacher {first.name} "
                f"are {_list(first.model.label_ids)}; train a teacher on these labels, or distil without labels"
            )
        _check_grey_values(first, volume.image)


def _check_alike(first: Teacher, other: Teacher) -> None:
    facts: dict[str, Callable[[TrainedModel], Any]] = {
        "classes": lambda model: _list(model.label_ids),
        "kind of output": lambda model: model.recipe.network.head,
        "channels": lambda model: model.in_channels,
        "dimensions of the images": lambda model: model.spatial_dims,
    }
    for name, fact in facts.items():
        one, two = fact(first.model), fact(other.model)
        if one != two:
            raise ConfigError(
                f"the teachers differ in their {name}: {first.name} has {one}, {other.name} has {two}; "
                "give teachers that were trained for the same task"
            )
    if first.model.normalization != other.model.normalization:
        raise ConfigError(
            f"the teachers {first.name} and {other.name} normalise grey values differently, and a student can only do "
            "as one of them; give teachers trained on the same images with the same train.normalize"
        )


def _check_grey_values(teacher: Teacher, image: Volume) -> None:
    depth, height, width = image.shape
    planes = sorted({int((i + 0.5) / _LOOKED_AT * depth) for i in range(_LOOKED_AT)})
    parts = [image.read((slice(z, z + 1), slice(0, height), slice(0, width))) for z in planes]
    for channel, values in enumerate(np.concatenate([teacher.model.normalization.apply(part) for part in parts], 1)):
        middle = float(np.median(values))
        if abs(middle) > _LARGEST_MIDDLE or float(values.std()) < _SMALLEST_SPREAD:
            grey = np.concatenate([part[channel] for part in parts])
            fitted = teacher.model.normalization.channels[channel]
            raise DataError(
                f"the grey values of {image.name} ({np.nanmin(grey):g} to {np.nanmax(grey):g}) are far from those that "
                f"the teacher {teacher.name} was trained on (about {fitted.offset - 1 / fitted.factor:g} to "
                f"{fitted.offset + 1 / fitted.factor:g}); rescale the image, or train a teacher on it"
            )


def _list(label_ids: Sequence[int]) -> str:
    return ", ".join(map(str, label_ids))


# --- what they say ----------------------------------------------------------------------------------------


class TeacherEnsemble:
    """Mean of what several teachers say, frozen and in evaluation mode.

    Probabilities are averaged, also over mirrored tiles with ``config.flips``. The networks are copied, so nothing
    can change those of the models.

    Parameters
    ----------
    models
        Teachers that agree, see `check_teachers`.
    config
        Its `flips` and `feature_hint` are read.
    device, precision
        As in `TrainConfig`.

    Attributes
    ----------
    head
        What the scores mean.
    channels
        Scores of a voxel; the last one is the logarithm of the teachers' activity where there is a feature hint.
    """

    def __init__(self, models: Sequence[TrainedModel], config: DistillConfig, device: str, precision: str) -> None:
        asked = {"device": device, "precision": precision}
        once, averaged = (
            PredictConfig.model_validate(asked),
            PredictConfig.model_validate(asked | {"flips": config.flips}),
        )
        network = models[0].recipe.network
        self.head: Head = network.head
        self._teachers = [Predictor(model, averaged) for model in models]
        self._hints = [Predictor(_ActivityModel(model), once) for model in models] if config.feature_hint else []
        self._scores = score_channels(network)
        self.channels = self._scores + bool(self._hints)

    def look(
        self, image: Volume, box: Box | None = None, into: NDArray[np.float16] | None = None
    ) -> Generator[tuple[int, Event], None, NDArray[np.float16]]:
        """Scores of an image, Z Y X C.

        Parameters
        ----------
        image
            The image.
        box
            Part of it; None for all.
        into
            Z Y X C of the size of the box; by default a new array.

        Yields
        ------
        tuple of int and Event
            Which of the `passes` is under way, and how far.
        """
        box = box or whole(image.shape)
        sizes = [part.stop - part.start for part in box]
        result = np.zeros((*sizes, self.channels), np.float16) if into is None else into
        jobs = [(p, n, slice(0, self._scores), self.head) for n, p in enumerate(self._teachers)]
        jobs += [(p, n, slice(self._scores, None), "softmax") for n, p in enumerate(self._hints)]
        for place, (predictor, before, channels, head) in enumerate(jobs):
            writer = _MeanScores(result[..., channels], box, before, head)
            for event in predictor.run(image, PredictionOutputs(probabilities=writer), box=box):
                yield place, event
        return result

    @property
    def passes(self) -> int:
        """How often an image is looked at."""
        return len(self._teachers) + len(self._hints)


class _MeanScores:
    """Takes blocks of probabilities and keeps the scores of their mean with those of the teachers before."""

    def __init__(self, scores: NDArray[np.float16], box: Box, before: int, head: Head) -> None:
        self._scores = scores
        self._box = box
        self._before = before
        self._head = head

    def __setitem__(self, index: Any, block: NDArray[np.float32], /) -> None:
        place = tuple(
            slice(part.start - b.start, part.stop - b.start) for part, b in zip(index[1:], self._box, strict=True)
        )
        if self._before:
            mean = probabilities_of(np.moveaxis(self._scores[place], -1, 0).astype(np.float32), self._head)
            block = mean + (block - mean) / np.float32(self._before + 1)
        self._scores[place] = np.moveaxis(scores_of(block, self._head), 0, -1)


class _ActivityModel:
    """A model whose only output is the logarithm of the mean squared features in front of its head.

    The predictor takes this for the logit of a sigmoid channel, and so do the scores.
    """

    def __init__(self, model: TrainedModel) -> None:
        self.recipe = Recipe(network=model.recipe.network.updated(classes=1, head="softmax", deep_supervision=False))
        self.normalization = model.normalization
        self.label_ids = (1, 2)
        self.voxel_size = model.voxel_size
        self.spatial_dims = model.spatial_dims
        self.in_channels = model.in_channels
        self.network = copy.deepcopy(model.network)
        assert isinstance(self.network, Network)  # as load_model and the trainer give it
        self.network.body.head = _Activity()


class _Activity(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        mean = features.float().pow(2).mean(1, keepdim=True)
        return mean.clamp_min(torch.finfo(torch.float16).tiny).log()
