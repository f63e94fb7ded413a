"""``suggest``: which slices to paint next, and why."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from napari_unet3d.cli.options import (
    AxesOption,
    DeviceOption,
    PrecisionOption,
    VoxelSizeOption,
    ZeroOption,
    parse_memory,
)
from napari_unet3d.cli.progress import make_console, make_reporter
from napari_unet3d.cli.signals import INTERRUPTED, stop_on_signal
from napari_unet3d.cli.text_file import check_text_output, write_text
from napari_unet3d.engine.axes import SPATIAL_AXES, VoxelSize
from napari_unet3d.engine.config import PredictConfig, validated
from napari_unet3d.engine.progress import Inbox

if TYPE_CHECKING:
    from napari_unet3d.engine.suggest.suggestion import Suggestion


def suggest(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model as far as it is trained.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="What is painted so far; 0 = not annotated.")],
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="Most slices to suggest.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the suggestions there, too.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="AMOUNT", help="Memory to use, e.g. 4GB; default: half of it."),
    ] = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    zero_is_background: ZeroOption = False,
) -> None:
    """Tell which slices to paint next, most helpful first."""
    given = {
        "memory": parse_memory(memory) if memory is not None else None,
        "precision": precision,
        "device": device,
    }
    config = validated(PredictConfig, {k: v for k, v in given.items() if v is not None}, "--")
    size = VoxelSize.parse(voxel_size) if voxel_size is not None else None
    if json_file is not None:
        check_text_output(json_file, [model, image, labels])

    from napari_unet3d import api

    inbox = Inbox()
    run = api.suggest_events(
        model,
        image,
        labels,
        count=count,
        config=config,
        voxel_size=size,
        axes=axes,
        zero_is_background=zero_is_background,
        inbox=inbox,
    )
    console = make_console()
    stopped = False
    with (
        stop_on_signal(inbox, "stopping; nothing is suggested"),
        make_reporter(console) as reporter,
        closing(iter(run)) as events,
    ):
        for event in events:
            reporter.show(event)
            stopped = getattr(event, "reason", "") == "stopped"
    if stopped:
        raise typer.Exit(INTERRUPTED)
    if run.suggestions:
        console.print(_table(run.suggestions))
    else:
        console.print("every voxel is annotated: there is nothing to suggest", soft_wrap=True)
    if json_file is not None:
        suggestions = [suggestion.as_dict() for suggestion in run.suggestions]
        write_text(json_file, json.dumps({"suggestions": suggestions}, indent=2, allow_nan=False) + "\n")
        console.print(f"suggestions: {json_file.resolve()}", soft_wrap=True)


def _table(suggestions: tuple[Suggestion, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("axis", "index (from 0)", "score", "around Z, Y, X"):
        table.add_column(heading, justify="left" if heading == "axis" else "right")
    table.add_column("why")
    for one in suggestions:
        centre = ", ".join(map(str, one.centre))
        table.add_row(SPATIAL_AXES[one.axis].upper(), str(one.index), f"{one.score:.2f}", centre, one.reason)
    return table
