"""``demo``: the whole way on a real head scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli.progress import make_console, make_reporter


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results, made if missing.")] = Path(
        "demo-output"
    ),
    seconds: Annotated[float, typer.Option("--seconds", help="Time for training.")] = 60.0,
) -> None:
    """Train on a few slices of a real head scan, label the whole, write pictures and a report."""
    from napari_unet3d import demo as demonstration

    console = make_console()
    demonstration.run(out, seconds, make_reporter=lambda: make_reporter(console))
