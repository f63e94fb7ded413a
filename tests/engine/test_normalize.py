from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from napari_unet3d.engine.config import NormalizeConfig
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.normalize import Normalization, fit_normalization
from napari_unet3d.engine.volume import Volume


def _fit(values: Any, **config: Any) -> Normalization:
    return fit_normalization([Volume.from_array(np.asarray(values))], NormalizeConfig(**config))


def _ramp(dtype: Any = np.float32) -> NDArray[Any]:
    """The numbers 0..100 as Z Y X."""
    return np.arange(101).astype(dtype).reshape(1, 1, 101)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"method": "percentile", "low": 10, "high": 90}, {10: -1, 50: 0, 90: 1, 100: 1.25}),
        # 0..100 has mean 50 and variance (101^2 - 1) / 12 = 850
        ({"method": "zscore"}, {50: 0, 100: 50 / 850**0.5}),
        ({"method": "minmax"}, {0: 0, 25: 0.25, 100: 1}),
        ({"method": "window", "low": 20, "high": 60}, {0: 0, 20: 0, 40: 0.5, 60: 1, 100: 1}),
        ({"method": "none"}, {0: 0, 7: 7, 100: 100}),
    ],
)
def test_methods(config: dict[str, Any], expected: dict[int, float]) -> None:
    result = _fit(_ramp(), **config).apply(_ramp()[None])[0, 0, 0]
    assert {value: pytest.approx(result[value], abs=1e-6) for value in expected} == expected


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", ">u4", "i8", "f2", ">f4", "f8", "g"])
def test_every_dtype_gives_the_same(dtype: str) -> None:
    grey = _ramp(dtype)
    result = _fit(grey, low=0, high=100).apply(grey[None])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0, 0, 0], np.linspace(-1, 1, 101), atol=1e-6)
    np.testing.assert_array_equal(grey, _ramp(dtype))  # the image is not touched


def test_boolean_images() -> None:
    grey = np.array([[[False, True, True]]])
    np.testing.assert_allclose(_fit(grey, low=0, high=100).apply(grey[None])[0, 0, 0], [-1, 1, 1])


def test_views_are_taken() -> None:
    grey = np.arange(24.0).reshape(1, 2, 3, 4)
    flipped = grey[:, ::-1, :, ::2]
    np.testing.assert_array_equal(_fit(grey).apply(flipped), _fit(grey).apply(flipped.copy()))


def test_infinite_and_missing_values_count_as_the_median() -> None:
    grey = _ramp()
    grey[0, 0, [0, 1, 2]] = np.nan, np.inf, -np.inf
    fitted = _fit(grey, method="minmax")
    # 3..100 are left, their median is 51.5
    np.testing.assert_allclose(fitted.apply(grey[None])[0, 0, 0, :4], [0.5, 0.5, 0.5, 0], atol=1e-6)


def test_a_hot_pixel_is_kept_within_ten() -> None:
    grey = _ramp()
    fitted = _fit(grey)
    grey[0, 0, :2] = 1e30, -1e30
    np.testing.assert_allclose(fitted.apply(grey[None])[0, 0, 0, :2], [10, -10], rtol=1e-5)


@pytest.mark.parametrize("method", ["percentile", "zscore", "minmax"])
@pytest.mark.parametrize("value", [0, 7.5, -3e38])
def test_constant_image_is_refused(method: str, value: float) -> None:
    with pytest.raises(DataError, match="is constant"):
        _fit(np.full((2, 3, 4), value), method=method)


def test_image_without_finite_values_is_refused() -> None:
    with pytest.raises(DataError, match="no finite value"):
        _fit(np.full((2, 3, 4), np.nan))


def test_the_constant_channel_is_named() -> None:
    with pytest.raises(DataError, match="channel 1 of image is constant"):
        _fit(np.stack([np.arange(8).reshape(2, 2, 2), np.zeros((2, 2, 2))]))


def test_a_few_bright_spots_on_black() -> None:
    grey = np.zeros((10, 20, 20))
    grey[5, 5, 5] = 8
    result = _fit(grey).apply(grey[None])[0]
    assert (result[5, 5, 5], result[0, 0, 0]) == (1, -1)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_huge_and_tiny_values(scale: float) -> None:
    grey = _ramp(np.float64) * scale
    np.testing.assert_allclose(
        _fit(grey, low=0, high=100).apply(grey[None])[0, 0, 0], np.linspace(-1, 1, 101), atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_small_differences_between_large_numbers(dtype: Any) -> None:
    grey = _ramp(dtype) + dtype(2_000_000_000)
    np.testing.assert_allclose(
        _fit(grey, low=0, high=100).apply(grey[None])[0, 0, 0], np.linspace(-1, 1, 101), atol=1e-6
    )


def test_values_too_far_apart_for_arithmetic() -> None:
    with pytest.raises(DataError, match="too far apart"):
        _fit(np.array([[[-1.7e308, 0, 1.7e308]]]), method="minmax")


def test_each_channel_is_fitted_by_itself() -> None:
    grey = np.stack([_ramp(), 5 + 2 * _ramp(), -_ramp()])
    result = _fit(grey, low=0, high=100).apply(grey)
    np.testing.assert_allclose(result[0], result[1], atol=1e-6)
    np.testing.assert_allclose(result[0], -result[2], atol=1e-6)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(DataError, match=r"has 3 channels, the model needs 1; .*--axes"):
        _fit(_ramp()).apply(np.zeros((3, 1, 1, 101)))


def test_several_images_are_fitted_together() -> None:
    images = [Volume.from_array(_ramp()), Volume.from_array(_ramp() + 100)]
    fitted = fit_normalization(images, NormalizeConfig(method="minmax"))
    assert fitted.apply(np.full((1, 1, 1, 1), 50.0)) == 0.25


class _Counting:
    """A lazy image that computes its values and counts them; every plane but the first few has two halves."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.uint8)
        self.read = 0

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]:
        z, y, x = (np.arange(n)[part] for n, part in zip(self.shape[1:], index[1:], strict=True))
        self.read += z.size * y.size * x.size
        right = (x >= self.shape[3] // 2) & (z >= 3)[:, None, None] & (y >= 0)[:, None]
        return np.asarray((right * 200)[None], np.uint8)


@pytest.mark.parametrize(
    "shape", [(1, 1000, 5000, 5000), (1, 50, 40_000, 40_000), (1, 10**6, 30, 40), (1, 200, 512, 512)]
)
def test_large_images_are_sampled_all_over_but_not_read(shape: tuple[int, ...]) -> None:
    image = _Counting(*shape)
    fitted = fit_normalization([Volume(image)], NormalizeConfig())
    assert 500_000 < image.read <= 4_000_000
    np.testing.assert_allclose(fitted.apply(np.array([0, 200]).reshape(1, 1, 1, 2))[0, 0, 0], [-1, 1], atol=1e-6)


def test_a_sample_is_like_the_whole() -> None:
    grey = np.random.default_rng(0).normal(100, 20, (20, 500, 600)).astype(np.float32)
    fitted = _fit(grey, method="zscore").channels[0]
    assert fitted.offset == pytest.approx(100, abs=0.1)
    assert fitted.factor == pytest.approx(1 / 20, rel=0.01)


def test_zarr_and_numpy_give_the_same() -> None:
    grey = np.random.default_rng(0).integers(0, 1000, (3, 40, 50), dtype=np.uint16)
    lazy = zarr.array(grey, chunks=(2, 16, 16))
    assert fit_normalization([Volume.from_array(lazy)], NormalizeConfig()) == _fit(grey)
