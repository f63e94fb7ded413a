"""``train``: painted volumes to a model file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli.options import AxesOption, DeviceOption, VoxelSizeOption, ZeroOption, pairs
from napari_unet3d.cli.pairs import pair_table, read_pair_list
from napari_unet3d.cli.processes import follow
from napari_unet3d.cli.progress import Reporter, make_console, make_reporter, scores
from napari_unet3d.cli.settings import gather
from napari_unet3d.cli.signals import INTERRUPTED, stop_on_signal
from napari_unet3d.cli.text_file import check_text_output
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Inbox, TrainLonger


def train(
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="The volume.")] = None,
    labels: Annotated[
        Path | None,
        typer.Argument(metavar="LABELS", help="Its painted labels: 0 = not annotated, 1 = background, 2 ... ."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="The .safetensors file to write.")],
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="IMAGE LABELS", help="One more painted volume; may be repeated."),
    ] = None,
    validate_on: Annotated[
        list[Path] | None,
        typer.Option(
            "--validate-on",
            metavar="IMAGE LABELS",
            help="A painted volume to measure on instead of held-out slices; may be repeated.",
        ),
    ] = None,
    pair_list: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="FILE.csv", help="Painted volumes: columns image,labels[,validation]."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="A named network; default: fast.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.yaml", help="A recipe, or any part of one."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="One setting, e.g. network.levels=3; may be repeated."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Time from reading the input to the saved model.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", help="Stop after so many validations without improvement."),
    ] = None,
    device: DeviceOption = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", help="Processes that share every batch; default: one for each device."),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option("--validation", help="Share of the annotated slices held out; default: 0.2."),
    ] = None,
    random_state: Annotated[
        int | None, typer.Option("--random-state", help="Seed of everything random; default: 0.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="MODEL", help="Go on with an interrupted training."),
    ] = None,
    weights_from: Annotated[
        Path | None, typer.Option("--weights-from", metavar="MODEL", help="Begin with these weights.")
    ] = None,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Keep in the finished file what --resume needs.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE.csv", help="Write loss and scores there meanwhile."),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="The same for TensorBoard (an extra)."),
    ] = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    zero_is_background: ZeroOption = False,
) -> None:
    """Train a network on a few painted slices.

    Without --seconds and --steps, training stops when it stops improving. Ctrl-C saves the best model so far.
    """
    if seconds is not None and steps is not None:
        raise ConfigError(f"--seconds {seconds:g} and --steps {steps} are both given; give one of them")
    if resume is not None and weights_from is not None:
        raise ConfigError("--resume and --weights-from are both given; give one of them")
    options = {
        "seconds": seconds,
        "steps": steps,
        "patience": patience,
        "device": device,
        "processes": processes,
        "validation": validation,
        "random_state": random_state,
    }
    settings = gather(preset, config, assignments or (), options)
    settings.refuse_distillation()
    learnt, measured = _gathered(image, labels, also or (), validate_on or (), pair_list)
    if measured and validation:
        raise ConfigError(
            f"--validation {validation:g} holds slices out, but volumes to validate on are given, too; leave one away"
        )
    size = VoxelSize.parse(voxel_size) if voxel_size is not None else None
    if log is not None:
        check_text_output(log, [path for pair in (*learnt, *measured) for path in pair])

    from napari_unet3d import api
    from napari_unet3d.api.run_log import RunLog
    from napari_unet3d.engine.parallel.start import is_follower

    resumed = api.load_model(resume) if resume else None
    inbox = Inbox()
    if resumed is None:
        train_config = settings.train_config()
    else:  # a budget given now comes on top of what the interrupted run had
        budget = settings.train_config()
        if settings.has_budget:
            inbox.put(TrainLonger(seconds=budget.seconds, steps=budget.steps))
        train_config = settings.without_budget().train_config(resumed.recipe.train)
    console = make_console()
    promise = "stopping; the best model so far is being saved"
    with stop_on_signal(inbox, promise) as request:
        run = api.train_events(
            *learnt[0],
            also=learnt[1:],
            validate_on=measured,
            network=preset,
            network_settings=settings.network,
            config=train_config,
            record=None if resume or weights_from else settings.record,
            voxel_size=size,
            axes=axes,
            zero_is_background=zero_is_background,
            out=out,
            resume=resumed,
            weights_from=api.load_model(weights_from) if weights_from else None,
            keep_state=keep_state,
            inbox=inbox,
        )
        if is_follower():
            return follow(run)
        if len(run.pairs) > 1:
            console.print(pair_table(run.pairs))
        with (
            RunLog(log, tensorboard, is_continued=resume is not None) as logs,
            make_reporter(console) as reporter,
            closing(iter(run)) as events,
        ):
            for event in events:
                reporter.show(event)
                for note in logs.show(event):
                    reporter.show(note)
    if not reporter.steps and not request:
        raise ConfigError("the training is finished already; give --seconds or --steps to train longer")
    say_result(reporter, out)
    if request:
        raise typer.Exit(INTERRUPTED)


def _gathered(
    image: Path | None, labels: Path | None, also: Sequence[Path], validate_on: Sequence[Path], pair_list: Path | None
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
    """Image and labels of the volumes to train on, and of those to measure on.

    Raises
    ------
    ConfigError
        If there is none to train on, or labels are missing.
    """
    if image is not None and labels is None:
        raise ConfigError(f"{image} has no labels; give IMAGE LABELS")
    learnt = [(image, labels)] if image is not None and labels is not None else []
    listed = read_pair_list(pair_list) if pair_list is not None else []
    learnt += [(pair.image, pair.labels) for pair in listed if not pair.is_validation]
    learnt += pairs(also, "--also", "IMAGE and LABELS")
    measured = [(pair.image, pair.labels) for pair in listed if pair.is_validation]
    measured += pairs(validate_on, "--validate-on", "IMAGE and LABELS")
    if not learnt:
        raise ConfigError("there is nothing to train on; give IMAGE LABELS, or --pairs FILE.csv with training pairs")
    return learnt, measured


def say_result(reporter: Reporter, out: Path) -> None:
    """Tell the best score and where the model is."""
    if reporter.steps == 0:
        reporter.say("no step was taken, so no model was saved")
        return
    if reporter.best:
        reporter.say(f"best at step {reporter.best.step}: {scores(reporter.best).removesuffix(', best so far')}")
    reporter.say(f"model: {out.resolve()}")
