"""The annotated volumes of one training run: sources, hold-out and sampler, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.engine.augment.grey import augment_grey
from napari_unet3d.engine.augment.resample import sample
from napari_unet3d.engine.augment.warp import draw_warp
from napari_unet3d.engine.config import AugmentConfig, NetworkConfig
from napari_unet3d.engine.holdout import HoldOut
from napari_unet3d.engine.patch_source import PatchSource
from napari_unet3d.engine.progress import Annotate
from napari_unet3d.engine.sampling import Patch, PatchSampler
from napari_unet3d.engine.volume import AnnotatedVolume, target_table


class Batch(NamedTuple):
    """Network input B F Z Y X and target B Z Y X (int64 class indices, `IGNORE_INDEX` elsewhere)."""

    input: Tensor
    target: Tensor


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
        The copies that `hold_out` refers to and that `annotate` paints into.
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
        self._ids = tuple(label_ids)
        self._labels = labels
        self._sampler = sampler
        self._augment = augment
        self._device = device
        self._table = torch.from_numpy(target_table(label_ids).astype(np.int64)).to(device)
        self._intensity = intensity_channels(network)
        self._groups = [
            c // (network.body_channels // network.in_channels) for c in range(network.body_channels)
        ]
        self._voxels = [volume.image.voxel_size for volume in volumes]
        self._train = [self._on_device(hold_out.training_labels(i)) for i in range(len(volumes))]
        self._refresh_validation()

    # --- training -----------------------------------------------------------------------------------------

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw patches of one shape around annotated voxels, deformed and with changed grey values."""
        drawn = [self._patch(patch, rng) for patch in self._sampler.draw_batch(rng, size)]
        inputs, labels = zip(*drawn, strict=True)
        # stacking B C Z Y X directly would lose the channels-last memory, in which convolutions run fastest
        stacked = torch.stack([patch.movedim(0, -1) for patch in inputs]).movedim(-1, 1)
        return Batch(stacked, self._table[torch.stack(labels).long()])

    def _patch(self, patch: Patch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        source, labels = self.sources[patch.volume], self._train[patch.volume]
        voxel = self._voxels[patch.volume].relative
        warp = draw_warp(self._augment, patch.size, voxel, rng)
        centre = [start + size // 2 for start, size in zip(patch.start, patch.size, strict=True)]
        box = warp.bounds(centre, source.shape)
        inside = [middle - part.start for middle, part in zip(centre, box, strict=True)]
        grey, painted = sample(source.read(box), labels[box], inside, warp)
        grey = augment_grey(
            grey, self._augment, rng, intensity=self._intensity, channel_groups=self._groups, voxel=voxel
        )
        return grey, painted

    def class_counts(self) -> list[int]:
        """Voxels annotated for training, for each class."""
        counts = sum(
            np.bincount(labels.ravel(), minlength=max(self._ids) + 1) for labels in self._sampler.labels
        )
        return [int(counts[label_id]) for label_id in self._ids]  # type: ignore[index]  # an array: there is a volume

    # --- validation ---------------------------------------------------------------------------------------

    def held_out_planes(self) -> Iterator[tuple[int, int, int, NDArray[np.unsignedinteger]]]:
        """Planes to validate on: volume, axis, index and the label ids to score there (0 = not scored)."""
        for (volume, axis, index), labels in self._planes:
            yield volume, axis, index, labels

    @property
    def has_validation(self) -> bool:
        """Whether anything is held out."""
        return bool(self._planes)

    def _refresh_validation(self) -> None:
        self._planes = []
        for volume in range(len(self.volumes)):
            units = [unit for unit in self.hold_out.units if unit.volume == volume]
            if not units:
                continue
            labels = self.hold_out.validation_labels(volume)
            for unit in units:
                axis = 0 if unit.axis is None else unit.axis
                for index in range(unit.start[axis], unit.stop[axis]):
                    plane = np.zeros_like(labels.take(index, axis=axis))
                    within = [side for i, side in enumerate(unit.box) if i != axis]
                    plane[within[0], within[1]] = labels[unit.box].take(index - unit.start[axis], axis=axis)
                    if plane.any():
                        self._planes.append(((volume, axis, index), plane))

    # --- new annotation -----------------------------------------------------------------------------------

    def annotate(self, command: Annotate) -> list[int]:
        """Take over painted labels; gives ids in them that are no class of this run (those are not trained on)."""
        labels = self._labels[command.volume]
        labels[command.box] = command.labels
        held_out = self.hold_out.units
        self.hold_out = self.hold_out.extended([(command.volume, command.box)])
        if self.hold_out.units != held_out:
            self._sampler.update(command.volume, self.hold_out.training_labels(command.volume))
            self._train[command.volume] = self._on_device(self._sampler.labels[command.volume])
        else:
            painted = self.hold_out.training_labels(command.volume, command.box)
            self._sampler.update_box(command.volume, command.box, painted)
            self._train[command.volume][command.box] = self._on_device(painted)
        self._refresh_validation()
        return [int(i) for i in np.unique(command.labels) if i and i not in self._ids]

    def _on_device(self, labels: NDArray[np.unsignedinteger]) -> Tensor:
        """Label ids as a signed tensor (uint16 knows few operations); ids beyond the classes count as 0."""
        known = np.where(np.isin(labels, self._ids), labels, 0)
        wide = known.astype(np.int32) if max(self._ids) > 255 else known.astype(np.uint8)
        return torch.from_numpy(wide).to(self._device)


def intensity_channels(network: NetworkConfig) -> list[bool]:
    """For each channel that enters the body, whether it is a grey value or a smoothed one."""
    if network.features == "none":
        return [True] * network.body_channels
    from napari_unet3d.engine.filters import INTENSITY

    per_image_channel = [True, *(INTENSITY * len(network.feature_scales))]
    return per_image_channel * network.in_channels
