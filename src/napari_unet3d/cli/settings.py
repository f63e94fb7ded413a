"""From ``--config``, ``--set`` and options to the settings of a training run.

Later ones win: preset < configuration file < ``--set`` < options of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from napari_unet3d.engine.config import DistillConfig, RunRecord, TrainConfig, network_class, validated
from napari_unet3d.engine.errors import ConfigError, FileError
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.engine.recipe_text import SECTIONS, check_sections, parse_recipe, parse_yaml

_BUDGET: Final = ("seconds", "steps")


@dataclass(frozen=True)
class Settings:
    """What was asked for, the rest being defaults.

    Attributes
    ----------
    preset
        Name of a network, if one was given.
    network, train, distill
        Fields that were given.
    record
        A recorded run to repeat; None where a budget was given as well.
    has_budget
        Whether ``--set`` or an option, not only the configuration file, says how long to train.
    """

    preset: str | None
    network: Mapping[str, Any]
    train: Mapping[str, Any]
    distill: Mapping[str, Any]
    record: RunRecord | None
    has_budget: bool

    def without_budget(self) -> Settings:
        """The same without seconds and steps."""
        rest = {name: value for name, value in self.train.items() if name not in _BUDGET}
        return replace(self, train=rest, record=None, has_budget=False)

    def train_config(self, base: TrainConfig | None = None) -> TrainConfig:
        """The given fields over those of `base`.

        Raises
        ------
        ConfigError
            If a field is unknown or a value is not allowed.
        """
        start = base.model_dump() if base else {}
        return validated(TrainConfig, _merged({"train": start}, {"train": self.train})["train"], "train.")

    def distill_config(self, base: DistillConfig | None = None) -> DistillConfig:
        """The given fields over those of `base`.

        Raises
        ------
        ConfigError
            If a field is unknown or a value is not allowed.
        """
        return validated(DistillConfig, {**(base.model_dump() if base else {}), **self.distill}, "distill.")

    def refuse_distillation(self) -> None:
        """Make sure that there are no settings of a distillation, for a verb that has none.

        Raises
        ------
        ConfigError
            If there are.
        """
        if self.distill:
            name = next(iter(self.distill))
            raise ConfigError(f"distill.{name} is a setting of a distillation; use the verb distill, or leave it away")


def gather(
    preset: str | None,
    config: Path | None,
    assignments: Sequence[str],
    options: Mapping[str, Any],
    distill: Mapping[str, Any] | None = None,
) -> Settings:
    """Put all layers together and check them.

    Parameters
    ----------
    preset
        Name of a network.
    config
        YAML file with any of the sections network, train, distill and record.
    assignments
        ``section.field=value`` with a YAML value.
    options
        Fields of `TrainConfig` from options of their own; None where not given.
    distill
        The same of `DistillConfig`.

    Raises
    ------
    ConfigError
        If a preset, section or field is unknown or a value is not allowed.
    FileError
        If the file cannot be read.
    """
    in_file = read_config(config) if config else {}
    by_hand: dict[str, Any] = {}
    for text in assignments:
        by_hand = _merged(by_hand, parse_assignment(text))
    for section, fields in (("train", options), ("distill", distill or {})):
        by_hand = _merged(by_hand, {section: {name: value for name, value in fields.items() if value is not None}})
    whole = _merged(in_file, by_hand)
    has_budget = any(by_hand["train"].get(name) is not None for name in _BUDGET)
    record = whole.get("record")
    replayed = None if record is None else validated(RunRecord, record, "record.")
    settings = Settings(
        preset=preset,
        network=whole.get("network", {}),
        train=whole["train"],
        distill=whole.get("distill", {}),
        record=None if has_budget else replayed,
        has_budget=has_budget,
    )
    settings.train_config()
    settings.distill_config()
    _check_network(settings)
    return settings


def _check_network(settings: Settings) -> None:
    preset = network_presets()[0] if settings.preset is None else settings.preset
    family = network_class(str(settings.network.get("kind", network_config(preset).kind)))
    unknown = [name for name in settings.network if name not in family.model_fields]
    if unknown:
        known = ", ".join(family.model_fields)
        raise ConfigError(f"unknown setting 'network.{unknown[0]}'; known here: {known}")
    network_config(preset, **settings.network)


# --- reading ----------------------------------------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """The sections of a configuration file.

    Raises
    ------
    ConfigError
        If the file is no YAML, or holds anything but the sections of a recipe.
    FileError
        If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FileError(f"{path} is no text file; --config needs YAML, as written by info --recipe") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}); check --config") from None
    return parse_recipe(text, str(path))


def parse_assignment(text: str) -> dict[str, Any]:
    """``network.levels=3`` as ``{"network": {"levels": 3}}``.

    Raises
    ------
    ConfigError
        If there is no ``=``, the value is no YAML, or the section is none of network, train and distill.
    """
    name, equals, value = text.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {text!r} is not of the form section.field=value, such as network.levels=3")
    nested: Any = parse_yaml(value, f"--set {text}")
    for part in reversed(path):
        nested = {part: nested}
    check_sections(nested, SECTIONS[:3], f"--set {text}")
    found: dict[str, Any] = nested
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections with the fields of `above` over those of `below`; one budget displaces the other."""
    result: dict[str, Any] = {"train": {}, **below}
    for name, section in above.items():
        lower = result.get(name) or {}
        if name == "train" and any((section or {}).get(budget) is not None for budget in _BUDGET):
            lower = {field: value for field, value in lower.items() if field not in _BUDGET}
        result[name] = _overlaid(lower, section or {})
    return result


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both_nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = _overlaid(old, value) if both_nested else value  # type: ignore[arg-type]
    return result
