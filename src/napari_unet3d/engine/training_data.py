"""The annotated volumes of one training run: sources, hold-out and sampler, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.engine.augment.grey import augment_grey
from napari_unet3d.engine.augment.resample import sample
from napari_unet3d.engine.augment.warp import Warp, draw_warp
from napari_unet3d.engine.config import AugmentConfig, NetworkConfig, Triple
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.holdout import HoldOut
from napari_unet3d.engine.patch_shapes import halved_patches
from napari_unet3d.engine.patch_source import PatchSource
from napari_unet3d.engine.progress import Annotate, Box
from napari_unet3d.engine.sampling import Patch, PatchSampler
from napari_unet3d.engine.stage_times import StageTimes
from napari_unet3d.engine.volume import AnnotatedVolume, target_table

_ALL: Final = slice(None)

PlaneKey: TypeAlias = tuple[int, int, int]
"""Volume, axis and index of a plane."""


class Batch(NamedTuple):
    """Network input B F Z Y X and target B Z Y X (int64 class indices, `IGNORE_INDEX` elsewhere).

    `soft` (B C Z Y X, float32) is what teachers say, where a student learns from them; see `distillation.scores`.
    """

    input: Tensor
    target: Tensor
    soft: Tensor | None = None


class Placed(NamedTuple):
    """Where and how a patch is read."""

    volume: int
    box: Box
    """Part of the volume that holds all of it."""
    centre: Sequence[int]
    """Voxel of the box that becomes the middle of the patch."""
    warp: Warp


class TrainingData:
    """What a trainer draws batches from. It works on its own copies of the labels.

    Parameters
    ----------
    volumes
        At least one, all with the same number of channels.
    label_ids
        Class index -> label id.
    sources
        Network input of each volume.
    hold_out
        What is not trained on, made from `labels`.
    labels
        The copies that `hold_out` refers to and that `annotate` paints into; see `known_labels`.
    sampler
        Made from the training labels of `hold_out`.
    """

    def __init__(
        self,
        volumes: Sequence[AnnotatedVolume],
        label_ids: Sequence[int],
        sources: Sequence[PatchSource],
        labels: Sequence[NDArray[np.unsignedinteger]],
        hold_out: HoldOut,
        sampler: PatchSampler,
        network: NetworkConfig,
        augment: AugmentConfig,
        device: torch.device,
    ) -> None:
        self.volumes = volumes
        self.sources = sources
        self.hold_out = hold_out
        self.times = StageTimes()
        """Of data, augmentation and validation."""
        self._ids = tuple(label_ids)
        self._labels = labels
        self._sampler = sampler
        self._network = network
        self._augment = augment
        self._device = device
        self._table = torch.from_numpy(target_table(label_ids).astype(np.int64)).to(device)
        self._intensity = intensity_channels(network)
        self._groups = [c // (network.body_channels // network.in_channels) for c in range(network.body_channels)]
        self._voxels = [volume.image.voxel_size for volume in volumes]
        self._train = [
            self._as_tensor(hold_out.training_labels(i)).to(source.kept_on or "cpu") for i, source in enumerate(sources)
        ]
        self._planes: dict[PlaneKey, NDArray[np.unsignedinteger]] | None = None

    # --- training -----------------------------------------------------------------------------------------

    def batch(self, rng: np.random.Generator, size: int, share: slice = _ALL) -> Batch:
        """Draw patches of one shape around annotated voxels, deformed and with changed grey values.

        Of the `size` patches only those of `share` are read. Each has random numbers of its own, so that it is the same
        whoever reads it.
        """
        drawn = []
        with self.times.measure("data"):
            patches = patches_with_random_numbers(self._sampler.draw_batch(rng, size), rng)
        for patch, own in patches[share]:
            drawn.append(self._patch(self._place(patch, own), own))
        inputs, labels = zip(*drawn, strict=True)
        return Batch(stacked(inputs), self._table[torch.stack(labels).long()])

    def _place(self, patch: Patch, rng: np.random.Generator) -> Placed:
        """Draw the geometry of a patch."""
        voxel = self._voxels[patch.volume].relative
        warp = draw_warp(self._augment, patch.size, voxel, rng)
        centre = [start + size // 2 for start, size in zip(patch.start, patch.size, strict=True)]
        box = warp.bounds(centre, self.sources[patch.volume].shape)
        inside = [middle - part.start for middle, part in zip(centre, box, strict=True)]
        return Placed(patch.volume, box, inside, warp)

    def _patch(self, placed: Placed, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """C Z Y X network input with changed grey values, and Z Y X label ids."""
        volume, box, inside, warp = placed
        with self.times.measure("data"):
            values, labels = self.sources[volume].read(box), self._labels_in(volume, box)
        with self.times.measure("augmentation"):
            grey, painted = sample(values, labels, inside, warp)
            voxel = self._voxels[volume].relative
            grey = augment_grey(
                grey, self._augment, rng, intensity=self._intensity, channel_groups=self._groups, voxel=voxel
            )
        return grey, painted

    def _labels_in(self, volume: int, box: Box) -> Tensor:
        """Z Y X label ids to train on, on the device."""
        return self._train[volume][box].to(self._device)

    def leave_device(self) -> bool:
        """Move volumes and labels that are held by the device into the computer's memory; whether there were any."""
        has_left = [source.leave_device() for source in self.sources]
        if any(has_left):
            self._train = [labels.cpu() for labels in self._train]
        return any(has_left)

    def halve_patches(self) -> bool:
        """Draw patches of about half the voxels from now on; whether they can get smaller."""
        shapes = halved_patches(describe(self._network), self._sampler.shapes)
        if shapes is None:
            return False
        self._sampler.shapes = shapes
        return True

    @property
    def patch_size(self) -> Triple:
        """Z Y X voxels of a patch on slices across the first axis."""
        return self._sampler.shapes[0]

    def class_counts(self) -> list[int]:
        """Voxels annotated for training, for each class."""
        counts = sum(np.bincount(labels.ravel(), minlength=max(self._ids) + 1) for labels in self._sampler.labels)
        return [int(counts[label_id]) for label_id in self._ids]  # type: ignore[index]  # an array: there is a volume

    @property
    def has_annotation(self) -> bool:
        """Whether there is a voxel to train on."""
        return bool(self._sampler.shares)

    # --- validation ---------------------------------------------------------------------------------------

    @property
    def has_validation(self) -> bool:
        """Whether anything is held out."""
        return bool(self.hold_out.units)

    def held_out_planes(self) -> Iterator[tuple[int, int, int, NDArray[np.unsignedinteger]]]:
        """Volume, axis, index and labels of every plane with held-out annotation (0 = not scored)."""
        if self._planes is None:
            self._planes = {}
            for volume in range(len(self.volumes)):
                self._add_planes(self._planes, volume)
        for (volume, axis, index), labels in self._planes.items():
            yield volume, axis, index, labels

    def _add_planes(self, planes: dict[PlaneKey, NDArray[np.unsignedinteger]], volume: int) -> None:
        units = [unit for unit in self.hold_out.measured_units if unit.volume == volume]
        labels = self.hold_out.validation_labels(volume) if units else self._labels[volume]
        for unit in units:
            axis = 0 if unit.axis is None else unit.axis
            rows, columns = (side for i, side in enumerate(unit.box) if i != axis)
            for index in range(unit.start[axis], unit.stop[axis]):
                painted = labels[unit.box].take(index - unit.start[axis], axis=axis)
                if painted.any():
                    empty = np.zeros_like(labels.take(0, axis=axis))
                    plane = planes.setdefault((volume, axis, index), empty)
                    # several pieces may share a plane, and their boxes may overlap
                    plane[rows, columns] = np.where(painted, painted, plane[rows, columns])

    # --- new annotation -----------------------------------------------------------------------------------

    def annotate(self, command: Annotate) -> list[int]:
        """Take over painted labels; gives ids in them that are no class of this run (those are not trained on)."""
        volume = command.volume
        self._labels[volume][command.box] = known_labels(command.labels, self._ids)
        held_out = self.hold_out.units
        self.hold_out = self.hold_out.extended([(volume, command.box)])
        newly_held_out = [unit.box for unit in self.hold_out.units if unit not in held_out]
        # the painted box last: the sampler serves first what was new in the last box
        for box in (*newly_held_out, command.box):
            painted = self.hold_out.training_labels(volume, box)
            self._sampler.update_box(volume, box, painted)
            self._train[volume][box] = self._as_tensor(painted).to(self._train[volume].device)
        self._planes = None
        return [int(i) for i in np.unique(command.labels) if i and i not in self._ids]

    def _as_tensor(self, labels: NDArray[np.unsignedinteger]) -> Tensor:
        """Label ids as a signed tensor where they are many, because uint16 knows few operations."""
        return torch.from_numpy(labels.astype(np.int32 if max(self._ids) > 255 else np.uint8))


