"""How fast a run was, so that the seconds of a step can be told for other networks."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from napari_unet3d.engine.config import NetworkConfig, RunRecord
from napari_unet3d.engine.describe import describe
from napari_unet3d.widgets._network_summary import training_rate

_LEAST_STEPS = 3


def measured_rate(network: NetworkConfig, record: RunRecord, seconds: Sequence[float]) -> float | None:
    """Multiply-additions a second in training; None where there were too few steps to tell.

    Parameters
    ----------
    network, record
        Of the run.
    seconds
        Since the start, after each step. The usual time between two steps counts, so validations and pauses do not.
    """
    gaps = [later - earlier for earlier, later in itertools.pairwise(seconds)]
    if len(gaps) < _LEAST_STEPS:
        return None
    step = statistics.median(gaps)
    batch = record.batch_size_changes[-1][1] if record.batch_size_changes else record.batch_size
    operations = describe(network).operations(record.patch_size) * batch
    return training_rate(operations, step) if step > 0 else None
