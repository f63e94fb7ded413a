"""``info``: what a preset or a model is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from napari_unet3d.cli.options import parse_triple
from napari_unet3d.cli.progress import duration, make_console
from napari_unet3d.cli.settings import Settings, gather
from napari_unet3d.cli.text_file import check_text_output, write_text
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import NetworkConfig, Recipe, Triple
from napari_unet3d.engine.describe import Description, describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.presets import network_config, network_presets
from napari_unet3d.engine.recipe_text import dump_yaml

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel

_SIDE: Final = 64
"""Voxels along each side of the input that sizes are told for, unless another is given."""


def info(
    name: Annotated[str, typer.Argument(metavar="MODEL_OR_PRESET", help="A model file, or the name of a network.")],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE.yaml", help="Write the settings there, for train --config."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a preset, e.g. network.levels=3."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="Z,Y,X", help="Input to tell sizes, operations and memory for."),
    ] = None,
) -> None:
    """Show layers, sizes, parameters, receptive field, cost, and how a model was trained."""
    size = parse_triple(shape, "--shape") if shape is not None else None
    model = _load(name)
    if model and assignments:
        raise ConfigError("--set changes presets only; a model is as it was trained")
    settings = gather(None if model else name, None, assignments or (), {})
    network = model.recipe.network if model else network_config(name, **settings.network)
    if recipe is not None:
        check_text_output(recipe, [Path(name)])
    description = describe(network)
    size = size or _usual_shape(network, description)
    console = make_console()
    console.print(f"{'model' if model else 'preset'} {name}", soft_wrap=True)
    console.print(_layer_table(description, size))
    console.print(_level_table(description, size))
    _print_facts(console, _network_facts(description, size, model.voxel_size if model else None))
    if model:
        _print_facts(console, _model_facts(model, Path(name)))
    if recipe is not None:
        values = model.recipe.model_dump(mode="json") if model else _preset_values(network, settings)
        write_text(recipe, dump_yaml(values))
        console.print(f"recipe: {recipe.resolve()}", soft_wrap=True)


def _load(name: str) -> TrainedModel | None:
    """The model, unless the name is that of a preset."""
    if name in network_presets():
        return None
    if not Path(name).exists() and "." not in name and "/" not in name:
        known = ", ".join(network_presets())
        raise ConfigError(f"{name!r} is neither a model file nor a network preset; known presets: {known}")

    from napari_unet3d import api

    return api.load_model(name)


def _usual_shape(network: NetworkConfig, description: Description) -> Triple:
    return description.legal_shape((1 if network.dimensions == 2 else _SIDE, _SIDE, _SIDE))


def _preset_values(network: NetworkConfig, settings: Settings) -> dict[str, Any]:
    """A recipe that leaves channels, classes and voxels to the data, unless they were given."""
    from_data = {"in_channels", "classes", "feature_voxel"} - settings.network.keys()
    recipe = Recipe(network=network, train=settings.train_config())
    return recipe.model_dump(mode="json", exclude={"network": from_data, "distill": True, "record": True})


# --- tables -----------------------------------------------------------------------------------------------


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _layer_table(description: Description, shape: Triple) -> Table:
    table = _table(f"layers, for an input of {_sizes(shape)} (Z Y X)")
    for heading in ("layer", "kind", "level", "channels", "kernel", "stride", "output"):
        table.add_column(heading, overflow="fold")
    table.add_column("parameters", justify="right")
    for layer, size in zip(description.layers, description.layer_shapes(shape), strict=True):
        table.add_row(
            layer.name,
            layer.kind,
            str(layer.level),
            f"{layer.in_channels} -> {layer.out_channels}",
            _sizes(layer.kernel),
            _sizes(layer.stride),
            _sizes(size),
            f"{layer.parameters:,}",
        )
    return table


def _level_table(description: Description, shape: Triple) -> Table:
    table = _table("levels")
    for heading in ("level", "filters", "encoder", "skip crop", "decoder"):
        table.add_column(heading)
    for row in description.shapes(shape):
        table.add_row(
            str(row.level),
            str(row.filters),
            _sizes(row.encoder),
            _sizes(row.crop) if row.crop and any(row.crop) else "-",
            _sizes(row.decoder) if row.decoder else "-",
        )
    return table


def _print_facts(console: Console, facts: Iterator[tuple[str, str]]) -> None:
    for name, text in facts:
        console.print(f"{name + ':':<20} {text}", soft_wrap=True)


def _network_facts(description: Description, shape: Triple, voxel_size: VoxelSize | None) -> Iterator[tuple[str, str]]:
    config, field = description.config, description.receptive_field
    yield "network", f"{config.kind}, {config.dimensions}D, {config.levels} levels, norm {config.norm}"
    yield "channels, classes", f"{config.in_channels}, {config.classes}"
    yield "features", config.features
    yield "parameters", f"{description.parameters:,}"
    yield (
        "running statistics",
        f"{description.running_statistics:,} ({description.parameters + description.running_statistics:,} with them)",
    )
    reach = ""
    if voxel_size is not None and voxel_size.unit != "pixel":
        lengths = [n * edge for n, edge in zip(field, voxel_size.zyx, strict=True)]
        reach = " = " + " x ".join(f"{length:.4g}" for length in lengths) + f" {voxel_size.unit}"
    yield "receptive field", f"{_sizes(field)} voxels{reach}"
    yield "context of a tile", f"{_sizes(description.context)} voxels on each side"
    yield "total stride", _sizes(description.total_stride)
    yield "output", f"{_sizes(description.output_shape(shape))} for an input of {_sizes(shape)}"
    operations = description.operations(shape)
    yield "operations", f"{operations / 1e9:.4g} billion ({operations / math.prod(shape):.4g} per voxel)"
    for kind, training in (("to train", True), ("to predict", False)):
        full, half = (description.memory(shape, training=training, bytes_per_value=size) for size in (4, 2))
        yield f"memory {kind}", f"{_amount(full)} in float32, {_amount(half)} in bfloat16"


def _model_facts(model: TrainedModel, path: Path) -> Iterator[tuple[str, str]]:
    from napari_unet3d.engine.model_file import read_versions

    for entry in model.classes:
        yield f"class {entry.id}", f"{entry.name} ({entry.colour})"
    yield "voxel size", str(model.voxel_size)
    yield "images", f"{model.spatial_dims}D, channels: {model.in_channels}"
    for number, channel in enumerate(model.normalization.channels):
        yield (
            f"channel {number}",
            (
                f"(grey value - {channel.offset:.5g}) * {channel.factor:.5g}, "
                f"kept within {channel.low:.5g} and {channel.high:.5g}; NaN counts as {channel.fill:.5g}"
            ),
        )
    record = model.recipe.record
    if record:
        yield (
            "training",
            (
                f"{record.steps} steps in {duration(record.seconds)} on {record.device} ({record.precision}, "
                f"{record.threads} CPU threads); weights of step {record.best_step}; {record.stop_reason}"
            ),
        )
        if record.stage_seconds:
            yield "time", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.stage_seconds.items())
        yield "patches", f"{record.batch_size} of {_sizes(record.patch_size)} in a step"
        held_out = ", ".join(f"volume {v} {'ZYX'[axis]} {index}" for v, axis, index in record.held_out)
        yield "held-out slices", held_out or "none"
    history = model.history
    if history.steps:
        ends = dict.fromkeys((history.steps[0], history.steps[-1]))
        yield "loss", ", ".join(f"{point.loss:.3f} at step {point.step}" for point in ends)
    scored = [point for point in history.validations if point.mean_iou is not None]
    if scored:
        best = max(scored, key=lambda point: point.mean_iou or 0.0)
        yield "IoU on held-out", f"mean of structures {best.mean_iou:.3f} at step {best.step} (the best)"
    yield "can be resumed", "no" if model.state is None else "yes"
    yield "written with", ", ".join(f"{name} {version}" for name, version in read_versions(path).items())


def _sizes(values: Sequence[int]) -> str:
    return " x ".join(map(str, values))


def _amount(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
