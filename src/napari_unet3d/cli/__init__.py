"""The command line: arguments become settings, settings go to `api`, events become text.

One file for each verb; torch is imported only once a verb begins to work, so that help is quick.
"""

from __future__ import annotations

import os
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
    # OpenMP threads that spin while they wait lose everything to any other program on the machine: 2.2 s instead of
    # 0.4 s a step on two cores with one busy neighbour, for 10 % on an idle one (docs/decisions/threads.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from napari_unet3d.cli.app import run

    return run(arguments)
