"""``train``: a painted volume to a model file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli.options import AxesOption, DeviceOption, VoxelSizeOption, ZeroOption, pairs
from napari_unet3d.cli.progress import Reporter, make_console, make_reporter, scores
from napari_unet3d.cli.settings import gather
from napari_unet3d.cli.signals import INTERRUPTED, stop_on_signal
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.progress import Inbox, TrainLonger


def train(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The volume.")],
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS", help="Its painted labels: 0 = not annotated, 1 = background, 2 ... ."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="The .safetensors file to write.")],
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="IMAGE LABELS", help="One more painted volume; may be repeated."),
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
    device: DeviceOption = None,
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
        "device": device,
        "validation": validation,
        "random_state": random_state,
    }
    settings = gather(preset, config, assignments or (), options)
    settings.refuse_distillation()
    more = pairs(also or (), "--also", "IMAGE and LABELS")
    size = VoxelSize.parse(voxel_size) if voxel_size is not None else None

    from napari_unet3d import api

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
            image,
            labels,
            also=more,
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
        with make_reporter(console) as reporter, closing(iter(run)) as events:
            for event in events:
                reporter.show(event)
    if not reporter.steps and not request:
        raise ConfigError("the training is finished already; give --seconds or --steps to train longer")
    say_result(reporter, out)
    if request:
        raise typer.Exit(INTERRUPTED)


def say_result(reporter: Reporter, out: Path) -> None:
    """Tell the best score and where the model is."""
    if reporter.steps == 0:
        reporter.say("no step was taken, so no model was saved")
        return
    if reporter.best:
        reporter.say(f"best at step {reporter.best.step}: {scores(reporter.best).removesuffix(', best so far')}")
    reporter.say(f"model: {out.resolve()}")
