"""``export``: a model in a format that other programs run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_unet3d.cli.options import AxesOption, VoxelSizeOption, ZeroOption
from napari_unet3d.cli.progress import make_console, make_reporter
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import validated


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model.")],
    format: Annotated[str, typer.Option("--format", metavar="NAME", help="onnx, pt2 or bioimageio.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The .onnx, .pt2 or .zip to write.")],
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="IMAGE", help="Compare on it; a package shows its middle. For --quantize needed."
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", metavar="METHOD", help="int8 convolutions in ONNX: static or dynamic."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="LABELS", help="What --quantize costs is measured against it.")
    ] = None,
    zero_is_background: ZeroOption = False,
    force: Annotated[bool, typer.Option("--force", help="Write the quantised model even if slower or worse.")] = False,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Of a package.")] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="Of a package: one or two sentences.")
    ] = None,
    authors: Annotated[
        list[str] | None, typer.Option("--author", metavar="NAME", help="Of a package; may be repeated.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="SPDX", help="Of a package; default: CC-BY-4.0.")
    ] = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
) -> None:
    """Write a model as ONNX, torch.export or bioimage.io package, for other programs."""
    given: dict[str, Any] = {"name": name, "description": description, "authors": authors or None, "licence": licence}
    given = {field: value for field, value in given.items() if value is not None}
    size = VoxelSize.parse(voxel_size) if voxel_size is not None else None

    from napari_unet3d import api
    from napari_unet3d.exports.bioimageio import PackageDescription

    events = api.export_events(
        model,
        out,
        format,  # type: ignore[arg-type]  # checked there
        image=image,
        truth=truth,
        zero_is_background=zero_is_background,
        voxel_size=size,
        axes=axes,
        quantize=quantize,  # type: ignore[arg-type]  # checked there
        force=force,
        about=validated(PackageDescription, given, "--") if given else None,
    )
    with make_reporter(make_console()) as reporter, closing(events):
        for note in events:
            reporter.show(note)
