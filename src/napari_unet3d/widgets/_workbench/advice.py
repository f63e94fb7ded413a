"""What to paint next, told from what is painted. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from napari_unet3d.engine.classes import ClassInfo

_AXES: Final = "ZYX"
UNITS_FOR_A_SCORE: Final = 5
"""From so many annotated slices on, some are held out (`engine.holdout`)."""


@dataclass(frozen=True)
class PaintedUnit:
    """A painted slice, or a piece that is none.

    Parameters
    ----------
    axis
        0 = Z, 1 = Y, 2 = X; None for a piece.
    ids
        Label ids in it.
    """

    axis: int | None
    ids: frozenset[int]


def advice(
    classes: Sequence[ClassInfo],
    painted: Collection[int],
    units: Sequence[PaintedUnit] | None,
    *,
    axes: int = 3,
    validation: float = 0.2,
) -> Iterator[str]:
    """Sentences, the most urgent first; none where nothing is to be said.

    Parameters
    ----------
    classes
        The first is the background.
    painted
        Label ids that occur.
    units
        What was painted, piece by piece; None while that is not known.
    axes
        Axes along which a person can paint: 3, or 1 for a single plane.
    validation
        Share of the slices that is held out.
    """
    background, structures = classes[0], classes[1:]
    if not painted:
        yield f"paint a slice or two with the brush: {_named(structures)}, and some '{background.name}' around"
        return
    if background.id not in painted:
        yield (
            f"no '{background.name}' yet: paint some around the structures, or click Slice is complete where "
            "everything else in the slice is background"
        )
    unpainted = [entry for entry in structures if entry.id not in painted]
    if unpainted:
        verb = "has" if len(unpainted) == 1 else "have"
        yield f"{_named(unpainted)} {verb} no strokes yet: paint some, or delete the class"
    if units is not None:
        yield from _about_slices(structures, painted, units, axes, validation)


def _about_slices(
    structures: Sequence[ClassInfo],
    painted: Collection[int],
    units: Sequence[PaintedUnit],
    axes: int,
    validation: float,
) -> Iterator[str]:
    if len(units) == 1:
        yield "only one slice is painted, so none can be held out to measure on: paint slices elsewhere too"
    elif validation > 0 and 0 < len(units) < UNITS_FOR_A_SCORE:
        left = UNITS_FOR_A_SCORE - len(units)
        yield (
            f"{len(units)} slices are painted: {left} more, and one in {1 / validation:.3g} is held out, so that a "
            "score can be shown"
        )
    if axes < 2:
        return
    for entry in structures:
        if entry.id not in painted:
            continue
        found = {unit.axis for unit in units if entry.id in unit.ids}
        if len(found) == 1 and (axis := next(iter(found))) is not None:
            others = " or ".join(name for name in _AXES if name != _AXES[axis])
            yield (
                f"class '{entry.name}' is painted on slices across {_AXES[axis]} only: paint a slice across "
                f"{others} too (roll the axes with Ctrl+E)"
            )


def _named(classes: Sequence[ClassInfo]) -> str:
    names = [f"'{entry.name}'" for entry in classes]
    if len(names) > 1:
        return f"classes {', '.join(names[:-1])} and {names[-1]}"
    return f"class {names[0]}" if names else "a structure"
