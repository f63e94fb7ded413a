"""``evaluate``: how well labels agree with the truth, as a table and as JSON."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from napari_unet3d.cli.batch import DONE, SKIPPED, Batch, Row
from napari_unet3d.cli.options import JsonOption, ZeroOption
from napari_unet3d.cli.progress import make_console, number
from napari_unet3d.cli.text_file import check_text_output, write_text
from napari_unet3d.engine.errors import ConfigError, FileError

if TYPE_CHECKING:
    from napari_unet3d.engine.metrics import Evaluation


def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="Predicted labels, or a folder of them.")],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="True labels of the same shape, or a folder; their 0 is not scored.")
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
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE.csv", help="The scores of each file, of folders."),
    ] = None,
) -> None:
    """Compare predicted labels with true ones, class by class.

    Of two folders, files of the same name belong together, endings such as _labels and _truth aside.
    """
    for output in (json_file, table):
        if output is not None:
            check_text_output(output, [path for path in (prediction, truth, exclude, probabilities) if path])
    ids = None if probability_ids is None else _ids(probability_ids)
    from napari_unet3d.io.folders import is_plain_folder

    are_folders = [is_plain_folder(path) for path in (prediction, truth)]
    if all(are_folders):
        if probabilities is not None:
            raise ConfigError("--probabilities is for one prediction; leave it away with folders")
        _evaluate_folders(prediction, truth, exclude, zero_is_background, json_file, table)
        return
    if any(are_folders):
        raise ConfigError(f"{prediction} and {truth}: one is a folder, the other is not; give two folders or two files")
    if table is not None:
        raise ConfigError("--table is for folders; --json writes the figures of one prediction")

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


def _evaluate_folders(
    predictions: Path,
    truths: Path,
    exclude: Path | None,
    zero_is_background: bool,
    json_file: Path | None,
    table: Path | None,
) -> None:
    """Score every prediction that has a truth; tell of all, and fail at the end where one could not be scored."""
    from napari_unet3d import api
    from napari_unet3d.io.folders import is_plain_folder, matched, partner

    console = make_console()
    batch = Batch(table)
    pairs, alone = matched(predictions, truths)
    results: dict[str, Evaluation] = {}
    for prediction, truth in pairs:
        with batch.trying(prediction.name):
            left_out = partner(prediction, exclude) if exclude is not None and is_plain_folder(exclude) else exclude
            if exclude is not None and left_out is None:
                raise FileError(f"no file in {exclude} belongs to {prediction.name}; --exclude needs one for each")
            result = api.evaluate(prediction, truth, exclude=left_out, zero_is_background=zero_is_background)
            results[prediction.name] = result
            batch.add(Row(prediction.name, DONE, _figures(result)))
    for path in alone:
        missing = "truth" if path.parent == predictions else "prediction"
        batch.add(Row(path.name, SKIPPED, reason=f"it has no {missing}"))
    batch.show(console)
    ious = [result.mean_foreground_iou for result in results.values() if not math.isnan(result.mean_foreground_iou)]
    if ious:
        console.print(
            f"mean IoU of structures: {number(statistics.mean(ious))}, mean over {len(ious)} files "
            f"({number(min(ious))} .. {number(max(ious))})",
            soft_wrap=True,
        )
    if json_file is not None:
        values = {
            "mean_foreground_iou": statistics.mean(ious) if ious else None,
            "files": {name: result.as_dict() for name, result in results.items()},
            "failed": {row.name: row.reason for row in batch.failed},
        }
        write_text(json_file, json.dumps(values, indent=2, allow_nan=False) + "\n")
        console.print(f"figures: {json_file.resolve()}", soft_wrap=True)
    batch.raise_failures()


def _figures(result: Evaluation) -> dict[str, float | int]:
    values: dict[str, float | int] = {"mean IoU": result.mean_foreground_iou}
    for entry in result.classes:
        class_id, unit = entry.score.class_id, result.unit
        values[f"IoU {class_id}"] = entry.score.iou
        values[f"Dice {class_id}"] = entry.score.dice
        values[f"Hausdorff 95 % {class_id} ({unit})"] = entry.surface.hausdorff95
    values["scored voxels"] = result.scored_voxels
    return {name: round(value, 6) for name, value in values.items() if not math.isnan(value)}


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
