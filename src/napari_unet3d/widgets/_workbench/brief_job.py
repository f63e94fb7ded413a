"""Jobs that end within seconds, such as reading and writing files: a result, or a sentence for the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from qtpy.QtCore import QObject

from napari_unet3d.widgets._workers import Ended, Job, Work


class Teller(Protocol):
    """What shows sentences to the user."""

    def tell(self, message: str, *, warning: bool = False) -> None:
        """Show a sentence."""


def start_brief_job(owner: QObject, teller: Teller, work: Work, use: Callable[[Any], None]) -> None:
    """Do the work in a thread, then call `use` with its result on the GUI thread; errors are told to the user.

    Parameters
    ----------
    owner
        Keeps the job until it has ended.
    teller
        Shows errors.
    work, use
        What to do, and what to do with its result.
    """
    job = Job(work, owner)

    def on_ended(ended: Ended) -> None:
        job.deleteLater()
        if ended.error:
            teller.tell(ended.error, warning=True)
        else:
            use(ended.result)

    job.ended.connect(on_ended)
    job.start()
