"""Recorded runs, repeated or gone on with in another number of processes."""

from __future__ import annotations

from napari_unet3d.engine.config import RunRecord
from napari_unet3d.engine.errors import ConfigError


def check_repeatable(record: RunRecord, processes: int) -> None:
    """Make sure that the batches of a recorded run suffice for the processes that shall repeat it.

    Raises
    ------
    ConfigError
        If a batch has fewer patches than there are processes.
    """
    least = min([record.batch_size, *(size for _, size in record.batch_size_changes)])
    if least < processes:
        raise ConfigError(
            f"the recorded run took {least} {'patch' if least == 1 else 'patches'} in a step, too few for {processes} "
            f"processes; repeat it with --processes {least} or fewer"
        )


def difference_note(record: RunRecord, processes: int) -> str:
    """What differs from a recorded run because of the number of processes; empty if that is the same."""
    if record.processes == processes:
        return ""
    return (
        f"the recorded run had {record.processes} process{'es' if record.processes > 1 else ''}, this one has "
        f"{processes}: weights differ by rounding, and by more with batch normalisation or dropout"
    )
