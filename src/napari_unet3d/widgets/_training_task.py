"""A training as the work of a job."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo, default_classes
from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Note, Preparing
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._kept import KeptFolder, copy_without, kept_file
from napari_unet3d.widgets._workers import Emit, Interrupted, WorkerInbox

if TYPE_CHECKING:
    from napari_unet3d.api import TrainingRun
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.io.autosave import AutosaveFolder


@dataclass(frozen=True)
class TrainedOn:
    """The annotation with which a training began, for each volume: a packed copy, and a digest of it."""

    packed: tuple[bytes, ...]
    digest: str


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A training to run.

    Parameters
    ----------
    volumes
        Image and painted labels (Z Y X; 0 = not annotated) of each annotated volume; labels are copied by the work.
    preset, settings
        The network.
    config
        The training.
    classes
        Names and colours.
    out
        Model file that is kept up to date during the run; None: nowhere.
    resume
        A model with training state to go on with; preset and settings then do not matter.
    weights_from
        A model whose weights to begin with.
    kept
        Folder for the model file where `out` is not given; None: nowhere.
    left_out
        Ids that count as not annotated.
    measured
        How many of the volumes, the last ones, are measured on, not trained on.
    """

    volumes: tuple[tuple[Volume, NDArray[np.unsignedinteger]], ...]
    preset: str
    settings: dict[str, Any]
    config: TrainConfig
    classes: tuple[ClassInfo, ...] = ()
    out: Path | None = None
    resume: TrainedModel | None = None
    weights_from: TrainedModel | None = None
    kept: KeptFolder | None = None
    left_out: frozenset[int] = frozenset()
    measured: int = 0

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> TrainedModel | None:
        """Train; gives the best model, with the state that going on needs, or None if stopped before the first step."""
        from napari_unet3d import api

        if inbox.is_stopping:
            return None
        out = self.out or kept_file(self.kept, self._model_file, "model", emit)
        pairs = [(image, copy_without(labels, self.left_out)) for image, labels in self.volumes]
        emit(_trained_on([labels for _, labels in pairs], self.classes))
        weights_from = self._with_new_classes([labels for _, labels in pairs], emit)
        continued = self.resume or weights_from
        run = api.train_events(
            *pairs[0],
            also=pairs[1 : len(pairs) - self.measured],
            validate_on=pairs[len(pairs) - self.measured :],
            network=None if continued else self.preset,
            network_settings=None if continued else self.settings,
            config=self.config,
            out=out,
            resume=self.resume,
            weights_from=weights_from,
            keep_state=True,
            named_classes=self.classes,
            inbox=inbox,
        )
        try:
            for event in run:
                emit(event)
                if isinstance(event, Preparing) and inbox.is_stopping:
                    return None
        except Exception as error:  # whatever went wrong, the best model so far is not lost
            raise Interrupted(_model_so_far(run), error) from error
        return run.model(with_state=True)

    def _with_new_classes(self, labels: Sequence[NDArray[np.unsignedinteger]], emit: Emit) -> TrainedModel | None:
        """The model to begin with, with outputs for painted classes that it does not know."""
        model = self.weights_from
        if model is None:
            return None
        painted = {int(i) for volume in labels for i in np.unique(volume) if i}
        new = painted - set(model.label_ids)
        if not new:
            return model
        from napari_unet3d.engine.new_classes import with_classes

        ids = sorted({*model.label_ids, *new})
        given = {entry.id: entry for entry in (*default_classes(ids), *model.classes, *self.classes)}
        names = ", ".join(f"'{given[label_id].name}'" for label_id in sorted(new))
        emit(Note(f"new to the model: {names}; what it has learnt is kept, and it gets an output for each"))
        return with_classes(model, [given[label_id] for label_id in ids], self.config.random_state)

    def _model_file(self, folder: AutosaveFolder) -> Path:
        if self.resume is None:
            folder.put_model_aside()
        return folder.model_path


def _trained_on(labels: Sequence[NDArray[np.unsignedinteger]], classes: Sequence[ClassInfo]) -> TrainedOn:
    from napari_unet3d.io.annotation_file import pack_annotation

    packed = tuple(pack_annotation(volume, classes)[0] for volume in labels)
    digest = hashlib.sha256()
    for content in packed:  # the runs alone, for an archive also holds the time of its making
        with np.load(io.BytesIO(content)) as runs:
            digest.update(runs["ids"].tobytes() + runs["lengths"].tobytes())
    return TrainedOn(packed, digest.hexdigest())


def _model_so_far(run: TrainingRun) -> TrainedModel | None:
    try:
        return run.model()
    except UNet3dError:
        return None
