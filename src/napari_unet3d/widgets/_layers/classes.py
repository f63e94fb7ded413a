"""Names and colours of classes on labels layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from napari_unet3d.engine.classes import ClassInfo, default_classes
from napari_unet3d.engine.errors import DataError
from napari_unet3d.io.class_names import class_names

if TYPE_CHECKING:
    from napari.layers import Labels

UNKNOWN_COLOUR: Final = "#ff00ff"
"""Of painted ids that are no class: striking, so that nobody paints what nobody sees."""


class ClassLike(Protocol):
    """A class of labels."""

    @property
    def id(self) -> int:
        """Label id, 1 and up."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def colour(self) -> str:
        """As ``#rrggbb``."""


def label_colours(classes: Sequence[ClassLike]) -> Any:
    """Colormap of a labels layer: 0 transparent, each class in its colour, other ids `UNKNOWN_COLOUR`."""
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, str] = {None: UNKNOWN_COLOUR, 0: "transparent"}
    return DirectLabelColormap(color_dict=colours | {item.id: item.colour for item in classes})


def apply_classes(layer: Labels, classes: Sequence[ClassLike]) -> None:
    """Give a labels layer the colours and names of `classes`; its data stays as it is.

    The name of the class under the pointer then shows in napari's status bar.
    """
    layer.colormap = label_colours(classes)
    layer.features = {
        "index": [0, *(item.id for item in classes)],
        "class": ["not annotated", *(item.name for item in classes)],
    }


def dtype_for(classes: Sequence[ClassLike]) -> type[np.uint8] | type[np.uint16]:
    """uint8, or uint16 where an id is above 255.

    Raises
    ------
    DataError
        If an id is below 1 or above 65534.
    """
    ids = [item.id for item in classes]
    if ids and not (min(ids) >= 1 and max(ids) <= 65534):
        raise DataError(f"class ids go from {min(ids)} to {max(ids)}; needed: 1 to 65534 (0 means not annotated)")
    return np.uint16 if max(ids, default=0) > 255 else np.uint8


def classes_of(layer: Labels, ids: Iterable[int]) -> tuple[ClassInfo, ...]:
    """Classes for label ids of a layer, ascending, in the layer's own colours and with the names it has.

    Names come from its table of features; the lowest id without one is the background. Ids without a visible colour
    get one of ours.
    """
    wanted = sorted(ids)
    told = class_names({"features": layer.features})
    found = []
    for default in default_classes(wanted):
        rgba = layer.get_color(default.id)
        opaque = rgba is not None and float(rgba[3]) > 0
        colour = "#" + bytes(round(255 * float(c)) for c in rgba[:3]).hex() if opaque else default.colour
        found.append(default.updated(name=told.get(default.id, default.name), colour=colour))
    return tuple(found)
