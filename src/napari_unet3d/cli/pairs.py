"""Images with their labels: lists of them in CSV files, and the table of what is in them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from napari_unet3d.engine.errors import ConfigError, FileError

if TYPE_CHECKING:
    from napari_unet3d.engine.pair_checks import PairFacts

_COLUMNS: Final = ("image", "labels", "validation")
_TRUE: Final = {"1", "true", "yes", "x", "validation"}
_FALSE: Final = {"", "0", "false", "no", "train", "training"}


class Pair(NamedTuple):
    """An image and its painted labels."""

    image: Path
    labels: Path
    is_validation: bool = False
    """Whether it is measured on, not trained on."""


def read_pair_list(path: Path) -> list[Pair]:
    """The pairs in a CSV file.

    The first line names the columns ``image``, ``labels`` and, if wanted, ``validation`` (1, true, yes or x; 0, false,
    no or nothing). Commas, semicolons and tabs may stand between them; paths count from the folder of the file.

    Raises
    ------
    ConfigError
        If a column is missing or unknown, a cell is empty or odd, or there is no pair.
    FileError
        If the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is no text file; --pairs needs a CSV file with the columns image and labels") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}); check --pairs") from None
    head = next((line for line in text.splitlines() if line.strip()), "")
    between = max(",;\t", key=head.count)
    lines = [line for line in csv.reader(text.splitlines(), delimiter=between) if any(cell.strip() for cell in line)]
    columns = [cell.strip().lower() for cell in lines[0]] if lines else []
    odd = [name for name in columns if name not in _COLUMNS]
    if odd or not {"image", "labels"} <= set(columns):
        found = ", ".join(columns) or "nothing"
        raise ConfigError(f"{path} needs a first line with the columns image,labels[,validation]; found: {found}")
    pairs = [_pair(path, number, dict(zip(columns, line, strict=False))) for number, line in enumerate(lines[1:], 1)]
    if not pairs:
        raise ConfigError(f"{path} lists no pair of image and labels below its first line")
    return pairs


def _pair(path: Path, number: int, cells: dict[str, str]) -> Pair:
    values = {name: cells.get(name, "").strip() for name in _COLUMNS}
    for name in ("image", "labels"):
        if not values[name]:
            raise ConfigError(f"pair {number} of {path} has no {name}; give a file, or take the line out")
    wish = values["validation"].lower()
    if wish not in _TRUE | _FALSE:
        raise ConfigError(f"pair {number} of {path} has validation = {values['validation']!r}; give 1, 0 or nothing")
    return Pair(path.parent / values["image"], path.parent / values["labels"], wish in _TRUE)


def pair_table(pairs: Sequence[PairFacts]) -> Table:
    """A line for each pair: what it is for, size, type, voxel size, annotated share and the ids."""
    table = Table(title="volumes", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "image", "for", "shape Z Y X", "channels", "type", "voxel size", "annotated", "voxels of ids"):
        table.add_column(heading, overflow="fold")
    for number, entry in enumerate(pairs, 1):
        ids = ", ".join(f"{label_id}: {count:,}" for label_id, count in entry.counts.items())
        table.add_row(
            str(number),
            entry.name,
            "validation" if entry.is_validation else "training",
            " x ".join(map(str, entry.shape)),
            str(entry.channels),
            entry.dtype,
            str(entry.voxel_size),
            _percent(entry.annotated_share),
            ids or "-",
        )
    return table


def _percent(share: float) -> str:
    """Two significant digits."""
    if share == 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(100 * share)))
    return f"{100 * share:.{digits}f} %"
