"""The autosave folder of an image, for jobs in threads: strokes and recipe into it, and what is there out of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Event, Note
from napari_unet3d.engine.volume import NOT_ANNOTATED, Volume

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.io.autosave import AutosaveFolder

_ORDER: Final = itertools.count()


class KeptFolder:
    """Finds the folder when it is first needed, which reads parts of the image: for the thread of a job.

    Parameters
    ----------
    base
        Folder of all autosaves; empty for that in the user's data folder.
    image
        The image, at its first time point.
    path
        Its file, where it has one.
    """

    def __init__(self, base: str, image: Volume, path: str | None) -> None:
        self._base = base
        self._image = image
        self._path = path
        self._finding, self._saving = Lock(), Lock()
        self._folder: AutosaveFolder | None = None
        self._newest = -1

    @property
    def found(self) -> AutosaveFolder | None:
        """The folder, once a job has found it."""
        return self._folder

    def get(self) -> AutosaveFolder:
        """The folder; it need not exist yet.

        Raises
        ------
        FileError
            If the image cannot be read.
        """
        from napari_unet3d.io.autosave import AutosaveFolder

        with self._finding:
            if self._folder is None:
                self._folder = AutosaveFolder.for_image(self._base, self._image, self._path, self._image.name)
            return self._folder

    def save(self, task: KeepTask) -> None:
        """Save strokes, unless newer ones are saved already."""
        folder = self.get()
        with self._saving:
            if task.order < self._newest:
                return
            self._newest = task.order
            if task.is_another_annotation:
                folder.begin_another()
            folder.save_annotation(task.labels, task.classes, annotated_slices=task.annotated_slices)
            folder.save_recipe(task.recipe)


def kept_file(
    kept: KeptFolder | None, choose: Callable[[AutosaveFolder], Path], what: str, emit: Callable[[Event], None]
) -> Path | None:
    """The file that a run keeps its model in, in a folder that is made; None, with a note, where that cannot be.

    Parameters
    ----------
    kept
        The image's folder; None for nothing to be kept.
    choose
        Gives the file, and prepares its place.
    what
        What is kept, for the note.
    """
    if kept is None:
        return None
    try:
        folder = kept.get()
        folder.make()
        return choose(folder)
    except UNet3dError as error:
        emit(Note(f"the {what} is not saved automatically: {error}; training goes on", "warning"))
        return None


class PaintedLabels:
    """Labels that another thread goes on changing, read as copies of some leading planes at a time.

    Parameters
    ----------
    volumes
        Z Y X of each time point; with one, the array is Z Y X, else T Z Y X.
    """

    def __init__(self, volumes: Sequence[NDArray[np.unsignedinteger]]) -> None:
        self._volumes = list(volumes)
        first = self._volumes[0]
        self.dtype = first.dtype
        self.shape: tuple[int, ...] = first.shape if len(volumes) == 1 else (len(volumes), *first.shape)

    def __getitem__(self, index: Any, /) -> NDArray[np.unsignedinteger]:
        if len(self._volumes) == 1:
            return np.array(self._volumes[0][index])
        return np.stack(self._volumes[index])


def copy_without(labels: NDArray[np.unsignedinteger], left_out: Collection[int]) -> NDArray[np.unsignedinteger]:
    """A copy of label ids in which those `left_out` are 0, not annotated."""
    copy = labels.copy()
    if left_out:
        copy[np.isin(copy, sorted(left_out))] = NOT_ANNOTATED
    return copy


@dataclass(frozen=True, eq=False)
class KeepTask:
    """Strokes to save.

    Parameters
    ----------
    folder
        Where.
    labels
        What was painted, which may go on changing.
    classes
        Names and colours.
    recipe
        Network and training as they are set, YAML.
    annotated_slices
        Their number, where known.
    is_another_annotation
        It did not grow out of what is saved there, which is therefore put aside.
    """

    folder: KeptFolder
    labels: PaintedLabels
    classes: tuple[ClassInfo, ...]
    recipe: str
    annotated_slices: int | None = None
    is_another_annotation: bool = False

    order: int = field(default_factory=lambda: next(_ORDER))

    def __call__(self, *_: Any) -> None:
        """Save them; of several such tasks the last one made counts."""
        self.folder.save(self)


@dataclass(frozen=True)
class LookTask:
    """A folder to look into."""

    folder: KeptFolder

    def __call__(self, *_: Any) -> str:
        """What is kept there, for people; empty: nothing."""
        folder = self.folder.get()
        return folder.describe() if folder.exists else ""


@dataclass(frozen=True, eq=False)
class Restored:
    """What was kept."""

    labels: NDArray[np.unsignedinteger]
    classes: tuple[ClassInfo, ...]
    recipe: str | None
    model: TrainedModel | None
    warnings: tuple[str, ...]
    """Sentences on what could not be used."""


@dataclass(frozen=True)
class RestoreTask:
    """A folder to read."""

    folder: KeptFolder

    def __call__(self, *_: Any) -> Restored:
        """Strokes with their classes, the recipe and the model; without strokes it fails."""
        from napari_unet3d.engine.model_file import load_model

        folder = self.folder.get()
        saved = folder.load_annotation()
        warnings = [saved.warning] if saved.warning else []
        recipe = model = None
        try:
            recipe = folder.load_recipe()
        except UNet3dError as error:  # the strokes are worth more than the rest
            warnings.append(str(error))
        for path in folder.model_paths:
            try:
                model = load_model(path)
                break
            except UNet3dError as error:
                warnings.append(str(error))
        return Restored(saved.labels, saved.classes, recipe, model, tuple(warnings))
