"""``evaluate``: how well labels agree with the truth, as a table and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from napari_unet3d.cli.options import JsonOption, ZeroOption
from napari_unet3d.cli.progress import make_console, number
from napari_unet3d.cli.text_file import check_text_output, write_text

if TYPE_CHECKING:
    from napari_unet3d.engine.metrics import Evaluation


def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="Predicted labels.")],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="True labels of the same shape; their 0 is not scored.")
    ],
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", metavar="SPARSE_LABELS", help="What is annotated there is not scored."),
    ] = None,
    zero_is_background: ZeroOption = False,
    json_file: JsonOption = None,
) -> None:
    """Compare predicted labels with true ones, class by class."""
    if json_file is not None:
        check_text_output(json_file, [path for path in (prediction, truth, exclude) if path])

    from napari_unet3d import api

    result = api.evaluate(prediction, truth, exclude=exclude, zero_is_background=zero_is_background)
    console = make_console()
    console.print(_table(result))
    mean = number(result.mean_foreground_iou)
    console.print(
        f"mean IoU of structures: {mean} over {result.scored_voxels} scored voxels "
        f"(class {result.background_id} is the background)",
        soft_wrap=True,
    )
    if json_file is not None:
        write_text(json_file, json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n")
        console.print(f"figures: {json_file.resolve()}", soft_wrap=True)


def _table(result: Evaluation) -> Table:
    length, cube = result.unit, f"{result.unit}^3"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    for heading in ("IoU", "Dice", "precision", "recall"):
        table.add_column(heading, justify="right")
    for heading in (
        f"true volume ({cube})",
        f"predicted ({cube})",
        f"mean surface distance ({length})",
        f"Hausdorff 95 % ({length})",
    ):
        table.add_column(heading, justify="right")
    for entry in result.classes:
        score, surface = entry.score, entry.surface
        table.add_row(
            str(score.class_id),
            *(number(value) for value in (score.iou, score.dice, score.precision, score.recall)),
            *(
                _measure(value)
                for value in (entry.volume_truth, entry.volume_prediction, surface.mean, surface.hausdorff95)
            ),
        )
    return table


def _measure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.5g}"
