"""Options that several verbs share, and the reading of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from napari_unet3d.engine.config import Triple
from napari_unet3d.engine.errors import ConfigError

DeviceOption: TypeAlias = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")
]
PrecisionOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME", help="auto, float32, bfloat16 or float16."),
]
VoxelSizeOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--voxel-size", metavar="Z,Y,X[unit]", help="Instead of the file's, e.g. 0.5,0.1,0.1um."),
]
AxesOption: TypeAlias = Annotated[
    str | None, typer.Option("--axes", metavar="LETTERS", help="Instead of the file's, e.g. CZYX.")
]
ZeroOption: TypeAlias = Annotated[
    bool,
    typer.Option("--zero-is-background", help="The labels' 0 is class 1, and every id moves up by one."),
]
JsonOption: TypeAlias = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, too.")
]

_BYTES: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_memory(text: str) -> int:
    """Bytes from ``4GB``, ``500 MB`` (powers of 1000) or ``4GiB`` (powers of 1024).

    Raises
    ------
    ConfigError
        If the text is no amount of memory, or less than a byte.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match:
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** _BYTES[match[2].lower()])
        if size > 0:
            return size
    raise ConfigError(f"--memory {text!r} is no amount of memory; give for example 4GB, 500MB or 2GiB")


def parse_triple(text: str, option: str) -> Triple:
    """Three whole numbers of at least 1 from ``Z,Y,X``.

    Raises
    ------
    ConfigError
        If the text is anything else.
    """
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", text)
    if match is None or "0" in {str(int(number)) for number in match.groups()}:
        raise ConfigError(f"{option} {text!r} needs three whole numbers Z,Y,X of at least 1, such as 32,128,128")
    z, y, x = (int(number) for number in match.groups())
    return (z, y, x)


def joined_pairs(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Arguments with ``OPTION A B`` as ``OPTION A OPTION B``: typer cannot repeat options of two values."""
    found: list[str] = []
    rest = list(arguments)
    while rest:
        found.append(rest.pop(0))
        if found[-1] == "--":
            break
        if found[-1] in options and len(rest) > 1 and not rest[1].startswith("-"):
            found += [rest.pop(0), found[-1], rest.pop(0)]
    return found + rest


def pairs(values: Sequence[Path], option: str, meaning: str) -> list[tuple[Path, Path]]:
    """Every two values as a pair.

    Raises
    ------
    ConfigError
        If their number is odd.
    """
    if len(values) % 2:
        raise ConfigError(f"{option} {values[-1]} needs two values, {meaning}")
    return list(zip(values[::2], values[1::2], strict=True))
