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
from napari_unet3d.engine.errors import ConfigError

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
    probabilities: Annotated[
        Path | None,
        typer.Option(
            "--probabilities",
            metavar="FILE",
            help="What predict --probabilities wrote: adds the mean IoU over the thresholds .5 to .95.",
        ),
    ] = None,
    probability_ids: Annotated[
        str | None,
        typer.Option(
            "--probability-ids",
            metavar="ID,ID,...",
            help="Label id of each channel of the probabilities; default: the ids in the prediction.",
        ),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Compare predicted labels with true ones, class by class."""
    if json_file is not None:
        check_text_output(json_file, [path for path in (prediction, truth, exclude, probabilities) if path])
    ids = None if probability_ids is None else _ids(probability_ids)

    from napari_unet3d import api

    result = api.evaluate(
        prediction,
        truth,
        exclude=exclude,
        zero_is_background=zero_is_background,
        probabilities=probabilities,
        probability_ids=ids,
    )
    console = make_console()
    console.print(_table(result))
    mean = number(result.mean_foreground_iou)
    console.print(
        f"mean IoU of structures: {mean} over {result.scored_voxels} scored voxels "
        f"(class {result.background_id} is the background)",
        soft_wrap=True,
    )
    if result.has_probabilities:
        at_thresholds = number(result.mean_foreground_threshold_iou)
        console.print(f"mean IoU of structures over the thresholds .5 to .95: {at_thresholds}", soft_wrap=True)
    if json_file is not None:
        write_text(json_file, json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n")
        console.print(f"figures: {json_file.resolve()}", soft_wrap=True)


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--probability-ids {text}: give whole numbers with commas between, such as 1,2,5") from None


def _table(result: Evaluation) -> Table:
    length, cube = result.unit, f"{result.unit}^3"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    by_threshold = ["IoU .5-.95"] if result.has_probabilities else []
    for heading in ("IoU", *by_threshold, "Dice", "precision", "recall"):
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
            number(score.iou),
            *(number(entry.threshold_iou) for _ in by_threshold),
            *(number(value) for value in (score.dice, score.precision, score.recall)),
            *(
                _measure(value)
                for value in (entry.volume_truth, entry.volume_prediction, surface.mean, surface.hausdorff95)
            ),
        )
    return table


def _measure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.5g}"
