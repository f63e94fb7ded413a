"""Figures of a comparison, against figures worked out separately."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.distillation.comparison import Contender, ModelFigures, Scored, compare_models
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Event, Inbox, Predicted, Stop
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import Volume

Make = Callable[..., Any]
PLAIN = PredictConfig(device="cpu", precision="float32")


def compared(models: dict[str, TrainedModel], image: Volume, **options: Any) -> tuple[list[Event], Any]:
    contenders = [Contender(name, model, 1000 * n) for n, (name, model) in enumerate(models.items(), start=1)]
    running = compare_models(contenders, image, config=PLAIN, **options)
    events = []
    while True:
        try:
            events.append(next(running))
        except StopIteration as end:
            return events, end.value


def labels_of(model: TrainedModel, image: Volume) -> np.ndarray[Any, Any]:
    found = np.zeros(image.shape, np.uint8)
    list(Predictor(model, PLAIN).run(image, PredictionOutputs(found)))
    return found


def test_figures(make_teacher: Make, decided: Make, make_volume: Make) -> None:
    volume = make_volume()
    image, truth = volume.image, np.where(volume.image.read()[0] > 0.5, 2, 1).astype(np.uint8)
    truth[:, 0] = 0  # not known
    first, second = decided(make_teacher()), make_teacher(filters=2, steps=3)
    events, (one, two) = compared({"a": first, "b": second}, image, truth=truth, painted=volume.labels)
    assert len([event for event in events if isinstance(event, Predicted)]) >= 2
    ours, theirs = labels_of(first, image), labels_of(second, image)
    assert (one.name, one.agreement, two.agreement) == ("a", 1.0, pytest.approx(float((ours == theirs).mean())))
    scored = (truth > 0) & (volume.labels == 0)
    assert two.truth is not None
    assert two.truth.voxels == scored.sum()
    for score in two.truth.classes:
        a, b = (labels[scored] == score.class_id for labels in (theirs, truth))
        assert score.iou == pytest.approx((a & b).sum() / (a | b).sum())
    assert two.truth.mean_iou == two.truth.classes[1].iou
    assert one.held_out is None
    assert one.parameters == sum(p.numel() for p in first.network.parameters())
    assert one.operations > 2 * two.operations
    assert (one.file_bytes, two.file_bytes) == (1000, 2000)
    assert min(one.seconds, two.seconds) > 0
    assert one.memory_bytes >= 0


def test_held_out_labels(make_teacher: Make, make_volume: Make) -> None:
    volume, model = make_volume(), make_teacher()
    held = np.zeros_like(volume.labels)
    held[5] = volume.labels[5]
    _, (figures,) = compared({"a": model}, volume.image, held_out=held, truth=np.zeros_like(held))
    assert figures.held_out.voxels == 400
    assert figures.truth is None  # nothing is known


def test_plain_values() -> None:
    nothing = Scored((), math.nan, 0)
    figures = ModelFigures("a", nothing, None, 1.0, 1, 2, None, 0.5, 3)
    assert json.loads(json.dumps(figures.as_dict(), allow_nan=False))["held_out"]["mean_iou"] is None


def test_stopping(make_teacher: Make, make_volume: Make) -> None:
    model, inbox = make_teacher(), Inbox()
    inbox.put(Stop())
    _, figures = compared({"a": model, "b": model}, make_volume().image, inbox=inbox)
    assert figures == ()


def test_what_cannot_be_compared(make_teacher: Make, make_volume: Make) -> None:
    model, volume = make_teacher(), make_volume()
    other = make_teacher(volumes=[make_volume(ids=(1, 4))])
    with pytest.raises(ConfigError, match="compare models of the same classes"):
        compared({"a": model, "b": other}, volume.image)
    with pytest.raises(DataError, match="the truth: shape"):
        compared({"a": model}, volume.image, truth=volume.labels[1:])
