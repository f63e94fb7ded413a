"""Training steps that survive a lack of memory and values that are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_unet3d.engine import checkpoint
from napari_unet3d.engine.bad_steps import BadSteps
from napari_unet3d.engine.compilation import not_compiled_note, reason_in_short
from napari_unet3d.engine.config import RunRecord
from napari_unet3d.engine.device import Precision
from napari_unet3d.engine.errors import DeviceError, TrainingError
from napari_unet3d.engine.learner import Learner, Outcome
from napari_unet3d.engine.memory_errors import is_out_of_memory
from napari_unet3d.engine.parallel.group import ALONE, Group
from napari_unet3d.engine.training_data import TrainingData


class Taken(NamedTuple):
    """A step that was tried."""

    outcome: Outcome | None
    """None where memory ran out: then it is as if the step had never begun."""
    warnings: tuple[str, ...] = ()
    """What the user should know."""


class NotCompiled(NamedTuple):
    """Something failed in compiled code, or while it was made."""

    reason: str


class CarefulSteps:
    """Draws batches and learns from them.

    Where memory runs out, the volume leaves the device, then the batch is halved, then the patches are. Where the
    network cannot be compiled, it is interpreted. Single steps that are not finite are skipped; if they go on, the
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
    group
        The processes that share every batch; each has one patch at least.
    """

    def __init__(
        self,
        learner: Learner,
        data: TrainingData,
        rng: np.random.Generator,
        batch_size: int,
        past: RunRecord | None = None,
        group: Group = ALONE,
    ) -> None:
        self._learner = learner
        self._data = data
        self._rng = rng
        self._batch_size = batch_size
        self._group = group
        self._bad = BadSteps()
        self._recorded_sizes = dict(past.batch_size_changes) if past else {}
        self._recorded_precisions = dict(past.precision_changes) if past else {}
        self._recorded_halvings = past.patch_halvings if past else ()
        self.patch_halvings: list[int] = []
        """Steps after which the patches became smaller."""
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
        while self.patch_halvings.count(step) < self._recorded_halvings.count(step):
            self._halve_patches(step)
        before = self._rng.bit_generator.state
        outcome, warnings = self._learn(rate), []
        if isinstance(outcome, NotCompiled):
            self._learner.stop_compiling()
            warnings.append(not_compiled_note(outcome.reason))
            self._rng.bit_generator.state = before
            outcome = self._learn(rate)
        if isinstance(outcome, Outcome):
            return Taken(outcome, (*warnings, *self._look_after(step + 1, outcome)))
        self._rng.bit_generator.state = before
        return Taken(None, (*warnings, self._use_less_memory(step)))

    def _learn(self, rate: float) -> Outcome | NotCompiled | None:
        """What a step gave; None where memory ran out."""
        try:
            with self._group.step():
                batch = self._data.batch(self._rng, self._batch_size, self._group.share(self._batch_size))
                self._group.meet()  # the processes may talk to each other from now on
                return self._learner.learn(batch, rate, seed=int(self._rng.integers(2**63)))
        except Exception as error:  # first leave this block, which holds on to the step's tensors
            if is_out_of_memory(error):
                return None
            if self._learner.is_compiled:
                return NotCompiled(reason_in_short(error))
            raise

    # --- lack of memory -----------------------------------------------------------------------------------

    def _use_less_memory(self, step: int) -> str:
        is_resident = self._group.is_any(self._data.leave_device())
        if self._learner.device.type == "cuda":
            torch.cuda.empty_cache()
        if is_resident:
            return "out of memory: the volume now lies in the computer's memory"
        if self._batch_size == self._group.size:
            if not self._halve_patches(step):
                raise too_large(self._learner.device)
            return f"out of memory: going on with patches of {' x '.join(map(str, self._data.patch_size))} voxels"
        self._change_batch_size(step, max(self._group.size, self._batch_size // 2))
        return f"out of memory: going on with {self._batch_size} patches in a step"

    def _change_batch_size(self, step: int, size: int) -> None:
        self._batch_size = size
        self.batch_size_changes.append((step, size))

    def _halve_patches(self, step: int) -> bool:
        """Whether the patches could be made smaller."""
        self.patch_halvings.append(step)
        return self._data.halve_patches()

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
            "patch_halvings": self.patch_halvings,
            "precision_changes": self.precision_changes,
            "bad_steps": self._bad.to_state(),
        }

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Go on where another one stood, `step` having been taken before; with a patch for each process."""
        self._rng = checkpoint.unpack_generator(state["rng"])
        self._batch_size = state["batch_size"]
        self.batch_size_changes = [(step, size) for step, size in state["batch_size_changes"]]
        for halved_after in state.get("patch_halvings", ()):  # files of earlier versions have none
            self._halve_patches(halved_after)
        self.precision_changes = [(step, precision) for step, precision in state["precision_changes"]]
        self._bad.restore(state["bad_steps"])
        if self._batch_size < self._group.size:
            self._change_batch_size(step, self._group.size)


def too_large(device: torch.device) -> DeviceError:
    """What to say where memory does not suffice for the least there is to do."""
    return DeviceError(
        f"{device} ran out of memory, even with one small patch in a step; give a smaller train.patch_size, fewer "
        "network.filters, or --device cpu"
    )
