from __future__ import annotations

import math

import pytest

from napari_unet3d.engine.scales import feature_radius, smoothing_reach, smoothing_steps


def test_steps_add_up_to_the_scales() -> None:
    # 1, then sqrt(4 - 1), then sqrt(16 - 4); the order given does not matter
    assert smoothing_steps([4.0, 1.0, 2.0]) == pytest.approx([1.0, math.sqrt(3), math.sqrt(12)])


@pytest.mark.parametrize(("sigma", "voxels"), [(1.0, 3), (0.5, 2), (0.1, 1), (2.4, 8)])
def test_gaussians_end_at_three_deviations(sigma: float, voxels: int) -> None:
    assert smoothing_reach(sigma) == voxels


def test_radius_counts_every_step_and_a_difference() -> None:
    # in plane 3 + ceil(3 * 1.732) + 1; across, with voxels twice as long, ceil(1.5) + ceil(2.598) + 1
    assert feature_radius([1.0, 2.0], (2.0, 1.0, 1.0)) == (6, 10, 10)


def test_no_scales_need_one_voxel() -> None:
    assert feature_radius([], (1.0, 1.0, 1.0)) == (1, 1, 1)
