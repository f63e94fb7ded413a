"""Values of settings as a person reads and types them. Imports no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.recipe_text import parse_yaml

_WRONG_TYPES: Final = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list such as [16, 32, 64]",
    "string_type": "a text",
    "none_required": "nothing",
    "finite_number": "a finite number",
}
_BOUNDS: Final = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_WRONG_LENGTHS: Final = ("missing", "too_long", "too_short")


def to_text(value: object) -> str:
    """A value as it is shown in a line: ``16``, ``[16, 32]``, ``auto``, and nothing for None.

    `from_text` gives the same value back; tuples come back as lists.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(to_text, value))}]"
    return str(value)


def from_text(text: str) -> Any:
    """What was typed: a number, a word, a list (brackets may be left out), or None for nothing.

    Raises
    ------
    ConfigError
        If it can be none of these.
    """
    text = text.strip()
    if not text:
        return None
    if "," in text and not text.startswith("["):
        text = f"[{text}]"
    try:
        return parse_yaml(text, "")
    except ConfigError:
        raise ConfigError("cannot be read; type a number, a word, or a list such as [16, 32, 64]") from None


def field_problem(errors: Sequence[Any]) -> str:
    """What is wrong with one field, in a short sentence without its name.

    Parameters
    ----------
    errors
        All that pydantic says about the field, one for each alternative that its type allows.
    """
    specific = [error for error in errors if _is_specific(error)]
    if specific:
        # the alternative that came furthest is the one that was meant
        return _sentence(max(specific, key=lambda error: len(error["loc"])))
    wanted = dict.fromkeys(_wanted(error) for error in errors)
    return f"needs {' or '.join(wanted)}"


def _is_specific(error: Any) -> bool:
    return error["type"] not in _WRONG_TYPES and error["type"] != "literal_error"


def _wanted(error: Any) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"]).replace("'", "")
    return _WRONG_TYPES[error["type"]]


def _sentence(error: Any) -> str:
    kind = str(error["type"])
    if kind in _BOUNDS:
        words, limit = _BOUNDS[kind]
        return f"needs {words} {error['ctx'][limit]:g}; {to_text(error['input'])} was given"
    if kind in _WRONG_LENGTHS:
        return "needs three numbers, for Z, Y and X"
    return str(error["msg"]).removeprefix("Value error, ")
