"""Comparing predicted labels with true ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.api.sources import ImageSource, LabelSource, as_volume
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.metrics import Evaluation, evaluate_labels
from napari_unet3d.engine.volume import Volume, checked_labels
from napari_unet3d.io.files import read_labels


def evaluate(
    prediction: LabelSource,
    truth: LabelSource,
    *,
    exclude: LabelSource | None = None,
    zero_is_background: bool = False,
    voxel_size: VoxelSize | None = None,
    probabilities: ImageSource | None = None,
    probability_ids: Sequence[int] | None = None,
) -> Evaluation:
    """Compare predicted labels with true ones, class by class.

    Parameters
    ----------
    prediction
        Label ids.
    truth
        Label ids of the same shape; its zeros are not scored.
    exclude
        Sparse labels: what is annotated there is not scored, so that only unpainted voxels count.
    zero_is_background
        The truth's 0 is class 1, and every id of it moves up by one.
    voxel_size
        Instead of that of the prediction's file (or 1 pixel for arrays).
    probabilities
        C Z Y X (C Y X for 2D), as `predict` writes them: gives the mean IoU over the thresholds .5 to .95 too.
    probability_ids
        Label id of each of their channels; needed where the prediction lacks one of them.

    Raises
    ------
    DataError
        If shapes differ, nothing is left to score, or it is not clear which id a channel of probabilities has.
    FileError
        If a file cannot be read.
    """
    reference = _label_volume(prediction, voxel_size, "the prediction")
    return evaluate_labels(
        checked_labels(reference.read()[0], "the prediction"),
        _ids_like(truth, reference, "the truth", zero_is_background=zero_is_background),
        voxel_size=reference.voxel_size,
        exclude=None if exclude is None else _ids_like(exclude, reference, "the excluded labels"),
        probabilities=None if probabilities is None else _probabilities(probabilities, reference),
        probability_ids=probability_ids,
    )


def _probabilities(source: ImageSource, reference: Volume) -> Volume:
    # the fourth axis of a NIfTI file could be time, but not that of probabilities
    is_nifti = isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith((".nii", ".nii.gz"))
    volume = as_volume(source, axes="XYZC" if is_nifti else None)
    if reference.spatial_dims == 2 and volume.channels == 1:  # C Y X was taken for Z Y X
        return Volume.from_array(volume.read()[0][:, np.newaxis], name=volume.name)
    return volume


def _label_volume(labels: LabelSource, voxel_size: VoxelSize | None, name: str) -> Volume:
    volume = as_volume(labels, voxel_size=voxel_size)
    if volume.channels != 1:
        raise DataError(f"{name} has {volume.channels} channels; labels have one")
    return volume


def _ids_like(
    labels: LabelSource, reference: Volume, name: str, *, zero_is_background: bool = False
) -> NDArray[np.unsignedinteger]:
    if isinstance(labels, str | os.PathLike):
        return read_labels(labels, reference, zero_is_background=zero_is_background)[0]
    ids = checked_labels(np.asarray(labels), name, zero_is_background=zero_is_background)
    return ids[np.newaxis] if ids.ndim == 2 else ids
