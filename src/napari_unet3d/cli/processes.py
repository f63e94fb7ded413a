"""``train`` as one of several processes that torchrun started."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import typer

from napari_unet3d.engine.progress import Event


def follow(run: Iterable[Event]) -> None:
    """Take part in silence: the first process shows what happens, writes files and obeys signals.

    Raises
    ------
    typer.Exit
        With code 1, if another process is gone; it has said why.
    """
    from napari_unet3d.engine.parallel.group import PartnerLost

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        for _ in run:
            pass
    except PartnerLost:
        raise typer.Exit(1) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
