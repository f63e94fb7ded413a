"""While a network learns on another grid, its owner counts in voxels of the images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.progress import (
    Annotate,
    AnnotationTaken,
    HeldOut,
    Inbox,
    Note,
    Pause,
    Previewed,
    PreviewPlane,
)
from napari_unet3d.engine.resampled_training import ResampledVolumes, text_of
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

FLAT = VoxelSize(2, 1, 1, "mm")


def volume(size: VoxelSize = FLAT, name: str = "a.nii") -> AnnotatedVolume:
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[2] = 1
    labels[2, 4:] = 2
    image = Volume(np.arange(6 * 64, dtype=np.float32).reshape(1, 6, 8, 8), size, name=name)
    return AnnotatedVolume(image, labels)


def moved(edges: str, *volumes: AnnotatedVolume) -> ResampledVolumes:
    return ResampledVolumes(volumes or (volume(),), VoxelSize.parse(edges))


def test_volumes_come_to_one_voxel_size_in_the_unit_of_the_first() -> None:
    second = volume(VoxelSize(2000, 1000, 2000, "um"), "b.nii")
    found = moved("2,2,2", volume(), second)
    assert found.volumes[0].image.voxel_size == VoxelSize(2, 2, 2, "mm")
    assert found.volumes[1].image.voxel_size.zyx == pytest.approx((2000, 2000, 2000))
    assert [v.image.shape for v in found.volumes] == [(6, 4, 4), (6, 4, 8)]
    assert found.changed == (0, 1)
    assert moved("2,1,1").changed == ()


def test_an_image_without_a_voxel_size_is_named() -> None:
    with pytest.raises(DataError, match=r"b\.tif has no voxel size"):
        moved("1,1,1mm", volume(), volume(VoxelSize(), "b.tif"))


def test_strokes_arrive_where_they_were_painted() -> None:
    source = volume()
    found = moved("1,2,2mm", source)
    box = (slice(4, 5), slice(1, 4), slice(5, 6))
    painted: NDArray[np.uint8] = np.full((1, 3, 1), 2, np.uint8)
    owner = Inbox()
    inbox = found.inbox(owner)
    inbox.put(Annotate(0, box, painted))
    inbox.put(Pause())
    command, pause = inbox.drain()

    assert isinstance(command, Annotate)
    assert command.box == (slice(8, 10), slice(0, 2), slice(2, 3))
    assert command.labels.tolist() == [[[2], [2]], [[2], [2]]]
    assert pause == Pause()
    assert source.labels[4].max() == 0  # the owner's array is left alone
    taken = found.event(AnnotationTaken(0, command.box, step=3))
    assert taken == AnnotationTaken(0, (slice(4, 5), slice(0, 4), slice(4, 6)), 3)


def test_strokes_elsewhere_in_a_voxel_still_count() -> None:
    found = moved("2,4,4mm")
    erased = found.command(Annotate(0, (slice(2, 3), slice(0, 1), slice(0, 1)), np.zeros((1, 1, 1), np.uint8)))
    assert isinstance(erased, Annotate)
    assert erased.labels.tolist() == [[[1]]]  # fifteen of sixteen are still background


@pytest.mark.parametrize("edges", ["1,2,2mm", "4,0.5,1mm", "2,1,1mm"])
def test_a_preview_has_the_place_and_the_shape_that_were_asked_for(edges: str) -> None:
    found = moved(edges)
    for axis, index, shape in ((0, 3, (8, 8)), (1, 7, (6, 8)), (2, 0, (6, 8))):
        asked = PreviewPlane(0, axis, index)
        there = found.command(asked)
        assert isinstance(there, PreviewPlane)
        labels: NDArray[np.unsignedinteger] = np.asarray(found.volumes[0].labels.take(there.index, axis=axis))
        shown = found.event(Previewed(1, 0, axis, there.index, labels))
        assert isinstance(shown, Previewed)
        assert (shown.axis, shown.index, shown.labels.shape) == (axis, index, shape)
    plane = found.command(PreviewPlane(0, 0, 2))
    assert isinstance(plane, PreviewPlane)
    back = found.event(Previewed(1, 0, 0, plane.index, np.asarray(found.volumes[0].labels[plane.index])))
    assert isinstance(back, Previewed)
    assert np.array_equal(back.labels, volume().labels[2])


def test_held_out_slices_are_told_as_the_painted_ones() -> None:
    finer, coarser = moved("1,1,1mm"), moved("6,1,1mm")
    told = finer.event(HeldOut(((0, 0, 4), (0, 0, 5), (0, 2, 7)), "why"))
    assert told == HeldOut(((0, 0, 2), (0, 2, 7)), "why")
    assert coarser.event(HeldOut(((0, 0, 0),), "why")) == HeldOut(((0, 0, 2),), "why")
    note = Note("else")
    assert finer.event(note) is note


def test_waiting_hands_on_too() -> None:
    found = moved("1,1,1mm")
    owner = Inbox()
    owner.put(PreviewPlane(0, 0, 2))
    assert found.inbox(owner).wait() == PreviewPlane(0, 0, 4)


def test_text_of_a_size_is_what_a_setting_takes() -> None:
    for size in (VoxelSize(0.1, 1 / 3, 2, "um"), VoxelSize(1, 2, 3)):
        assert VoxelSize.parse(text_of(size)) == size


def test_a_trainer_learns_on_the_new_grid(make_trainer: Callable[..., object]) -> None:
    trainer = make_trainer([moved("2,2,2mm").volumes[0]], steps=1, patch_size=(4, 4, 4), validation=0)
    list(trainer.fit())  # type: ignore[attr-defined]
    assert trainer.model().voxel_size == VoxelSize(2, 2, 2, "mm")  # type: ignore[attr-defined]
