"""What all settings have in common: checked, frozen, with one-line errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_unet3d.engine.errors import ConfigError

PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Triple: TypeAlias = tuple[PositiveInt, PositiveInt, PositiveInt]


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden, field docstrings as help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def updated(self, **changes: Any) -> Self:
        """A checked copy with some fields changed.

        Raises
        ------
        ConfigError
            If a field is unknown or a value is out of range.
        """
        return validated(type(self), {**self.model_dump(), **changes})


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def validated(model: type[ConfigT], values: Mapping[str, Any], prefix: str = "") -> ConfigT:
    """Build a configuration from plain values, with one-line errors that name the field.

    Parameters
    ----------
    model
        The configuration class.
    values
        Plain values, as read from YAML or JSON.
    prefix
        Put before the field names in messages, for example ``"network."``.

    Raises
    ------
    ConfigError
        If a key is unknown or a value is not allowed; the message names the field and the remedy.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_first_problem(error, model, prefix)) from None


def _first_problem(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    problem = error.errors()[0]
    # pydantic puts the names of union members into the path: keep what a user could have typed
    path = [str(part) for part in problem["loc"] if isinstance(part, int) or str(part).isidentifier()]
    where = prefix + ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = ", ".join(_fields_at(model, path[:-1]))
        return f"unknown setting {where!r}; known here: {known}"
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return message
    given = problem.get("input")
    if problem["type"] in ("missing", "too_long", "tuple_type") and isinstance(given, Sequence | int | float):
        if problem["type"] == "missing":
            where = where.rpartition(".")[0]
        message = _needed_entries(error, problem, given)
    return f"{where} = {given!r}: {message[0].lower()}{message[1:]}"


def _needed_entries(error: ValidationError, problem: Any, given: Any) -> str:
    """What a field with a list of values wants, in place of one with too few, too many or none."""
    field = problem["loc"][0]
    word = next(
        (p["ctx"]["expected"] for p in error.errors() if p["type"] == "literal_error" and p["loc"][0] == field), ""
    )
    otherwise = f", or {word}" if word else ""
    if problem["type"] == "tuple_type":
        return f"give a list, such as [1, 2, 3]{otherwise}"
    missing = sum(p["type"] == "missing" and p["loc"][:-1] == problem["loc"][:-1] for p in error.errors())
    needed = len(given) + missing if missing else problem["ctx"]["max_length"]
    axes = " (Z Y X)" if needed == 3 else ""
    return f"give {needed} values{axes}, not {len(given)}{otherwise}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    for name in path:
        field = model.model_fields.get(name)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return list(model.model_fields)
