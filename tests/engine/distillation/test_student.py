"""Shares of operations, and the networks chosen for them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.distillation.student import operations_on, parse_share, smaller_network
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config

CUBE, FLAT = VoxelSize(1, 1, 1), VoxelSize(10, 1, 1)


def test_operations_by_hand() -> None:
    # one level, 1 -> 2 -> 2 filters of 3 x 3 x 3, and a head of 2 x 2: 27 * 2 + 27 * 4 + 4 at each voxel
    network = UNetConfig(levels=1, filters=2)
    assert operations_on(network, (4, 5, 6)) == 120 * (54 + 108 + 4)
    # a size that is no multiple of the strides is filled up
    deeper = UNetConfig(levels=2, filters=2)
    assert operations_on(deeper, (7, 7, 7)) == operations_on(deeper, (8, 8, 8))


@pytest.mark.parametrize(
    ("text", "share"), [("1/8", Fraction(1, 8)), (" 0.25 ", Fraction(1, 4)), ("1/3", Fraction(1, 3))]
)
def test_shares(text: str, share: Fraction) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "0", "1", "8", "-1/8", "1/0", "an eighth", "nan", "inf"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1, such as 1/8"):
        parse_share(text)


@pytest.mark.parametrize("voxel_size", [CUBE, FLAT], ids=["cubes", "flat"])
@pytest.mark.parametrize("share", ["1/2", "1/4", "1/8", "1/16"])
@pytest.mark.parametrize(
    "preset", ["fast", "large", "cicek2016", "keras3d", "framework3d", "unet2d-elu", "unet3plus-ds-cgm-3d"]
)
def test_the_share_is_kept_and_used(preset: str, share: str, voxel_size: VoxelSize) -> None:
    teacher, wanted = network_config(preset, classes=3).for_voxels(voxel_size), parse_share(share)
    shape = (48, 60, 64)
    student = smaller_network(teacher, voxel_size, wanted, shape)
    found = Fraction(operations_on(student, shape), operations_on(teacher, shape))
    assert wanted / 4 < found <= wanted
    assert (student.classes, student.head, student.in_channels) == (3, teacher.head, teacher.in_channels)
    assert not student.deep_supervision
    assert student == smaller_network(teacher, voxel_size, wanted, shape)


def test_filters_suit_processors_where_they_can() -> None:
    student = smaller_network(network_config("fast").for_voxels(CUBE), CUBE)
    assert all(count % 8 == 0 for count in student.filters_per_level)


def test_costly_features_are_left_out_and_a_level_is_added() -> None:
    teacher = network_config("fast").for_voxels(CUBE)
    assert teacher.features == "scale_space"
    eighth, most = (smaller_network(teacher, CUBE, Fraction(share)) for share in ("1/8", "9/10"))
    assert (eighth.features, eighth.levels) == ("none", teacher.levels + 1)
    assert (most.features, most.levels) == ("scale_space", teacher.levels)


def test_settings_of_single_levels_follow_the_levels() -> None:
    teacher = UNetConfig(
        levels=3, filters=(16, 32, 64), convolutions=(2, 2, 3), dropout=(0.0, 0.1, 0.2), features="scale_space"
    ).for_voxels(FLAT)
    student = smaller_network(teacher, FLAT)
    assert isinstance(student, UNetConfig)
    assert student.levels == 4
    assert student.dropout == (0.0, 0.1, 0.2, 0.2)
    build_network(student)


def test_a_narrow_teacher_gives_a_narrower_student() -> None:
    teacher = UNetConfig(levels=2, filters=4)
    student = smaller_network(teacher, CUBE, Fraction(1, 2))
    assert max(student.filters_per_level) <= 8
    assert operations_on(student, (64, 64, 64)) <= operations_on(teacher, (64, 64, 64)) / 2


def test_branches_become_narrower_too() -> None:
    teacher = UNet3PlusConfig(filters=16, levels=3, branch_filters=16)
    student = smaller_network(teacher, CUBE)
    assert isinstance(student, UNet3PlusConfig)
    assert student.branch_filters is not None
    assert student.branch_filters < 16


def test_nothing_smaller_is_left() -> None:
    with pytest.raises(ConfigError, match="it is small already; give a larger share"):
        smaller_network(UNetConfig(levels=2, filters=1), CUBE, Fraction(1, 16))
