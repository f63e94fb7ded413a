"""What is said of several volumes before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.pair_checks import check_pairs
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

MM = VoxelSize(1, 1, 1, "mm")


def pair(
    name: str = "a.tif",
    ids: Sequence[int] = (1, 2),
    size: VoxelSize = MM,
    channels: int = 1,
    dims: int = 3,
) -> AnnotatedVolume:
    labels = np.zeros((1 if dims == 2 else 4, 5, 5), np.uint8)
    for column, label_id in enumerate(ids):
        labels[0, :, column] = label_id
    image = Volume(np.zeros((channels, *labels.shape), np.uint16), size, spatial_dims=dims, name=name)
    return AnnotatedVolume(image, labels)


def test_facts_of_each_volume() -> None:
    facts, warnings = check_pairs([pair(), pair("b.tif", (2, 1, 1))], validation=[1])
    assert warnings == []
    first, second = facts
    assert (first.name, first.shape, first.channels, first.dtype) == ("a.tif", (4, 5, 5), 1, "uint16")
    assert first.counts == {1: 5, 2: 5}
    assert first.annotated_share == 0.1
    assert second.counts == {1: 10, 2: 5}
    assert (first.is_validation, second.is_validation) == (False, True)


def test_a_single_volume_is_nothing_to_warn_of() -> None:
    facts, warnings = check_pairs([pair(ids=())])
    assert facts[0].annotated_share == 0
    assert warnings == []


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (pair("b.tif", channels=2), "pair 2 (b.tif) has 2 channels but a.tif has 1; "),
        (pair("b.tif", dims=2), "pair 2 (b.tif) is 2D but a.tif is 3D; "),
        (pair("b.tif", ids=()), "pair 2 (b.tif) is for validation but not annotated, "),
    ],
)
def test_what_cannot_be_trained_on_together_is_named(second: AnnotatedVolume, said: str) -> None:
    with pytest.raises(DataError) as raised:
        check_pairs([pair(), second], validation=[1])
    assert str(raised.value).startswith(said)


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(DataError, match="all volumes are for validation"):
        check_pairs([pair()], validation=[0])


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (pair("b.tif", ids=()), "pair 2 (b.tif) has no annotated voxel: nothing is learnt from it"),
        (
            pair("b.tif", ids=(1, 3, 9)),
            "pair 2 (b.tif) has the ids 3, 9, which no volume to train on has: they are not scored",
        ),
        (
            pair("b.tif", size=VoxelSize()),
            "b.tif has no voxel size but a.tif has 1 x 1 x 1 mm; structures may appear at different sizes",
        ),
        (
            pair("b.tif", size=VoxelSize(1000, 1000, 700, "um")),
            "pair 2 (b.tif) has voxels of 1000 x 1000 x 700 um but a.tif of 1 x 1 x 1 mm; bring both to one size with "
            "--set train.normalize.voxel_size=Z,Y,X",
        ),
    ],
)
def test_what_is_hardly_meant_is_told(second: AnnotatedVolume, said: str) -> None:
    is_validation = 9 in second.label_ids
    _, warnings = check_pairs([pair(), second], validation=[1] if is_validation else [])
    assert warnings == [said]


def test_voxel_sizes_may_differ_where_all_are_resampled() -> None:
    assert check_pairs([pair(), pair(size=VoxelSize(9, 9, 9, "mm"))], is_resampled=True)[1] == []


def test_sizes_that_differ_a_little_are_alike() -> None:
    assert check_pairs([pair(), pair(size=VoxelSize(1.2, 1, 0.9, "mm"))])[1] == []
