"""Somebody who clicks Stop does not wait for a validation to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d import train_events
from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.engine.plane_predictor import PlanePredictor
from napari_unet3d.engine.progress import Inbox, Stepped, Stop, Validated


def test_a_stop_during_a_validation_ends_it_after_the_present_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 16, 16), np.uint8)
    labels[2::4] = 1
    labels[2::4, 4:12, 4:12] = 2
    image = (50 * labels + rng.normal(0, 5, labels.shape)).astype(np.float32)
    inbox = Inbox()
    looked_at: list[tuple[int, int, int]] = []
    predict = PlanePredictor.labels

    def stop_at_the_first(self: PlanePredictor, *plane: int) -> Any:
        looked_at.append((plane[0], plane[1], plane[2]))
        inbox.put(Stop())
        return predict(self, *plane)

    monkeypatch.setattr(PlanePredictor, "labels", stop_at_the_first)
    settings = {"levels": 2, "filters": 4, "features": "none"}
    config = TrainConfig(threads=1, validation=0.4)
    run = train_events(image, labels, network_settings=settings, config=config, inbox=inbox)
    events = list(run)
    assert len([event for event in events if isinstance(event, Stepped)]) >= 1
    assert len(looked_at) == 1
    assert not any(isinstance(event, Validated) for event in events)
    assert run.model().history.validations == ()
