"""The command line: arguments become settings, settings go to `api`, events become text.

One file for each verb; torch is imported only once a verb begins to work, so that help is quick.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        Without the name of the program; by default those of the process.

    Returns
    -------
    int
        0, or 1 after an error (one line on stderr), or 130 if interrupted.
    """
    from napari_unet3d.cli.app import run

    return run(arguments)
