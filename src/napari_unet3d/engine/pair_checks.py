"""What several annotated volumes have in common, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.volume import NOT_ANNOTATED, AnnotatedVolume

_MOST_RATIO: Final = 1.25
"""Voxel edges that differ by more than this factor show structures at another size."""


@dataclass(frozen=True)
class PairFacts:
    """One image with its labels, in figures.

    Parameters
    ----------
    name
        Of the image.
    is_validation
        Whether it is measured on, not trained on.
    shape
        Z Y X voxels.
    channels
        Of the image.
    dtype
        Of the image's values.
    voxel_size
        Of the image.
    counts
        Voxels of each label id, ascending.
    """

    name: str
    is_validation: bool
    shape: Triple
    channels: int
    dtype: str
    voxel_size: VoxelSize
    counts: dict[int, int]

    @property
    def annotated_share(self) -> float:
        """Annotated voxels of all, 0..1."""
        return sum(self.counts.values()) / max(1, int(np.prod(self.shape)))


def check_pairs(
    volumes: Sequence[AnnotatedVolume], validation: Sequence[int] = (), *, is_resampled: bool = False
) -> tuple[tuple[PairFacts, ...], list[str]]:
    """Make sure that volumes can be trained on together.

    Parameters
    ----------
    volumes
        At least one.
    validation
        Indices of those that are measured on.
    is_resampled
        Whether all will be brought to one voxel size, so that theirs may differ.

    Returns
    -------
    facts
        One entry for each volume.
    warnings
        Sentences about what is allowed, but hardly meant.

    Raises
    ------
    DataError
        If channels or dimensions differ, a volume to measure on has no annotation, or none is left to train on.
    """
    facts = tuple(_facts(volume, i in validation) for i, volume in enumerate(volumes))
    learnt = [entry for entry in facts if not entry.is_validation]
    if not learnt:
        raise DataError("all volumes are for validation; give at least one to train on")
    first = volumes[facts.index(learnt[0])]
    for number, (volume, entry) in enumerate(zip(volumes, facts, strict=True), 1):
        name = _name(number, entry.name, len(facts))
        if entry.channels != learnt[0].channels:
            raise DataError(
                f"{name} has {entry.channels} channels but {learnt[0].name} has {learnt[0].channels}; train on images "
                "with the same channels, or name the channel axis with --axes"
            )
        if volume.image.spatial_dims != first.image.spatial_dims:
            raise DataError(
                f"{name} is {volume.image.spatial_dims}D but {learnt[0].name} is {first.image.spatial_dims}D; train "
                "on images of the same dimensions, or name their axes with --axes"
            )
        if entry.is_validation and not entry.counts:
            raise DataError(f"{name} is for validation but not annotated, so nothing can be measured there; paint it")
    return facts, _warnings(facts, learnt, is_resampled)


def _facts(volume: AnnotatedVolume, is_validation: bool) -> PairFacts:
    counts = np.zeros(int(volume.labels.max(initial=0)) + 1, np.int64)
    for plane in volume.labels:
        counts += np.bincount(plane.ravel(), minlength=counts.size)
    painted = {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i != NOT_ANNOTATED}
    image = volume.image
    return PairFacts(
        image.name, is_validation, image.shape, image.channels, str(image.data.dtype), image.voxel_size, painted
    )


def _name(number: int, name: str, count: int) -> str:
    return name if count == 1 else f"pair {number} ({name})"


def _warnings(facts: Sequence[PairFacts], learnt: Sequence[PairFacts], is_resampled: bool) -> list[str]:
    if len(facts) == 1:
        return []
    found = []
    known = {label_id for entry in learnt for label_id in entry.counts}
    first = learnt[0]
    for number, entry in enumerate(facts, 1):
        name = _name(number, entry.name, len(facts))
        if not entry.counts:
            found.append(f"{name} has no annotated voxel: nothing is learnt from it")
        extra = sorted(set(entry.counts) - known)
        if extra:
            ids = ", ".join(map(str, extra))
            found.append(f"{name} has the ids {ids}, which no volume to train on has: they are not scored")
        if is_resampled:
            continue
        if (entry.voxel_size.unit == "pixel") != (first.voxel_size.unit == "pixel"):
            lacking, other = (entry, first) if entry.voxel_size.unit == "pixel" else (first, entry)
            found.append(
                f"{lacking.name} has no voxel size but {other.name} has {other.voxel_size}; structures may appear at "
                "different sizes"
            )
        elif _ratio(entry.voxel_size, first.voxel_size) > _MOST_RATIO:
            found.append(
                f"{name} has voxels of {entry.voxel_size} but {first.name} of {first.voxel_size}; bring both to one "
                "size with --set train.normalize.voxel_size=Z,Y,X"
            )
    return found


def _ratio(one: VoxelSize, other: VoxelSize) -> float:
    ratios = np.divide(one.to(other.unit).zyx, other.zyx)
    return float(max(ratios.max(), 1 / ratios.min()))
