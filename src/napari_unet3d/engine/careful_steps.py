"""Training steps that survive a lack of memory and values that are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_unet3d.engine import checkpoint
from napari_unet3d.engine.bad_steps import BadSteps
from napari_unet3d.engine.config import RunRecord
from napari_unet3d.engine.device import Precision
from napari_unet3d.engine.errors import DeviceError, TrainingError
from napari_unet3d.engine.learner import Learner, Outcome
from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.training_data import TrainingData


class Taken(NamedTuple):
    """A step that was tried."""

    outcome: Outcome | None
    """None where memory ran out: then it is as if the step had never begun."""
    warnings: tuple[str, ...] = ()
    """What the user should know."""


class CarefulSteps:
    """Draws batches and learns from them.

    Where memory runs out, the batch is halved. Single steps that are not finite are skipped; if they go on, the
    arithmetic falls back to float32.

    Parameters
    ----------
    learner, data
        What learns, and from what.
    rng
        Draws the batches.
    batch_size
        Patches in a step.
    past
        Record of the run that is repeated: what changed there changes here after the same steps.
    """

    def __init__(
        self,
        learner: Learner,
        data: TrainingData,
        rng: np.random.Generator,
        batch_size: int,
        past: RunRecord | None = None,
    ) -> None:
        self._learner = learner
        self._data = data
        self._rng = rng
        self._batch_size = batch_size
        self._bad = BadSteps()
        self._recorded_sizes = dict(past.batch_size_changes) if past else {}
        self._recorded_precisions = dict(past.precision_changes) if past else {}
        self.batch_size_changes: list[tuple[int, int]] = []
        """Step after which, and number of patches with which it went on."""
        self.precision_changes: list[tuple[int, Precision]] = []
        """Step after which, and arithmetic with which it went on."""

    def take(self, step: int, rate: float) -> Taken:
        """One step at a learning rate, `step` having been taken before.

        Raises
        ------
        DeviceError
            If memory does not suffice for a single patch.
        TrainingError
            If the loss stays non-finite even in float32.
        """
        if self._recorded_sizes.get(step, self._batch_size) < self._batch_size:
            self._change_batch_size(step, self._recorded_sizes[step])
        before = self._rng.bit_generator.state
        outcome = self._learn(rate)
        if outcome is None:
            self._rng.bit_generator.state = before
            return Taken(None, (self._use_less_memory(step),))
        return Taken(outcome, self._look_after(step + 1, outcome))

    def _learn(self, rate: float) -> Outcome | None:
        try:
            batch = self._data.batch(self._rng, self._batch_size)
            return self._learner.learn(batch, rate, seed=int(self._rng.integers(2**63)))
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                return None  # first leave this block, which holds on to the step's tensors
            raise

    # --- lack of memory -----------------------------------------------------------------------------------

    def _use_less_memory(self, step: int) -> str:
        if self._batch_size == 1:
            raise too_large(self._learner.device)
        if self._learner.device.type == "cuda":
            torch.cuda.empty_cache()
        self._change_batch_size(step, self._batch_size // 2)
        return f"out of memory: going on with {self._batch_size} patches in a step"

    def _change_batch_size(self, step: int, size: int) -> None:
        self._batch_size = size
        self.batch_size_changes.append((step, size))

    # --- values that are not finite -----------------------------------------------------------------------

    def _look_after(self, step: int, outcome: Outcome) -> tuple[str, ...]:
        self._bad.count(outcome.is_bad)
        is_due = step in self._recorded_precisions and step not in dict(self.precision_changes)
        if self._bad.persist or is_due:
            return (self._fall_back(step),)
        if self._bad.worth_telling(step):
            return (
                f"{self._bad.total} of {step} steps were not finite and were skipped; if it goes on, lower "
                "train.learning_rate or set train.precision to float32",
            )
        return ()

    def _fall_back(self, step: int) -> str:
        self._bad.forgive()
        before = self._learner.precision
        if before == "float32":
            raise TrainingError(
                "the loss was not finite in several steps in a row; lower train.learning_rate "
                f"(now {self._learner.config.learning_rate:g}) and train again"
            )
        self._learner.fall_back()
        self.precision_changes.append((step, "float32"))
        return f"the loss was not finite in {before}: going on in float32"

    # --- keeping ------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Plain values from which `restore` goes on."""
        return {
            "rng": checkpoint.pack_generator(self._rng),
            "batch_size": self._batch_size,
            "batch_size_changes": self.batch_size_changes,
            "precision_changes": self.precision_changes,
            "bad_steps": self._bad.to_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another one stood."""
        self._rng = checkpoint.unpack_generator(state["rng"])
        self._batch_size = state["batch_size"]
        self.batch_size_changes = [(step, size) for step, size in state["batch_size_changes"]]
        self.precision_changes = [(step, precision) for step, precision in state["precision_changes"]]
        self._bad.restore(state["bad_steps"])


def too_large(device: torch.device) -> DeviceError:
    """What to say where memory does not suffice for the least there is to do."""
    return DeviceError(
        f"{device} ran out of memory, even with one patch in a step; give a smaller train.patch_size, fewer "
        "network.filters, or --device cpu"
    )
