"""Which stored axis is which: from the letters of a file or of ``--axes`` to C Z Y X."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from napari_unet3d.engine.errors import ConfigError, DataError

DROPPED: Final = "."
"""Stands for a stored axis of length 1 that is left out."""

_ORDER: Final = "CZYX"


def given_axes(text: str) -> str:
    """Check the letters of ``--axes``; upper case, S (samples) is C.

    Raises
    ------
    ConfigError
        If a letter is unknown or repeated, or Y or X is missing.
    """
    axes = text.strip().upper().replace("S", "C")
    if not {"Y", "X"} <= set(axes) <= set("TCZYX") or len(set(axes)) != len(axes):
        raise ConfigError(
            f"axes {text!r}: needed are letters of T, C, Z, Y, X, each at most once, Y and X always, "
            "for example --axes CZYX"
        )
    return axes


def check_length(axes: str, shape: Sequence[int], name: str) -> None:
    """Refuse axes that do not fit the number of dimensions.

    Raises
    ------
    DataError
        If there is not one letter for each stored axis.
    """
    if len(axes) != len(shape):
        raise DataError(
            f"{name} has {len(shape)} axes, shape {tuple(shape)}, but --axes {axes} names {len(axes)}; "
            "give one letter for each"
        )


def settle_axes(axes: str, shape: Sequence[int], name: str) -> str:
    """One of C, Z, Y, X or `DROPPED` for each stored axis.

    Parameters
    ----------
    axes
        One letter for each stored axis as the file names them: T, C, S (samples), Z, Y, X; any other letter
        is an axis without a name.
    shape
        Lengths in the same order.
    name
        For messages.

    Raises
    ------
    DataError
        If there is a time axis longer than 1, or the axes can be read in more than one way.
    """
    settled = list(axes)
    for i, (axis, length) in enumerate(zip(axes, shape, strict=True)):
        if axis not in "CZYX" and length == 1:
            settled[i] = DROPPED
        elif axis == "T":
            advice = "save one time point"
            if "Z" not in axes:
                advice += f", or if it is depth use --axes {_nameable(axes.replace('T', 'Z'))}"
            elif "C" not in axes:
                advice += f", or if it is channels use --axes {_nameable(axes.replace('T', 'C'))}"
            raise DataError(f"{name} has a time axis of length {length}, needed is 1; {advice}")
    if "S" in settled:
        i = settled.index("S")
        if "C" in settled:
            j = settled.index("C")
            if shape[j] != 1:
                raise DataError(
                    f"{name} has {shape[j]} channels of {shape[i]} colours each; save it with one channel axis only"
                )
            settled[j] = DROPPED
        settled[i] = "C"
    nameless = [i for i, axis in enumerate(settled) if axis not in (*_ORDER, DROPPED)]
    if len(nameless) == 1 and "Z" not in settled:
        settled[nameless[0]] = "Z"
    elif nameless:
        raise DataError(
            f"{name} has shape {tuple(shape)} and does not name its axes; name them, for example "
            f"--axes {'TCZYX'[-len(axes) :]}"
        )
    if not {"Y", "X"} <= set(settled):
        raise DataError(f"{name} has shape {tuple(shape)}; an image needs at least the axes Y X")
    return "".join(settled)


def _nameable(axes: str) -> str:
    return axes.replace("S", "C")
