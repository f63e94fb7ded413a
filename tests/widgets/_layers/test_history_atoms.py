from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet3d.widgets._layers.history_atoms import box_of_atom


def atoms_of(action: Any) -> list[Any]:
    """What the installed napari tells of an action."""
    layer = Labels(np.zeros((9, 10, 11), np.uint8))
    told: list[Any] = []
    layer.events.paint.connect(lambda event: told.extend(event.value))
    action(layer)
    return told


def test_brush() -> None:
    (atom,) = atoms_of(lambda layer: layer.paint((2, 5, 6), 1))
    box = box_of_atom(atom, (9, 10, 11))
    assert box is not None
    assert box[0] == slice(2, 3)
    assert box[1].start <= 5 < box[1].stop


def test_data_setitem() -> None:
    (atom,) = atoms_of(lambda layer: layer.data_setitem(tuple(np.array([[1, 4], [2, 2], [7, 3]])), 5))
    assert box_of_atom(atom, (9, 10, 11)) == (slice(1, 5), slice(2, 3), slice(3, 8))


@pytest.mark.parametrize(
    ("key", "box"),
    [
        ((3, slice(None), slice(4, None, 2)), (slice(3, 4), slice(0, 10), slice(4, 11))),
        ((np.array([-1, -9]), 0, 0), (slice(0, 9), slice(0, 1), slice(0, 1))),
        ((slice(None, None, -3), 0, 0), (slice(2, 9), slice(0, 1), slice(0, 1))),
    ],
)
def test_older_forms_of_indices(key: Any, box: Any) -> None:
    assert box_of_atom((key, 0, 1), (9, 10, 11)) == box


@pytest.mark.parametrize(
    "atom",
    [
        object(),
        (1, 2),
        ((0, 0), 0, 1),  # an axis is missing
        (([True], 0, 0), 0, 1),
        ((99, 0, 0), 0, 1),
        (np.ones((9, 10, 11), bool), 0, 1),
        SimpleNamespace(slice_key="everything"),
    ],
)
def test_unknown_forms(atom: Any) -> None:
    assert box_of_atom(atom, (9, 10, 11)) is None
