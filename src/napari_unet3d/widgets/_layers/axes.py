"""Which axis of a layer's data is time, channel or space, as one letter of ``TCZYX`` for each axis."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from napari_unet3d.engine.errors import ConfigError, DataError

if TYPE_CHECKING:
    from napari.layers import Layer

_NAMES: Final = {
    "t": "T",
    "time": "T",
    "frame": "T",
    "c": "C",
    "ch": "C",
    "channel": "C",
    "z": "Z",
    "depth": "Z",
    "plane": "Z",
    "y": "Y",
    "row": "Y",
    "height": "Y",
    "x": "X",
    "col": "X",
    "column": "X",
    "width": "X",
}
_MOST_CHANNELS: Final = 4
_MEANING: Final = "T (time), C (channel), Z, Y and X"


def is_rgb(layer: Layer) -> bool:
    """Whether the last axis of the layer's data holds red, green, blue (and opacity)."""
    return bool(getattr(layer, "rgb", False))


def data_shape(layer: Layer) -> tuple[int, ...]:
    """Shape of the layer's data, of the finest level if it has several."""
    return tuple(int(n) for n in layer.data.shape)


def guess_axes(layer: Layer) -> str:
    """One letter of ``TCZYX`` for each axis of ``layer.data``.

    Names given to the axes (``layer.axis_labels``) count; else the number of axes decides: Y X, Z Y X,
    T Z Y X (an axis of at most 4 among the first two, less than half as long as every other, is C), T C Z Y X
    (T Z C Y X where only the third is that short). The last axis of an RGB layer is C.

    Raises
    ------
    DataError
        If the data has fewer than two or more than five axes.
    """
    shape = data_shape(layer)
    rgb = is_rgb(layer)
    spatial = shape[:-1] if rgb else shape
    end = "C" if rgb else ""
    if not 2 <= len(spatial) <= (4 if rgb else 5):
        raise DataError(
            f"{layer.name!r} has {len(shape)} axes {shape}; needed: 2 to 5 of {_MEANING}. "
            "Choose an image layer with a plane or a volume"
        )
    named = _named(layer.axis_labels)
    if named is not None and not (rgb and "C" in named):
        return named + end
    return _from_shape(spatial, may_have_channels=not rgb) + end


def check_axes(layer: Layer, axes: str) -> None:
    """Whether `axes` can describe the layer's data.

    Raises
    ------
    ConfigError
        If `axes` has another length than the data has axes, an unknown or repeated letter, no Y or no X, or
        does not end with C for an RGB layer.
    """
    shape = data_shape(layer)
    if len(axes) != len(shape):
        raise ConfigError(
            f"{layer.name!r} has {len(shape)} axes {shape}, but {axes!r} names {len(axes)}; "
            f"give one letter for each, out of {_MEANING}"
        )
    unknown = sorted(set(axes) - set("TCZYX"))
    if unknown:
        raise ConfigError(f"axes {axes!r} hold {unknown[0]!r}; use the letters {_MEANING}")
    repeated = [letter for letter, count in Counter(axes).items() if count > 1]
    if repeated:
        raise ConfigError(f"axes {axes!r} name {repeated[0]} more than once; each letter stands for one axis")
    missing = [letter for letter in "YX" if letter not in axes]
    if missing:
        raise ConfigError(f"axes {axes!r} lack {' and '.join(missing)}; an image needs Y and X")
    if is_rgb(layer) and not axes.endswith("C"):
        raise ConfigError(f"{layer.name!r} is a colour image, so its last axis is C; axes {axes!r} end otherwise")


def _named(labels: tuple[str, ...]) -> str | None:
    """Letters for axis names; None where one is unknown or given twice, or Y or X is missing."""
    letters = [_NAMES.get(label.strip().lower()) for label in labels]
    axes = "".join(letter for letter in letters if letter)
    usable = len(axes) == len(labels) == len(set(axes)) and {"Y", "X"} <= set(axes)
    return axes if usable else None


def _from_shape(shape: tuple[int, ...], *, may_have_channels: bool) -> str:
    if len(shape) <= 3:
        return "ZYX"[-len(shape) :]
    if len(shape) == 5:
        return "TZCYX" if _is_short(shape, 2) and not _is_short(shape, 1) else "TCZYX"
    if may_have_channels and _is_short(shape, 0):
        return "CZYX"
    if may_have_channels and _is_short(shape, 1):
        return "ZCYX"
    return "TZYX"


def _is_short(shape: tuple[int, ...], axis: int) -> bool:
    others = [n for i, n in enumerate(shape) if i != axis]
    return shape[axis] <= _MOST_CHANNELS and 2 * shape[axis] < min(others)