def patches_with_random_numbers(
    patches: Sequence[Patch], rng: np.random.Generator
) -> list[tuple[Patch, np.random.Generator]]:
    """Each patch with a generator that depends on its place in the batch, not on what is done with the others."""
    seeds = rng.integers(2**63, size=len(patches))
    return [(patch, np.random.default_rng(seed)) for patch, seed in zip(patches, seeds, strict=True)]


def stacked(patches: Sequence[Tensor]) -> Tensor:
    """C Z Y X patches as B C Z Y X, channels last in memory as before, for convolutions run fastest there."""
    return torch.stack([patch.movedim(0, -1) for patch in patches]).movedim(-1, 1)


def known_labels(labels: NDArray[np.unsignedinteger], label_ids: Sequence[int]) -> NDArray[np.unsignedinteger]:
    """A copy in which ids that are no class count as not annotated; uint8, or uint16 where an id exceeds 255."""
    known = np.where(np.isin(labels, label_ids), labels, 0)
    return known.astype(np.uint16 if max(label_ids) > 255 else np.uint8)


def intensity_channels(network: NetworkConfig) -> list[bool]:
    """For each channel that enters the body, whether it is a grey value or a smoothed one."""
    if network.features == "none":
        return [True] * network.body_channels
    from napari_unet3d.engine.filters import INTENSITY

    per_image_channel = [True, *(INTENSITY * len(network.feature_scales))]
    return per_image_channel * network.in_channels
