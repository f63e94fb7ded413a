"""From what a user chose to a network configuration, and back; and to and from a recipe. No Qt, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from napari_unet3d.engine.config import NetworkConfig, Recipe, TrainConfig, network_class, validated
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.engine.recipe_text import dump_yaml, parse_recipe

FROM_DATA: Final = frozenset({"in_channels", "classes", "feature_voxel"})
"""Fields that follow from the image and its annotation."""


class NetworkChoice(NamedTuple):
    """A preset, and what differs from it."""

    preset: str
    settings: dict[str, Any]

    def config(self, in_channels: int, class_count: int) -> NetworkConfig:
        """The configuration for an image and its classes.

        Raises
        ------
        ConfigError
            If the settings do not fit the preset.
        """
        head = self.settings.get("head", network_config(self.preset).head)
        classes = max(1, class_count - 1) if head == "sigmoid" else class_count
        return network_config(self.preset, **{"in_channels": in_channels, "classes": classes, **self.settings})


def chosen(preset: str, config: NetworkConfig) -> NetworkChoice:
    """The choice of a preset that gives a configuration."""
    base = network_config(preset)
    if base.kind != config.kind:  # then nothing of the preset is left but its name
        base = network_class(config.kind)()
        return NetworkChoice(preset, {"kind": config.kind, **_difference(base, config)})
    return NetworkChoice(preset, _difference(base, config))


def closest(config: NetworkConfig) -> NetworkChoice:
    """The choice with the fewest differences; the first preset among equals."""
    return min((chosen(name, config) for name in network_presets()), key=lambda choice: len(choice.settings))


def _difference(base: NetworkConfig, config: NetworkConfig) -> dict[str, Any]:
    ours, theirs = config.model_dump(), base.model_dump()
    return {name: value for name, value in ours.items() if name not in FROM_DATA and value != theirs[name]}


# --- recipes ----------------------------------------------------------------------------------------------


def recipe_text(network: NetworkConfig, train: TrainConfig) -> str:
    """A recipe for ``train --config``; channels, classes and voxels are left to the data."""
    recipe = Recipe(network=network, train=train)
    return dump_yaml(recipe.model_dump(mode="json", exclude={"network": set(FROM_DATA), "record": True}))


def read_recipe(text: str, where: str) -> tuple[NetworkConfig | None, TrainConfig | None]:
    """Network and training of a recipe, None for a part that it lacks.

    Raises
    ------
    ConfigError
        If the text is no recipe, or a value in it is not allowed.
    """
    sections = parse_recipe(text, where)
    network = train = None
    if "network" in sections:
        values: Mapping[str, Any] = {k: v for k, v in sections["network"].items() if k not in FROM_DATA}
        network = network_config(network_presets()[0], **values)
    if "train" in sections:
        train = validated(TrainConfig, sections["train"], "train.")
    if network is None and train is None:
        raise ConfigError(f"{where} tells of a finished run but has neither network nor train settings")
    return network, train
