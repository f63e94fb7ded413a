"""Names, ids and colours of classes. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from napari_unet3d.engine.config import Config

COLOURS: Final = (
    "#6c6c6c",
    "#f58231",
    "#4363d8",
    "#3cb44b",
    "#e6194b",
    "#911eb4",
    "#42d4f4",
    "#f032e6",
    "#bfef45",
    "#fabed4",
    "#469990",
    "#dcbeff",
    "#9a6324",
)
"""Class colours in the order of the classes, grey for the background; repeated where there are more classes."""


class ClassInfo(Config):
    """One class of a model."""

    id: Annotated[int, Field(ge=1, le=65534)]
    """Label id, as painted and as predicted."""
    name: str
    """Shown in layers, tables and exports."""
    colour: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
    """Hexadecimal RGB, such as #f58231."""


def default_classes(label_ids: Sequence[int]) -> tuple[ClassInfo, ...]:
    """Names and colours for label ids: the lowest is the background, the others "class 2" and so on."""
    return tuple(
        ClassInfo(
            id=label_id,
            name="background" if index == 0 else f"class {label_id}",
            colour=COLOURS[0] if index == 0 else COLOURS[1 + (index - 1) % (len(COLOURS) - 1)],
        )
        for index, label_id in enumerate(label_ids)
    )
