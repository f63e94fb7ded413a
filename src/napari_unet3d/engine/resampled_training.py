"""Training on another voxel size than that of the images, while the owner goes on counting in voxels of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.progress import (
    Annotate,
    AnnotationTaken,
    Command,
    Event,
    HeldOut,
    Inbox,
    Previewed,
    PreviewPlane,
)
from napari_unet3d.engine.resampling import Resampling, resampled_volume, target_size
from napari_unet3d.engine.volume import AnnotatedVolume


class ResampledVolumes:
    """Annotated volumes brought to one voxel size, and the translation of commands and events.

    Parameters
    ----------
    volumes
        As they are; labels are copied.
    asked
        Voxel size to bring them to; in pixels it counts in the unit of the first image.

    Attributes
    ----------
    volumes
        On the new grids, computed where they are read.
    changed
        Indices of the volumes that had another voxel size.

    Raises
    ------
    DataError
        If a length is asked for but the voxels of an image have none.
    """

    def __init__(self, volumes: Sequence[AnnotatedVolume], asked: VoxelSize) -> None:
        asked = in_unit_of(asked, volumes[0].image.voxel_size)
        self._sources = [volume.labels.copy() for volume in volumes]
        self._resamplings: list[Resampling | None] = []
        moved = []
        for volume in volumes:
            target = target_size(asked, volume.image)
            new, resampling = (volume, None) if target is None else resampled_volume(volume, target)
            moved.append(new)
            self._resamplings.append(resampling)
        self.volumes = tuple(moved)
        self._asked: dict[tuple[int, int], int] = {}
        self.changed = tuple(i for i, resampling in enumerate(self._resamplings) if resampling is not None)

    def inbox(self, owner: Inbox) -> Inbox:
        """Hands on the commands in the owner's inbox, translated."""
        return _TranslatedInbox(owner, self)

    def command(self, command: Command) -> Command:
        """A command on the grid of the image as one on the new grid."""
        if isinstance(command, Annotate):
            return self._annotated(command)
        if isinstance(command, PreviewPlane):
            resampling = self._resamplings[command.volume]
            if resampling is not None:
                self._asked[command.volume, command.axis] = command.index
                there = resampling.axes[command.axis].inverse.nearest(np.array([command.index]))
                return replace(command, index=int(there[0]))
        return command

    def _annotated(self, command: Annotate) -> Annotate:
        resampling = self._resamplings[command.volume]
        if resampling is None:
            return command
        painted = self._sources[command.volume]
        painted[command.box] = command.labels
        box = resampling.inverse.cover(command.box)
        return Annotate(command.volume, box, resampling.labels(painted, box))

    def event(self, event: Event) -> Event:
        """An event on the new grid as one on the grid of the image."""
        if isinstance(event, HeldOut):
            places = dict.fromkeys(self._slice(*place) for place in event.slices)
            return replace(event, slices=tuple(places))
        resampling = self._resamplings[event.volume] if isinstance(event, Previewed | AnnotationTaken) else None
        if resampling is None:
            return event
        if isinstance(event, Previewed):
            plane = np.expand_dims(event.labels, event.axis)
            for i, axis in enumerate(resampling.axes):
                if i != event.axis:
                    plane = plane.take(axis.inverse.nearest(np.arange(axis.length)), axis=i)
            index = self._asked[event.volume, event.axis]  # nobody else asks
            return replace(event, index=index, labels=plane.squeeze(event.axis))
        if isinstance(event, AnnotationTaken):
            return replace(event, box=resampling.cover(event.box))
        return event

    def _slice(self, volume: int, axis: int, index: int) -> tuple[int, int, int]:
        """The painted slice of the image that lies in a slice of the new grid."""
        resampling = self._resamplings[volume]
        if resampling is None:
            return volume, axis, index
        covered = resampling.axes[axis].cover(slice(index, index + 1))
        planes = (self._sources[volume].take(i, axis=axis) for i in range(covered.start, covered.stop))
        most = int(np.argmax([np.count_nonzero(plane) for plane in planes]))
        return volume, axis, covered.start + most


def at_voxel_size(
    volumes: Sequence[AnnotatedVolume], size: VoxelSize | None, inbox: Inbox | None
) -> tuple[Sequence[AnnotatedVolume], Inbox | None, ResampledVolumes | None]:
    """Volumes, the inbox for whoever trains on them, and the translation of its events; as they are for no `size`."""
    if size is None:
        return volumes, inbox, None
    resampled = ResampledVolumes(volumes, size)
    return resampled.volumes, resampled.inbox(inbox or Inbox()), resampled


class _TranslatedInbox(Inbox):
    def __init__(self, owner: Inbox, volumes: ResampledVolumes) -> None:
        super().__init__()
        self._owner = owner
        self._volumes = volumes

    def put(self, command: Command) -> None:
        self._owner.put(command)

    def drain(self) -> Iterator[Command]:
        for command in self._owner.drain():
            yield self._volumes.command(command)

    def wait(self) -> Command:
        return self._volumes.command(self._owner.wait())


def in_unit_of(asked: VoxelSize, size: VoxelSize) -> VoxelSize:
    """Numbers without a unit in the unit of another voxel size."""
    return replace(asked, unit=size.unit) if asked.unit == "pixel" else asked


def text_of(size: VoxelSize) -> str:
    """A voxel size as `NormalizeConfig.voxel_size` takes it."""
    return ",".join(repr(float(edge)) for edge in size.zyx) + (size.unit if size.unit != "pixel" else "")
