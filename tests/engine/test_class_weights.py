from __future__ import annotations

import pytest

from napari_unet3d.engine.class_weights import balanced_weights, class_weights_for
from napari_unet3d.engine.errors import ConfigError


def test_balanced_weights_are_inverse_frequencies_with_mean_one() -> None:
    # inverse frequencies 1/10, 1/30, 1/60 = 6/60, 2/60, 1/60, mean 3/60
    assert balanced_weights([10, 30, 60]) == pytest.approx((2, 2 / 3, 1 / 3))


def test_classes_without_annotation_get_no_weight_and_do_not_change_the_others() -> None:
    assert balanced_weights([10, 0, 30, 60]) == pytest.approx((2, 0, 2 / 3, 1 / 3))
    assert balanced_weights([0, 0]) == (0, 0)


def test_settings_become_weights() -> None:
    assert class_weights_for("off", [10, 30]) is None
    assert class_weights_for("balanced", [10, 30]) == pytest.approx((1.5, 0.5))
    assert class_weights_for((1, 5), [10, 30]) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ((1, 2, 3), [10, 30], "3 entries but there are 2 classes"),
        ((0, 0), [10, 30], "make one of them positive"),
        ((0, 1), [10, 0], "make one of them positive"),
    ],
)
def test_useless_weights_are_refused(weights: tuple[float, ...], counts: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_weights_for(weights, counts)
