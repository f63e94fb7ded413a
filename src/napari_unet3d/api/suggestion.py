"""Telling which slices to paint next."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator

from napari_unet3d.api.sources import ImageSource, LabelSource, PathLike, found_non_finite, read_annotated
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.model_file import load_model
from napari_unet3d.engine.nonfinite import watched
from napari_unet3d.engine.progress import Event, Inbox, Note
from napari_unet3d.engine.suggest.looking import suggest_slices
from napari_unet3d.engine.suggest.suggestion import Suggestion
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import AnnotatedVolume


class SuggestionRun:
    """A volume being looked over: iterate over its events, then take its `suggestions`.

    Attributes
    ----------
    suggestions
        Best first; empty before the end, after `Stop`, or where everything is annotated.
    """

    def __init__(self, events: Generator[Event, None, tuple[Suggestion, ...]]) -> None:
        self._events = events
        self.suggestions: tuple[Suggestion, ...] = ()

    def __iter__(self) -> Generator[Event, None, None]:
        self.suggestions = yield from self._events


def suggest(
    model: TrainedModel | PathLike,
    image: ImageSource,
    labels: LabelSource,
    *,
    count: int = 5,
    classes: Collection[int] | None = None,
    config: PredictConfig | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
) -> list[Suggestion]:
    """Slices to paint next, best first.

    Parameters
    ----------
    model, image, labels, count, classes, config, voxel_size, axes, zero_is_background
        As for `suggest_events`.

    Returns
    -------
    list of Suggestion
        Fewer than `count` where there is less to paint, empty where everything is annotated.
    """
    run = suggest_events(
        model,
        image,
        labels,
        count=count,
        classes=classes,
        config=config,
        voxel_size=voxel_size,
        axes=axes,
        zero_is_background=zero_is_background,
    )
    for _ in run:
        pass
    return list(run.suggestions)


def suggest_events(
    model: TrainedModel | PathLike,
    image: ImageSource,
    labels: LabelSource,
    *,
    count: int = 5,
    classes: Collection[int] | None = None,
    config: PredictConfig | None = None,
    voxel_size: VoxelSize | None = None,
    axes: str | None = None,
    zero_is_background: bool = False,
    inbox: Inbox | None = None,
) -> SuggestionRun:
    """A search for slices to paint next, ready to be iterated over.

    Parameters
    ----------
    model
        A trained model or its file.
    image
        With the model's channels.
    labels
        What is annotated so far: 0 = not annotated. Nothing at all is allowed.
    count
        Most suggestions.
    classes
        Label ids that matter; None for all of the model.
    config
        Settings of the prediction; default `PredictConfig()`.
    voxel_size, axes
        Instead of what the image file says.
    zero_is_background
        The labels hold no unannotated voxel: every id moves up by one.
    inbox
        For `Stop`, `Pause` and `Resume`.

    Raises
    ------
    UNet3dError
        If the model file, image or labels cannot be used, or memory or device are not there.
    """
    model = load_model(model) if isinstance(model, str | os.PathLike) else model
    volume, warnings = read_annotated(
        image, labels, voxel_size=voxel_size, axes=axes, zero_is_background=zero_is_background
    )
    return SuggestionRun(_events(model, volume, warnings, count, classes, config, inbox))


def _events(
    model: TrainedModel,
    volume: AnnotatedVolume,
    warnings: list[str],
    count: int,
    classes: Collection[int] | None,
    config: PredictConfig | None,
    inbox: Inbox | None,
) -> Generator[Event, None, tuple[Suggestion, ...]]:
    yield from (Note(text, "warning") for text in warnings)
    seen, watch = watched(volume.image)
    watches = [watch]
    events = suggest_slices(
        model, AnnotatedVolume(seen, volume.labels), count=count, classes=classes, config=config, inbox=inbox
    )
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            found: tuple[Suggestion, ...] = end.value
            return found
        yield from found_non_finite(watches)
        yield event
