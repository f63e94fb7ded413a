"""What the demo found: figures for programs (JSON) and for people (Markdown)."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from napari_unet3d.demo import files
from napari_unet3d.demo.head import AXIS_NAMES, CLASS_NAMES, DemoVolume
from napari_unet3d.engine.classes import default_classes
from napari_unet3d.engine.config import RunRecord
from napari_unet3d.engine.metrics import ClassEvaluation, Evaluation
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import NOT_ANNOTATED

COLOURS: Final = {entry.id: entry.colour for entry in default_classes(tuple(CLASS_NAMES))}
"""Colour of each label id, as in a model."""

_DATA: Final = (
    "Left half of the ICBM 2009a non-linear symmetric T1 template, an average of 152 heads (Fonov et al. 2011), "
    "brain cut out, 1 mm, as shipped with nilearn. Truth: the largest share among grey matter, white matter and "
    "the rest in the template's tissue maps. The template mirrors left and right, so only one half is used."
)


@dataclass(frozen=True, eq=False)
class DemoReport:
    """The figures of one run.

    Parameters
    ----------
    head
        The volume.
    model
        The trained model, with its record.
    budget
        The option that limited the training, such as ``--seconds 60``.
    training_seconds, prediction_seconds
        Wall time of the two verbs, files included.
    evaluation
        Over voxels on no painted slice.
    """

    head: DemoVolume
    model: TrainedModel
    budget: str
    training_seconds: float
    prediction_seconds: float
    evaluation: Evaluation

    @property
    def iou(self) -> Mapping[int, float]:
        """IoU of each structure, by label id."""
        return {entry.score.class_id: entry.score.iou for entry in self._structures()}

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type in the folder of the results to do the same."""
        return (
            f"napari-unet3d train {files.IMAGE} {files.PAINTED} --out {files.MODEL} {self.budget}",
            f"napari-unet3d predict {files.MODEL} {files.IMAGE} --out {files.LABELS} --uncertainty {files.UNCERTAINTY}",
            f"napari-unet3d evaluate {files.LABELS} {files.TRUTH} --exclude {files.PAINTED}",
        )

    def summary(self) -> str:
        """One line: how good, and how fast."""
        scores = ", ".join(f"{CLASS_NAMES[label_id]} {iou:.3f}" for label_id, iou in self.iou.items())
        return (
            f"IoU on voxels of no painted slice: {scores} (trained for {self.training_seconds:.0f} s, "
            f"predicted in {self.prediction_seconds:.0f} s on {self._record.device})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        planes = self.head.painted_planes()
        record = self._record
        return {
            "data": {
                "description": _DATA,
                "shape_zyx": list(self.head.image.shape),
                "painted_slices": [{"axis": "zyx"[axis], "index": index} for axis, index in planes],
                "painted_share": self._painted_share(),
            },
            "classes": [
                {"id": label_id, "name": name, "colour": COLOURS[label_id]} for label_id, name in CLASS_NAMES.items()
            ],
            "iou": {CLASS_NAMES[label_id]: iou for label_id, iou in self.iou.items()},
            "evaluation": self.evaluation.as_dict(),
            "training": {
                "seconds": self.training_seconds,
                "record": record.model_dump(mode="json"),
                "notes": list(self.model.history.notes),
            },
            "prediction": {"seconds": self.prediction_seconds},
            "machine": _machine(),
            "commands": list(self.commands),
        }

    def as_markdown(self) -> str:
        """The same for reading, with the pictures."""
        planes = self.head.painted_planes()
        record = self._record
        shape = " x ".join(str(edge) for edge in self.head.image.shape)
        painted = "; ".join(
            f"{name} ({'zyx'[number]}) {', '.join(str(index) for axis, index in planes if axis == number)}"
            for number, name in enumerate(AXIS_NAMES)
        )
        scores = "\n".join(self._row(entry) for entry in self._structures())
        machine = _machine()
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        notes = "\n".join(f"- {note}" for note in self.model.history.notes)
        commands = "\n".join(self.commands)
        return f"""# From {len(planes)} painted slices to half a head

![Image, painted slices, prediction, truth, errors and uncertainty on three axes]({files.PICTURE})

| | IoU | Dice | precision | recall | true volume | predicted volume | mean surface distance |
|---|---|---|---|---|---|---|---|
{scores}

Scored are the {self.evaluation.scored_voxels:,} voxels that lie on no painted slice; volumes are those of the whole.

## What was done

{_DATA}

- Volume: {shape} voxels (z, y, x).
- Painted: {len(planes)} whole slices, {self._painted_share():.1%} of all voxels, at even distances, chosen before
  any result was seen: {painted}.
- Training: {self.training_seconds:.1f} s from reading the files to the saved model, {record.steps} steps, the weights
  of step {record.best_step} kept; {record.device}, {record.precision}, {record.threads} threads.
- Prediction: {self.prediction_seconds:.1f} s, files included.
- Machine: {machine["system"]}, {machine["processor"]}, {machine["cores"]} cores; {versions}.

{notes}

![Loss, IoU on held-out slices, IoU of each axial slice]({files.CURVES})

## The same by hand

In this folder:

```sh
{commands}
```

`{files.PAINTED}` is what you would paint on your own volume: 0 = not annotated, {_legend()}.
"""

    @property
    def _record(self) -> RunRecord:
        record = self.model.recipe.record
        assert record is not None, "a trained model has a record"
        return record

    def _structures(self) -> list[ClassEvaluation]:
        """The classes but the background."""
        return [entry for entry in self.evaluation.classes if entry.score.class_id in list(CLASS_NAMES)[1:]]

    def _painted_share(self) -> float:
        return float((self.head.painted() != NOT_ANNOTATED).mean())

    def _row(self, entry: ClassEvaluation) -> str:
        score, unit = entry.score, self.evaluation.unit
        litre = 1e-3 if unit == "mm" else 1.0  # cubic mm to ml
        volume = "ml" if unit == "mm" else f"{unit}³"
        return (
            f"| {CLASS_NAMES[score.class_id]} | **{score.iou:.3f}** | {score.dice:.3f} | {score.precision:.3f} "
            f"| {score.recall:.3f} | {entry.volume_truth * litre:.1f} {volume} "
            f"| {entry.volume_prediction * litre:.1f} {volume} | {entry.surface.mean:.2f} {unit} |"
        )


def _legend() -> str:
    return ", ".join(f"{label_id} = {name}" for label_id, name in CLASS_NAMES.items())


def _machine() -> Mapping[str, Any]:
    return {
        "system": platform.system(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {
            name: found for name in ("napari-unet3d", "torch", "nilearn") if (found := _version(name)) is not None
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
