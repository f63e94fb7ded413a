"""Tiny teachers, trained and untrained, and distillations from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from napari_unet3d.engine.config import DistillConfig, TrainConfig, UNetConfig
from napari_unet3d.engine.distillation.distiller import Distiller
from napari_unet3d.engine.distillation.teacher import Teacher
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.volume import AnnotatedVolume

STUDENT = UNetConfig(levels=2, filters=2, norm="batch")


@pytest.fixture
def make_teacher(make_trainer: Callable[..., Trainer]) -> Callable[..., TrainedModel]:
    """A model after so many steps: fields of `TrainConfig` and `UNetConfig` and arguments of `Trainer` by name."""

    def make(steps: int = 1, **values: Any) -> TrainedModel:
        trainer = make_trainer(steps=steps, **values)
        for _ in trainer.fit():
            pass
        return trainer.model()

    return make


@pytest.fixture
def decided() -> Callable[[TrainedModel], TrainedModel]:
    """The model with random but large weights of its head, so that it says different things at different voxels."""

    def decide(model: TrainedModel) -> TrainedModel:
        network = model.network
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "head" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return dataclasses.replace(model, network=network)

    return decide


@pytest.fixture
def make_distiller(make_volume: Callable[..., AnnotatedVolume]) -> Callable[..., Distiller]:
    """A distillation: fields of `TrainConfig`, `DistillConfig` and `UNetConfig`, and arguments of `Distiller`."""

    def make(
        teachers: TrainedModel | list[TrainedModel], volumes: list[AnnotatedVolume] | None = None, **values: Any
    ) -> Distiller:
        def taken(names: Any) -> dict[str, Any]:
            return {name: values.pop(name) for name in list(values) if name in names}

        models = teachers if isinstance(teachers, list) else [teachers]
        named = [Teacher(f"teacher {number}", model) for number, model in enumerate(models, start=1)]
        base = {"device": "cpu", "precision": "float32", "patch_size": (4, 16, 16), "batch_size": 1}
        config = TrainConfig.model_validate({**base, "steps": 6, **taken(TrainConfig.model_fields)})
        distill = DistillConfig.model_validate(taken(DistillConfig.model_fields))
        student = values.pop("student", STUDENT).updated(**taken(UNetConfig.model_fields))
        return Distiller(volumes or [make_volume()], named, student, config, distill, **values)

    return make
