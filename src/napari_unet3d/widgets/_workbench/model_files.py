"""Models and labels read from files and written to them, in jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.widgets._session import Curves, Phase, Point
from napari_unet3d.widgets._workbench.brief_job import start_brief_job
from napari_unet3d.widgets._workbench.continuing import named
from napari_unet3d.widgets._workbench.keeping import take_network
from napari_unet3d.widgets._workbench.labels_source import LabelsSource
from napari_unet3d.widgets._workers import LabelExportTask, LoadTask, SaveTask

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.widgets._workbench.bench import Workbench

_SUFFIX: Final = ".safetensors"


class ModelFiles(QObject):
    """Reads and writes for the bench.

    Parameters
    ----------
    bench
        Has the session, the classes and the annotation.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session

    def load(self, path: Path) -> None:
        """Read a model file: its settings, classes and curves come back too."""
        self._session.tell(f"reading {path.name}")
        start_brief_job(self, self._session, LoadTask(path), lambda model: self._use(model, path))

    def _use(self, model: TrainedModel, path: Path) -> None:
        session = self._session
        if session.phase is not Phase.IDLE:
            session.tell("training is running: stop it before loading a model", warning=True)
            return
        self.use(model, path.name, is_of_this_image=False)
        problem = self._bench.training.continuing_problem() if self._bench.image is not None else ""
        if problem:
            session.tell(f"{path.name} is loaded, but {problem}", warning=True)
            return
        text = f"{path.name} is ready to apply or to train further"
        new = self._bench.painted_ids - set(model.label_ids)
        if new:
            text += f"; it does not know {named(new, session.classes)}, which Continue adds to what it has learnt"
        session.tell(text)

    def use(self, model: TrainedModel, origin: str, *, is_of_this_image: bool) -> None:
        """Take a model with its settings, classes and curves; see `Workbench.use_model`."""
        bench, session = self._bench, self._session
        session.model, session.model_origin = model, origin
        bench.training.follow_model(is_of_this_image=is_of_this_image)
        session.train_config = model.recipe.train.updated(device=session.train_config.device)
        take_network(session, model.recipe.network)
        painted = [
            entry for entry in session.classes if entry.id in bench.painted_ids and entry.id not in model.label_ids
        ]
        bench.set_classes(sorted([*model.classes, *painted], key=lambda entry: entry.id))
        session.curves = _curves(model)
        session.curves_version += 1

    def save(self, path: Path) -> None:
        """Write the present model."""
        session = self._session
        if session.model is None:
            session.tell("there is no model yet: train one first", warning=True)
            return
        path = path if path.suffix == _SUFFIX else path.with_name(path.name + _SUFFIX)
        start_brief_job(self, self._session, SaveTask(session.model, path), lambda done: session.tell(f"saved {done}"))

    def export_labels(self, layer: Any, path: Path, *, background_as_zero: bool) -> None:
        """Write a labels layer, all time points, in the place and with the class names that it has."""
        session = self._session
        try:
            source = LabelsSource.of(layer)
        except UNet3dError as error:
            session.tell(str(error), warning=True)
            return
        names = dict(source.names) or {entry.id: entry.name for entry in session.classes}
        task = LabelExportTask(source.array, source.volume, names, path, background_as_zero, source.time)
        start_brief_job(self, self._session, task, lambda done: session.tell(f"saved {done}"))


def _curves(model: TrainedModel) -> Curves:
    losses = [(record.step, record.seconds, record.loss) for record in model.history.steps]
    points = []
    for record in model.history.validations:
        iou = {entry.id: _number(value) for entry, value in zip(model.classes, record.iou, strict=True)}
        points.append(Point(record.step, record.seconds, _number(record.mean_iou), iou))
    return Curves(losses, points)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
