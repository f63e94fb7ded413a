from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.painted_windows import has_painted_window, lacking_windows


def painted(*boxes: tuple[Any, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    labels = np.zeros((14, 20, 30), np.uint8)
    for box in boxes:
        labels[box] = 2
    return labels


def test_windows_are_found_in_planes_along_each_axis() -> None:
    area = slice(2, 13)
    assert has_painted_window([painted((3, area, area))])
    assert has_painted_window([painted(), painted((area, 3, area))])
    assert has_painted_window([painted((area, area, 3))])
    # eleven voxels an edge, and one missing
    assert not has_painted_window([painted((3, slice(2, 12), slice(None)))])
    gap = painted((3, area, area))
    gap[3, 7, 7] = 0
    assert not has_painted_window([gap])
    # many voxels in a plane, but strokes
    assert not has_painted_window([painted((3, slice(0, 20, 2), slice(None)))])
    assert not has_painted_window([])


def problem(loss: str, labels: np.ndarray[Any, Any], patch: tuple[int, int, int] = (4, 16, 16), edge: int = 0) -> Any:
    return lacking_windows(TrainConfig.model_validate({"loss": loss}), [labels], patch, (edge, edge, edge))


def test_what_is_missing_is_told() -> None:
    area, strokes = painted((3,)), painted((3, slice(0, 20, 2)))
    assert problem("dice", strokes) is None
    assert problem("hybrid", area) is None
    assert problem("ms_ssim", area) is None
    assert problem("ms_ssim", painted()) is None
    assert "paint areas without gaps" in problem("hybrid", strokes)
    with pytest.raises(ConfigError, match="paint areas without gaps"):
        problem("ms_ssim", strokes)
    assert problem("hybrid", area, (4, 16, 11)) is None
    assert "raise train.patch_size" in problem("hybrid", area, (4, 16, 10))
    with pytest.raises(ConfigError, match=r"raise train\.patch_size"):
        problem("ms_ssim", area, (4, 16, 16), edge=3)
    without = TrainConfig(loss="hybrid", loss_weights=(1, 0, 1))
    assert lacking_windows(without, [strokes], (4, 8, 8), (0, 0, 0)) is None
