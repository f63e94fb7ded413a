"""The main job on a real volume: paint a few slices, train, predict the whole, compare with the truth.

Everything goes through the verbs of `api` and files, as a user of the command line would do it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet3d.demo.workflow import MakeReporter

__all__ = ["run"]


def run(out: Path, seconds: float = 60.0, *, make_reporter: MakeReporter) -> None:
    """Run the demo on the head template, and open napari on the result where there is a display.

    Parameters
    ----------
    out
        Folder for the results, made if missing; older results in it are replaced.
    seconds
        Budget of the training, as for `train --seconds`.
    make_reporter
        Makes what shows the progress of one stage.

    Raises
    ------
    UNet3dError
        If nilearn or matplotlib is missing, or a file cannot be written.
    """
    from napari_unet3d.demo.viewer_process import open_viewer
    from napari_unet3d.demo.workflow import run_demo

    run_demo(out, seconds=seconds, make_reporter=make_reporter, show=open_viewer)
