"""Layers whose axes lie in another order than T Z Y X, such as those made over an image that is stored X first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from napari_unet3d.engine.volume import LazyArray
from napari_unet3d.io.layer_geometry import displayed_matrix

AXES_KEY: Final = "napari_unet3d_axes"
"""Of the metadata of layers made from an image: one letter of ``TZYX`` for each axis, 1 for one that means nothing."""

_ORDER: Final = "1TZYX"


def axis_order(ndim: int, metadata: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Axes of a layer in the order single, T, Z, Y, X; as they are where its metadata do not tell them."""
    letters = _letters(ndim, metadata)
    return tuple(range(ndim)) if letters is None else tuple(sorted(range(ndim), key=lambda i: _ORDER.index(letters[i])))


def in_order(data: LazyArray, meta: Mapping[str, Any]) -> tuple[LazyArray, dict[str, Any]]:
    """The data of a layer and what napari tells of it, with its axes in the order single, T, Z, Y, X.

    Parameters
    ----------
    data
        One array. Read only if its axes have to change places and it cannot do so itself.
    meta
        As napari hands it to a writer; layers that do not tell their axes stay as they are.

    Returns
    -------
    LazyArray
        The array.
    dict
        What a writer may be handed for it; its axes are named, its place is all in the affine.
    """
    ndim = len(data.shape)
    letters = _letters(ndim, meta.get("metadata"))
    if letters is None:
        return data, dict(meta)
    order = list(axis_order(ndim, meta.get("metadata")))
    named = {**meta, "axis_labels": tuple(letters[axis].lower() for axis in order)}
    if order == list(range(ndim)):
        return data, named
    scale = np.asarray(meta.get("scale", np.ones(ndim)), dtype=np.float64)[order]
    square = [*order, ndim]
    affine = displayed_matrix(meta, ndim)[np.ix_(square, square)] @ np.diag([*(1 / scale), 1.0])
    units = meta.get("units")
    for key in ("rotate", "shear", "translate"):
        named.pop(key, None)
    named |= {"scale": scale, "affine": affine, "units": None if units is None else [units[axis] for axis in order]}
    movable: Any = data if hasattr(data, "transpose") else np.asarray(data)
    return movable.transpose(order), named


def _letters(ndim: int, metadata: Mapping[str, Any] | None) -> str | None:
    letters = (metadata or {}).get(AXES_KEY)
    return letters if isinstance(letters, str) and len(letters) == ndim and set(letters) <= set(_ORDER) else None
