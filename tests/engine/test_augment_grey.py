from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from napari_unet3d.engine.augment.grey import augment_grey
from napari_unet3d.engine.config import AugmentConfig

NOTHING = AugmentConfig(gain=0, offset=0, gamma=0, noise=0, blur=0)
EVERYTHING = AugmentConfig(gain=0.3, offset=0.2, gamma=0.3, noise=0.1, blur=2)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def patch_of(channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 7, 8, channels, generator=generator).to(dtype).movedim(-1, 0)


def test_zero_magnitudes_change_nothing() -> None:
    patch = patch_of(2)
    assert torch.equal(augment_grey(patch, NOTHING, rng(), intensity=[True, False]), patch)


def test_gain_is_the_same_for_all_features_of_an_image_channel() -> None:
    patch = patch_of(4)
    config = NOTHING.updated(gain=0.3)
    changed = augment_grey(patch, config, rng(), intensity=[True, False, True, False], channel_groups=[0, 0, 1, 1])
    gains = (changed / patch).flatten(1)
    torch.testing.assert_close(gains, gains[:, :1].expand_as(gains))
    assert gains[0, 0].item() == pytest.approx(gains[1, 0].item(), rel=1e-5)
    assert gains[2, 0].item() == pytest.approx(gains[3, 0].item(), rel=1e-5)
    assert abs(gains[0, 0] - gains[2, 0]) > 1e-3
    assert (gains - 1).abs().max() <= 0.3


def test_gain_and_offset_commute_with_features_of_degree_one() -> None:
    grey = patch_of(1)[0]
    features = [
        grey,
        torch.as_tensor(ndimage.gaussian_filter(grey, 1)),
        torch.as_tensor(ndimage.laplace(grey)),
    ]
    config = NOTHING.updated(gain=0.3, offset=0.2)
    changed = augment_grey(torch.stack(features), config, rng(), intensity=[True, True, False])
    again = changed[0].numpy()
    np.testing.assert_allclose(changed[1], ndimage.gaussian_filter(again, 1), atol=1e-5)
    np.testing.assert_allclose(changed[2], ndimage.laplace(again), atol=1e-5)
    assert abs((changed[0] - grey).mean().item()) > 1e-3


def test_offset_moves_grey_values_only() -> None:
    patch = patch_of(3)
    difference = augment_grey(patch, NOTHING.updated(offset=0.2), rng(), intensity=[True, False, True]) - patch
    torch.testing.assert_close(difference[0], difference[0, 0, 0, 0].expand(6, 7, 8))
    torch.testing.assert_close(difference[0], difference[2])
    assert 1e-3 < difference[0].abs().max() <= 0.2
    assert not difference[1].any()


def test_noise_goes_to_the_grey_value_of_each_image_channel() -> None:
    patch = torch.zeros(5, 20, 20, 20)
    sds = []
    for seed in range(40):
        changed = augment_grey(
            patch,
            NOTHING.updated(noise=0.5),
            rng(seed),
            intensity=[True, True, False, False, True],
            channel_groups=[0, 0, 0, 1, 1],
        )
        assert not changed[[1, 2, 3]].any()
        assert not torch.equal(changed[0], changed[4])
        sds += [changed[0].std().item(), changed[4].std().item()]
    assert max(sds) <= 0.52
    assert np.mean(sds) == pytest.approx(0.25, abs=0.07)  # uniform in 0..0.5: sd of the mean 0.016
    assert not patch.any()


def test_blur_equals_scipy_in_physical_units() -> None:
    patch = patch_of(1)
    config = NOTHING.updated(blur=2)
    changed = augment_grey(patch, config, rng(5), intensity=[True], voxel=(2.0, 1.0, 1.0))
    sd = float(rng(5).uniform(0, 2, 1)[0])
    expected = ndimage.gaussian_filter(patch[0].numpy(), (sd / 2, sd, sd), mode="mirror", radius=12)
    np.testing.assert_allclose(changed[0], expected, atol=2e-3)
    assert changed.std() < 0.8 * patch.std()


def test_gamma_keeps_range_and_order() -> None:
    patch = patch_of(2)
    changed = augment_grey(patch, NOTHING.updated(gamma=0.5), rng(), intensity=[True, True], channel_groups=[0, 1])
    for before, after in zip(patch, changed, strict=True):
        assert after.min().item() == pytest.approx(before.min().item(), abs=1e-5)
        assert after.max().item() == pytest.approx(before.max().item(), abs=1e-5)
        order = before.flatten().argsort()
        assert (after.flatten()[order].diff() >= 0).all()
        assert (after - before).abs().max() > 0.05


def test_blur_and_gamma_leave_features_alone() -> None:
    patch = patch_of(2)
    changed = augment_grey(patch, NOTHING.updated(gamma=0.5, blur=2), rng(), intensity=[True, False])
    assert torch.equal(changed, patch)


def test_a_constant_patch_stays_finite() -> None:
    changed = augment_grey(torch.full((1, 3, 4, 5), 2.0), EVERYTHING, rng(), intensity=[True])
    assert changed.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_dtype_layout_and_input_are_kept(dtype: torch.dtype, channels: int) -> None:
    patch = patch_of(channels, dtype)
    before = patch.clone()
    changed = augment_grey(patch, EVERYTHING, rng(), intensity=[True] * channels)
    assert changed.dtype == dtype
    assert changed.stride() == patch.stride()
    assert torch.equal(patch, before)
    assert not torch.equal(changed, before)


def test_the_same_generator_gives_the_same_patch() -> None:
    patch = patch_of(1)
    first, again, other = (augment_grey(patch, EVERYTHING, rng(s), intensity=[True]) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_single_plane_is_changed() -> None:
    patch = patch_of(1)[:, :1]
    changed = augment_grey(patch, EVERYTHING, rng(), intensity=[True])
    assert changed.shape == (1, 1, 7, 8)
    assert not torch.equal(changed, patch)
