"""How a student learns from teachers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from napari_unet3d.engine.config.settings import Config


class DistillConfig(Config):
    """How a student learns from teachers (Hinton et al. 2015)."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Softens the outputs of teacher and student while they are compared: 1 leaves them as they are, higher values show
    more of what the teacher holds possible."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Weight of the teacher; 1 - alpha is that of the annotation. The teacher counts on all voxels, the annotation on
    annotated ones."""
    labelled_patches: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the steps whose patches lie around annotation, where there is any; the others lie anywhere."""
    augmented: bool = False
    """Change the patches as train.augment says. Teachers label every voxel, so none need be made up, and a student that
    sees the volume as it is comes closer to them; switch it on for a student that shall label other volumes."""
    flips: bool = False
    """Average the teachers over mirrored volumes (eight times their work in three dimensions)."""
    feature_hint: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a hint: in front of the head the student shall be active where the teacher is (Zagoruyko and Komodakis
    2017). 0: none."""
    student_from: Literal["scratch", "teacher"] = "scratch"
    """What the student begins with: random weights, or those of the (first) teacher wherever names and sizes are
    equal."""
    teacher_outputs: Literal["auto", "cached", "live"] = "auto"
    """cached: the teachers label all of the volume before the first step; live: each patch when it is drawn. auto:
    cached, unless that takes too long or too much memory."""
