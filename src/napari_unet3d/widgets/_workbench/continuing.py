"""How a model is trained further: where its run stood, or from its weights, with outputs for new classes if need be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.config import TrainConfig
from napari_unet3d.widgets._layers.image import ImageChoice

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel


class Continuation(NamedTuple):
    """What a run begins with."""

    config: TrainConfig
    resume: TrainedModel | None = None
    weights_from: TrainedModel | None = None


def continuation(
    model: TrainedModel, config: TrainConfig, painted: Collection[int], *, is_same_run: bool
) -> Continuation:
    """How to go on for the budget of `config`.

    Parameters
    ----------
    model
        To be trained further.
    config
        The training.
    painted
        Label ids in the annotation.
    is_same_run
        The model comes from a run on the volumes that are trained on now, so its hold-out belongs to them.
    """
    record = model.recipe.record
    if model.state is None or record is None or not is_same_run or not set(painted) <= set(model.label_ids):
        return Continuation(config, weights_from=model)
    if config.seconds is not None:  # the budget of a resumed run counts from its beginning
        config = config.updated(seconds=model.state.values["seconds"] + config.seconds)
    elif config.steps is not None:
        config = config.updated(steps=record.steps + config.steps)
    return Continuation(config, resume=model)


def continuing_problem(model: Any, image: ImageChoice | None) -> str:
    """Why a model cannot be trained further on an image, with what to do; empty if it can."""
    if model is None:
        return "train or load a model first"
    if image is None:
        return "open an image first"
    network = model.recipe.network
    if network.in_channels != image.channels:
        return (
            f"the model takes {_channels(network.in_channels)} but {image.name} has {_channels(image.channels)}: "
            "choose an image (or layers) with as many, or click Train for a new network"
        )
    if network.dimensions == 3 and image.spatial_dims == 2:
        return (
            f"the model works on volumes but {image.name} is a single plane: open a volume, or choose a network with "
            "dimensions = 2 in the Network dock and click Train"
        )
    return ""


def joining_note(new: Collection[int], classes: Sequence[ClassInfo]) -> str:
    """What happens to ids painted during a run that does not know them."""
    return (
        f"{named(new, classes)} came after this training began and joins it: what was learnt is kept, the budget "
        "counts anew"
    )


def named(ids: Collection[int], classes: Sequence[ClassInfo]) -> str:
    """``class 'nucleus'``, ``classes 'nucleus' and 'vessel'``; ids without a name by their number."""
    names = {entry.id: entry.name for entry in classes}
    told = [f"'{names.get(label_id, str(label_id))}'" for label_id in sorted(ids)]
    return f"class {told[0]}" if len(told) == 1 else f"classes {', '.join(told[:-1])} and {told[-1]}"


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"
