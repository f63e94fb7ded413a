"""A model that gets further classes still knows the old ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.config import Recipe, TrainConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.heads import class_logits
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.new_classes import with_classes
from napari_unet3d.engine.normalize import ChannelNormalization, Normalization
from napari_unet3d.engine.trained_model import TrainedModel


def a_model(preset: str, ids: tuple[int, ...], **settings: Any) -> TrainedModel:
    torch.manual_seed(3)
    config = network_config(preset, **{"filters": 4, "levels": 2, **settings})
    return TrainedModel(
        network=build_network(config).eval(),
        recipe=Recipe(network=config, train=TrainConfig(steps=1)),
        normalization=Normalization(channels=(ChannelNormalization(offset=0, factor=1, low=-9, high=9, fill=0),)),
        classes=default_classes(ids),
        voxel_size=VoxelSize(),
    )


def logits(model: TrainedModel, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        raw = model.network(image)[0]
    return class_logits(raw, model.recipe.network.head)


@pytest.mark.parametrize(
    ("preset", "ids", "settings"),
    [
        ("fast", (1, 2, 5), {"classes": 3}),
        ("fast", (1, 5), {"classes": 1}),
        ("fast", (1, 2, 5), {"classes": 2, "head": "sigmoid"}),
        ("unet3plus-ds-cgm-3d", (1, 2, 5), {"classes": 3, "levels": 3}),
    ],
)
def test_known_classes_are_told_apart_as_before(preset: str, ids: tuple[int, ...], settings: dict[str, Any]) -> None:
    model = a_model(preset, ids, **settings)
    wider = with_classes(model, default_classes(tuple(sorted((*ids, 3, 7)))))
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    before, after = logits(model, image), logits(wider, image)
    assert wider.label_ids == tuple(sorted((*ids, 3, 7)))
    assert wider.recipe.network.label_count == len(wider.label_ids) == after.shape[0]
    rows = [wider.label_ids.index(label_id) for label_id in ids]
    torch.testing.assert_close(after[rows], before)
    assert model.recipe.network.label_count == len(ids)


def test_the_new_outputs_are_the_same_each_time() -> None:
    model, classes = a_model("fast", (1, 2)), default_classes((1, 2, 3))
    one, other = with_classes(model, classes, 5), with_classes(model, classes, 5)
    for first, second in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("ids", [(1, 3), (2, 1, 3)])
def test_a_class_cannot_go_missing(ids: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="those of the model"):
        with_classes(a_model("fast", (1, 2)), default_classes(ids))
