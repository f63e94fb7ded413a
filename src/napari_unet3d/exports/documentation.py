"""The page that goes with a package."""

from __future__ import annotations

from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.heads import is_sigmoid
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.exports.grey_network import space_axes


def documentation(model: TrainedModel, description: str) -> str:
    """Markdown: what the model does, what it was trained on, how good it was found to be, how to use it."""
    network, record = model.recipe.network, model.recipe.record
    facts = describe(network)
    axes = " ".join(["B", "C", *("ZYX"[axis] for axis in space_axes(network))])
    told_apart = is_sigmoid(network)
    lines = [
        f"# {network.dimensions}D {network.kind}",
        "",
        description,
        "",
        "## Classes",
        "",
        "| output channel | id in labels | class |",
        "|---|---|---|",
    ]
    for channel, entry in enumerate(model.classes[1:] if told_apart else model.classes):
        lines.append(f"| {channel} | {entry.id} | {_cell(entry.name)} |")
    if told_apart:
        lines += ["", _background(model)]
    lines += [
        "",
        "## Input and output",
        "",
        f"Input: {axes}, float32 grey values as they are in the image, {model.in_channels} channel(s). The graph clips "
        "and scales them as in training; do not normalise them before.",
        f"Voxel size in training (Z Y X): {model.voxel_size}.",
        f"Sizes (Z Y X): multiples of {_sizes(facts.total_stride)}, plus "
        f"{_sizes([a - b for a, b in zip(facts.legal_shape((1, 1, 1)), facts.total_stride, strict=True)])}. "
        f"Receptive field: {_sizes(facts.receptive_field)} voxels.",
        f"Output of the graph: logits. After the {'sigmoid' if told_apart else 'softmax over channels'}: "
        "probabilities.",
        "",
        "## Training and validation",
        "",
        "Trained on the annotated voxels of a few painted slices, by a loss over those voxels only.",
    ]
    if record is not None:
        lines.append(f"{record.steps} steps in {record.seconds:.0f} s; weights of step {record.best_step}.")
        held_out = ", ".join(f"volume {volume} {'ZYX'[axis]} {index}" for volume, axis, index in record.held_out)
        lines.append(f"Held-out slices: {held_out or 'none'}.")
    scores = [point.mean_iou for point in model.history.validations if point.mean_iou is not None]
    lines.append(
        f"Mean IoU of the structures on the held-out annotation: {max(scores):.3f}."
        if scores
        else "It was not validated: judge its results on your own images before using them."
    )
    lines += [
        "Images that differ from the training image in structure, contrast, noise or voxel size can give wrong labels: "
        "look at the result, and measure it against labels of your own.",
        "",
        "## Use",
        "",
        "With bioimageio.core or any program that runs bioimage.io models, or with the program that made it:",
        "",
        "```sh",
        "napari-unet3d predict PACKAGE.zip IMAGE --out LABELS.tif",
        "```",
        "",
    ]
    return "\n".join(lines)


def _background(model: TrainedModel) -> str:
    """What has no channel."""
    first = model.classes[0]
    each = "Each structure is told by itself: their probabilities need not sum to 1. " if len(model.classes) > 2 else ""
    none = f"is {_cell(first.name)} (id {first.id}), which has no channel."
    return f"{each}A voxel where no probability is above 0.5 {none}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sizes(values: object) -> str:
    return " x ".join(map(str, values))  # type: ignore[call-overload]
