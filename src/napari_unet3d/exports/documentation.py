"""The page that goes with a package."""

from __future__ import annotations

from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.trained_model import TrainedModel


def documentation(model: TrainedModel, description: str) -> str:
    """Markdown: what the model does, what it was trained on, how good it was found to be, how to use it."""
    network, record = model.recipe.network, model.recipe.record
    facts = describe(network)
    axes = "B C Z Y X" if network.dimensions == 3 else "B C Y X"
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
    first = 1 if network.classes == 1 else 0
    for channel, entry in enumerate(model.classes[first:]):
        lines.append(f"| {channel} | {entry.id} | {_cell(entry.name)} |")
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
        f"Output of the graph: logits. After the {'sigmoid' if network.classes == 1 else 'softmax over channels'}: "
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


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sizes(values: object) -> str:
    return " x ".join(map(str, values))  # type: ignore[call-overload]
