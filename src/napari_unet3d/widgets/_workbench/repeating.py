"""What another program needs to do the same: the recipe as a file, and the run as a command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject
from qtpy.QtGui import QGuiApplication

from napari_unet3d.engine.recipe_text import dump_yaml
from napari_unet3d.engine.volume import Volume
from napari_unet3d.widgets._network_choice import recipe_text
from napari_unet3d.widgets._repeating import AnnotatedImage, CommandTask, RecipeTask
from napari_unet3d.widgets._training_task import TrainedOn
from napari_unet3d.widgets._workbench.brief_job import start_brief_job
from napari_unet3d.widgets._workbench.keeping import settings_text

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench


@dataclass(eq=False)
class Run:
    """What a training worked on.

    Parameters
    ----------
    images
        Each volume, and the file that may hold it.
    is_resumed
        It went on where another run stood.
    before
        That run, if it took place in this session.
    is_from_weights
        It began with the weights of another model.
    annotation
        With which it began; None before it began.
    has_new_strokes
        Whether something was painted while it ran.
    measured
        How many of the volumes, the last ones, are measured on, not trained on.
    """

    images: tuple[tuple[Volume, str | None], ...]
    is_resumed: bool = False
    before: Run | None = None
    is_from_weights: bool = False
    annotation: TrainedOn | None = None
    has_new_strokes: bool = False
    measured: int = 0

    @property
    def is_repeatable(self) -> bool:
        """Whether the record of the run and the annotation give the same weights again."""
        if self.annotation is None or self.has_new_strokes or self.is_from_weights:
            return False
        if not self.is_resumed:
            return True
        before = self.before
        return (
            before is not None
            and before.is_repeatable
            and before.annotation is not None
            and before.annotation.digest == self.annotation.digest
        )


class Repeating(QObject):
    """Writes recipes, and puts command lines onto the clipboard.

    Parameters
    ----------
    bench
        Has the session, the image, the annotation and the last run.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session

    def save_recipe(self, path: Path) -> None:
        """Write the recipe of the model with the record of its run; without a model the present settings."""
        path = path if path.suffix in (".yaml", ".yml") else path.with_name(path.name + ".yaml")
        model = self._session.model
        text = settings_text(self._session) if model is None else _whole(model)
        start_brief_job(self, self._session, RecipeTask(path, text), lambda done: self._session.tell(f"saved {done}"))

    def problem(self) -> str:
        """Why there is no command line, with what to do; empty if there is one."""
        bench = self._bench
        if bench.keeping.folder is None:
            return bench.image_problem or "open an image first"
        if self._repeatable() is not None:
            return ""
        if bench.watch is None or not bench.watch.annotated_time_points:
            return "paint something first: the annotation is part of the command"
        return ""

    def copy_command(self) -> None:
        """Put the command onto the clipboard, and the files it needs into the autosave folder."""
        problem, folder = self.problem(), self._bench.keeping.folder
        if problem or folder is None:
            self._session.tell(problem, warning=True)
            return
        run, model = self._repeatable(), self._session.model
        if run is not None:
            assert run.annotation is not None  # it is repeatable
            volumes = [
                AnnotatedImage(image, path, packed)
                for (image, path), packed in zip(run.images, run.annotation.packed, strict=True)
            ]
            recipe, promise = _whole(model), "it trains the same model again"
        else:
            volumes = self._present_volumes()
            recipe = settings_text(self._session)
            if model is not None:
                recipe = recipe_text(model.recipe.network, model.recipe.train)
            promise = "it trains with the same settings on the annotation as it is now"

        def use(command: str) -> None:
            clipboard = QGuiApplication.clipboard()
            if clipboard is not None:
                clipboard.setText(command)
            self._session.tell(f"copied: paste the command into a terminal; {promise}")

        self._session.tell("writing the files of the command")
        measured = run.measured if run is not None else self._bench.further.measured_count
        start_brief_job(self, self._session, CommandTask(folder, volumes, recipe, measured), use)

    def _repeatable(self) -> Run | None:
        run, model = self._bench.training.last_run, self._session.model
        return run if run is not None and run.is_repeatable and model is not None else None

    def _present_volumes(self) -> list[AnnotatedImage]:
        """The chosen image and the further ones, as they are painted now."""
        image, watch, deleted = self._bench.image, self._bench.watch, self._bench.deleted_ids
        assert image is not None  # problem() looked
        assert watch is not None
        path = image.source_path if image.time_points == 1 else None
        times = watch.annotated_time_points
        own = [AnnotatedImage(image.volume(t), path, watch.handed_out(t), deleted) for t in times]
        pairs = [(*entry.pair(), entry.image.source_path) for entry in self._bench.further.entries]
        return own + [AnnotatedImage(volume, path, labels, deleted) for volume, labels, path in pairs]


def _whole(model: Any) -> str:
    """The recipe of a model, record included, as ``info MODEL --recipe`` writes it."""
    return dump_yaml(model.recipe.model_dump(mode="json"))
