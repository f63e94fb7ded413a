"""``distill``: large teachers, an image and perhaps labels to a small student, and the proof that it is as good."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from napari_unet3d.cli.options import AxesOption, DeviceOption, JsonOption, VoxelSizeOption, ZeroOption
from napari_unet3d.cli.progress import make_console, make_reporter, number
from napari_unet3d.cli.settings import gather
from napari_unet3d.cli.signals import INTERRUPTED, stop_on_signal
from napari_unet3d.cli.text_file import check_text_output, write_text
from napari_unet3d.cli.train import say_result
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Inbox, TrainLonger

if TYPE_CHECKING:
    from rich.console import Console

    from napari_unet3d.api import TrainingRun
    from napari_unet3d.engine.distillation.comparison import ModelFigures, Scored

_MODEL: Final = ".safetensors"
_EXPORTED: Final = (".onnx", ".pt2", ".zip")


class Sources(NamedTuple):
    """What the positional arguments stand for."""

    teachers: list[Path]
    image: Path
    labels: Path | None


def distill(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEACHER... IMAGE [LABELS]",
            help="Trained models (.safetensors), the volume, and its painted labels if there are any.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="STUDENT", help="The .safetensors file to write.")],
    operations: Annotated[
        str | None,
        typer.Option("--operations", metavar="SHARE", help="Of the teacher's operations, e.g. 1/8 (default) or 1/16."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="A named network as the student instead.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.yaml", help="A recipe, or any part of one.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="One setting, e.g. distill.alpha=0.9; may be repeated."),
    ] = None,
    student_from: Annotated[
        str | None,
        typer.Option(
            "--student-from", metavar="WHAT", help="scratch (default) or teacher: its weights where they fit."
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Softens what teacher and student say; default: 2.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="Weight of the teacher; the rest is that of the labels; default: 0.7."),
    ] = None,
    flips: Annotated[
        bool | None, typer.Option("--flips/--no-flips", help="Average the teachers over mirrored volumes.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="IMAGE", help="One more volume, without labels; may be repeated."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Time from reading the input to the saved student.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")] = None,
    device: DeviceOption = None,
    random_state: Annotated[
        int | None, typer.Option("--random-state", help="Seed of everything random; default: 0.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="STUDENT", help="Go on with an interrupted distillation.")
    ] = None,
    weights_from: Annotated[
        Path | None,
        typer.Option("--weights-from", metavar="MODEL", help="Begin with its weights, e.g. of a --scratch student."),
    ] = None,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Keep in the finished file what --resume needs.")
    ] = False,
    train_teacher: Annotated[
        Path | None,
        typer.Option("--train-teacher", metavar="MODEL", help="Train the teacher first, on LABELS, and save it there."),
    ] = None,
    teacher_preset: Annotated[
        str | None, typer.Option("--teacher-preset", metavar="NAME", help="Its network; default: fast.")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            "--scratch", metavar="MODEL", help="Train the same student without a teacher, too, save it there, compare."
        ),
    ] = None,
    comparison: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Compare teachers and student on the volume at the end.")
    ] = True,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="True labels to compare with; their 0 is not scored.")
    ] = None,
    json_file: JsonOption = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    zero_is_background: ZeroOption = False,
) -> None:
    """Make a small, fast model that labels as a large one does.

    Without --seconds and --steps, it stops when it stops improving. Ctrl-C saves the best student so far.
    """
    if seconds is not None and steps is not None:
        raise ConfigError(f"--seconds {seconds:g} and --steps {steps} are both given; give one of them")
    if resume is not None and weights_from is not None:
        raise ConfigError(f"--resume {resume} and --weights-from {weights_from} are both given; give one of them")
    if preset is not None and operations is not None:
        raise ConfigError(f"--preset {preset} and --operations {operations} are both given; give one of them")
    if not comparison and (truth is not None or json_file is not None or scratch is not None):
        raise ConfigError("--truth, --json and --scratch are for the comparison; leave --no-compare away")
    options = {"seconds": seconds, "steps": steps, "device": device, "random_state": random_state}
    learning = {"student_from": student_from, "temperature": temperature, "alpha": alpha, "flips": flips}
    settings = gather(preset, config, assignments or (), options, learning)
    teachers, image, labels = told_apart(files, train_teacher, teacher_preset)
    if labels is None and (train_teacher is not None or scratch is not None):
        raise ConfigError(f"{'--scratch' if train_teacher is None else '--train-teacher'} trains on labels; add LABELS")
    reading: dict[str, Any] = {
        "voxel_size": VoxelSize.parse(voxel_size) if voxel_size is not None else None,
        "axes": axes,
        "zero_is_background": zero_is_background,
    }
    if json_file is not None:
        check_text_output(json_file, [path for path in (*files, truth) if path is not None])

    from napari_unet3d import api

    models = [path for path in (train_teacher, out, scratch) if path is not None]
    for path in models:
        api.check_model_output(path)
    api.check_apart(models, [*files, *(also or ()), truth, weights_from])
    student = api.load_model(resume) if resume else None
    origin = api.load_model(weights_from) if weights_from else None
    train_config = budget = settings.train_config()
    if student is not None:
        train_config = settings.without_budget().train_config(student.recipe.train)
    console = make_console()

    if train_teacher is not None:
        console.print(f"teacher: {train_teacher}", soft_wrap=True)
        _follow(
            console,
            train_teacher,
            lambda inbox: api.train_events(
                image,
                labels or "",
                network=teacher_preset,
                config=train_config,
                out=train_teacher,
                inbox=inbox,
                **reading,
            ),
        )
        teachers = [train_teacher]
        console.print(f"student: {out}", soft_wrap=True)

    def distillation(inbox: Inbox) -> TrainingRun:
        if student is not None and settings.has_budget:  # on top of what the interrupted run had
            inbox.put(TrainLonger(seconds=budget.seconds, steps=budget.steps))
        return api.distill_events(
            teachers,
            image,
            labels,
            also=also or (),
            network=preset,
            network_settings=settings.network,
            operations=operations,
            train=train_config,
            config=settings.distill_config(student.recipe.distill if student else None),
            record=None if student or origin else settings.record,
            out=out,
            resume=student,
            weights_from=origin,
            keep_state=keep_state,
            inbox=inbox,
            **reading,
        )

    _follow(console, out, distillation)
    names = [path.name for path in teachers]
    contenders = {str(path) if names.count(path.name) > 1 else path.name: path for path in teachers}
    if scratch is not None:
        console.print(f"the same student without a teacher: {scratch}", soft_wrap=True)
        _follow(
            console,
            scratch,
            lambda inbox: api.scratch_events(
                api.load_model(out), image, labels or "", out=scratch, inbox=inbox, **reading
            ),
        )
        contenders["without a teacher"] = scratch
    contenders["student"] = out
    if comparison:
        inbox = Inbox()
        compared = api.compare_events(
            contenders,
            image,
            labels,
            truth=truth,
            config=PredictConfig(device=train_config.device),
            inbox=inbox,
            **reading,
        )
        with (
            stop_on_signal(inbox, "stopping; the student is saved") as request,
            make_reporter(console) as reporter,
            closing(iter(compared)) as events,
        ):
            for event in events:
                reporter.show(event)
        if request:
            raise typer.Exit(INTERRUPTED)
        _show(console, compared.figures)
        if json_file is not None:
            figures = [entry.as_dict() for entry in compared.figures]
            write_text(json_file, json.dumps({"models": figures}, indent=2, allow_nan=False) + "\n")
            console.print(f"figures: {json_file.resolve()}", soft_wrap=True)


def told_apart(files: Sequence[Path], trained_first: Path | None, preset: str | None) -> Sources:
    """Teachers, image and labels, by their suffixes.

    Parameters
    ----------
    files
        The positional arguments.
    trained_first
        Where a teacher will be, if one is to be trained.
    preset
        Its network, if one was named.

    Raises
    ------
    ConfigError
        If there is no image, no teacher, or more than an image and its labels; or an exported model is to teach.
    """
    teachers = [path for path in files if path.suffix.lower() == _MODEL]
    others = [path for path in files if path not in teachers]
    for path in others:
        if path.suffix.lower() in _EXPORTED:
            raise ConfigError(
                f"{path} is an exported model, which cannot teach; give the {_MODEL} file it was made from"
            )
    if trained_first is not None and teachers:
        raise ConfigError(f"{teachers[0]} is a teacher, and --train-teacher makes another; give one of them")
    if trained_first is None and preset is not None:
        raise ConfigError(f"--teacher-preset {preset} is the network of a teacher to train; add --train-teacher MODEL")
    if trained_first is None and not teachers:
        raise ConfigError(
            f"there is no teacher: give the {_MODEL} file of a trained model first, or --train-teacher MODEL"
        )
    if not 1 <= len(others) <= 2:
        found = ", ".join(map(str, others)) or "none"
        raise ConfigError(
            f"needed besides teachers: IMAGE and perhaps LABELS; found: {found} (more images go to --also)"
        )
    return Sources(teachers, others[0], others[1] if len(others) > 1 else None)


def _follow(console: Console, out: Path, start: Callable[[Inbox], TrainingRun]) -> None:
    """Show a run until its end; where the user stops it, so does the program."""
    inbox = Inbox()
    with stop_on_signal(inbox, "stopping; the best model so far is being saved") as request:
        run = start(inbox)
        with make_reporter(console) as reporter, closing(iter(run)) as events:
            for event in events:
                reporter.show(event)
    if not reporter.steps and not request:
        raise ConfigError("the training is finished already; give --seconds or --steps to train longer")
    say_result(reporter, out)
    if request:
        raise typer.Exit(INTERRUPTED)


# --- the table --------------------------------------------------------------------------------------------


def _show(console: Console, figures: Sequence[ModelFigures]) -> None:
    first = figures[0]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model")
    columns: list[tuple[str, Callable[[ModelFigures], str]]] = []
    if first.held_out is not None:
        columns.append(("IoU held out", lambda entry: _ious(entry.held_out)))
    if first.truth is not None:
        columns.append(("IoU truth", lambda entry: _ious(entry.truth)))
    columns += [
        ("agreement", lambda entry: number(entry.agreement)),
        ("parameters", lambda entry: f"{entry.parameters:,}"),
        ("operations", lambda entry: _scaled(entry.operations, "")),
        ("file", lambda entry: "-" if entry.file_bytes is None else _scaled(entry.file_bytes, "B")),
        ("seconds", lambda entry: f"{entry.seconds:.2f}"),
        ("memory", lambda entry: _scaled(entry.memory_bytes, "B")),
    ]
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    for entry in figures:
        table.add_row(entry.name, *(text(entry) for _, text in columns))
    console.print(table)
    last = figures[-1]
    notes = []
    if first.held_out is not None or first.truth is not None:
        notes.append("IoU: mean of structures (each class)")
    if last.seconds > 0 and last.operations > 0:
        notes.append(
            f"the student takes 1/{first.operations / last.operations:.1f} of the operations of {first.name} and "
            f"labels the volume {first.seconds / last.seconds:.1f} times as fast"
        )
    for scored in (last.truth or last.held_out,):
        reference = first.truth or first.held_out
        if scored is not None and reference is not None and reference.mean_iou > 0 and not math.isnan(scored.mean_iou):
            notes.append(f"it keeps {scored.mean_iou / reference.mean_iou:.1%} of its IoU")
    console.print("; ".join(notes), soft_wrap=True)


def _ious(scored: Scored | None) -> str:
    if scored is None:
        return "-"
    return f"{number(scored.mean_iou)} ({' '.join(number(score.iou) for score in scored.classes)})"


def _scaled(value: float, unit: str) -> str:
    """``1.3 M`` and the like, in powers of 1000."""
    for letter in ("", "k", "M", "G", "T"):
        if value < 1000 or letter == "T":
            return f"{value:.3g} {letter}{unit}".rstrip()
        value /= 1000
    raise AssertionError  # the loop returns
