"""Which models are compared after a distillation, and their labels as layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.widgets._layers.prediction import add_prediction
from napari_unet3d.widgets._workbench.distill_tasks import Compared, TeacherChoice

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.widgets._layers.image import ImageChoice

STUDENT: Final = "student"
TEACHER: Final = "teacher"
SCRATCH: Final = "scratch"


def contestants(
    teachers: Sequence[TeacherChoice], scratch: TrainedModel | None, student: TrainedModel, origin: str
) -> tuple[dict[str, TrainedModel], dict[str, str]]:
    """Models by the names to show, teachers first and the student last, and what the names stand for.

    Parameters
    ----------
    teachers
        At least one.
    scratch
        The network of the student, trained without teachers; None where there is none.
    student, origin
        The student, and where it comes from.
    """
    names = [TEACHER] if len(teachers) == 1 else [f"{TEACHER} {n}" for n in range(1, len(teachers) + 1)]
    models = {name: teacher.model for name, teacher in zip(names, teachers, strict=True)}
    meanings = {name: teacher.name for name, teacher in zip(names, teachers, strict=True)}
    if scratch is not None:
        models[SCRATCH] = scratch
        meanings[SCRATCH] = "the network of the student, trained on the annotation alone"
    models[STUDENT] = student
    meanings[STUDENT] = origin
    return models, meanings


def show_labels(
    viewer: Any,
    image: ImageChoice,
    classes: Sequence[ClassInfo],
    found: Compared,
    meanings: Mapping[str, str],
    t: int,
    old: Sequence[Any],
) -> tuple[Any, Any]:
    """Add the labels of the first teacher, hidden, and of the student; gives both layers.

    Parameters
    ----------
    t
        Time point that was compared; the labels of others are zero.
    old
        Layers of teacher and student to take away, or None.
    """
    layers = []
    names = found.figures[0].name, found.figures[-1].name
    for role, name, before in zip((TEACHER, STUDENT), names, old, strict=True):
        if before is not None:
            viewer.layers.remove(before)
        data = found.labels[name]
        if "T" in image.axes:
            data = _at_time(data, image.time_points, t)
        provenance = {"model": meanings[name], "image": image.name}
        layers.append(add_prediction(viewer, image, classes, f"{image.name} {role}", data=data, provenance=provenance))
    first, last = layers
    first.visible = False
    return first, last


def _at_time(labels: NDArray[np.unsignedinteger], time_points: int, t: int) -> NDArray[np.unsignedinteger]:
    """Z Y X labels as T Z Y X, zero at the other time points."""
    result = np.zeros((time_points, *labels.shape), labels.dtype)
    result[t] = labels
    return result
