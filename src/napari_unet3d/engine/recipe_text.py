"""Settings as YAML text: recipes, and single values as a person types them. Needs no torch, reads no files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from napari_unet3d.engine.errors import ConfigError

SECTIONS: Final = ("network", "train", "distill", "record")
"""What a recipe is made of (`engine.config.Recipe`)."""


def parse_recipe(text: str, where: str) -> dict[str, Any]:
    """The sections of a recipe, or of any part of one, with unchecked fields.

    Parameters
    ----------
    where
        Names the text in messages.

    Raises
    ------
    ConfigError
        If the text is no YAML, is empty, or holds anything but `SECTIONS`.
    """
    found = parse_yaml(text, where)
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{where} holds no settings; it needs some of the sections {', '.join(SECTIONS)}")
    check_sections(found, SECTIONS, where)
    return {name: section for name, section in found.items() if section is not None}


def check_sections(found: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    """Make sure that values are sections of named fields.

    Raises
    ------
    ConfigError
        If a section is not among the `known`, is no mapping, or has a name that is no text.
    """
    for name, section in found.items():
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {str(name)!r}; known here: {', '.join(known)}")
        if section is not None and not isinstance(section, dict):
            raise ConfigError(f"{where}: {name} = {section!r} needs fields, such as {name}.{_example(name)}")
    _check_names(found, where)


def _example(section: str) -> str:
    return {"network": "levels", "train": "steps", "distill": "temperature", "record": "steps"}[section]


def _check_names(found: Mapping[Any, Any], where: str) -> None:
    for name, value in found.items():
        if not isinstance(name, str):
            raise ConfigError(f"{where}: the name {name!r} is no text; names of settings are words")
        if isinstance(value, dict):
            _check_names(value, where)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 values: ``off`` is a word here and ``1e-3`` a number, unlike in PyYAML."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  as in PyYAML


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _first)


def parse_yaml(text: str, where: str) -> Any:
    """The values in a text.

    Parameters
    ----------
    where
        Names the text in messages.

    Raises
    ------
    ConfigError
        If the text is no YAML; the message names the line.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "wrong nesting"
        raise ConfigError(f"{where} is no valid YAML{line} ({problem}); correct it") from None


class _Dumper(yaml.SafeDumper):
    """Lists in one line."""


_Dumper.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML that `parse_yaml` reads back to the same values."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
