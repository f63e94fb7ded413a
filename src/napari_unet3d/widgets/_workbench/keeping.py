"""Nothing painted is lost: strokes and recipe are saved a few seconds after they changed, and offered back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QCoreApplication, QObject, QTimer

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.widgets._kept import KeepTask, KeptFolder, LookTask, PaintedLabels, Restored, RestoreTask
from napari_unet3d.widgets._network_choice import NetworkChoice, closest, read_recipe, recipe_text
from napari_unet3d.widgets._preferences import preferences
from napari_unet3d.widgets._session import Session
from napari_unet3d.widgets._workers import Ended, Job, Work

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

_WAIT_MS: Final = 4000
"""From the first stroke that is not saved to its saving."""


class Keeper(QObject):
    """Saves what is painted on the chosen image into its autosave folder, and gives it back.

    All writing is done by jobs; only at the end of the application it is done at once.

    Parameters
    ----------
    bench
        Has the session, the image and the annotation.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._session = bench.session
        self.folder: KeptFolder | None = None
        """Of the chosen image."""
        self._key: tuple[Any, ...] = ()
        self._is_changed = self._is_another = False
        self._jobs: list[Job] = []
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self.flush)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.finish)

    # --- what the bench tells -----------------------------------------------------------------------------

    def follow_image(self) -> None:
        """Another image may be chosen, or none."""
        image = self._bench.image
        base = preferences().autosave_folder
        key = () if image is None else (*image.key, base)
        if key != self._key:
            self._key = key
            self.folder = None if image is None else KeptFolder(base, image.volume(), image.source_path)
        self.look()

    def follow_annotation(self) -> None:
        """Another annotation layer is painted on, or none: what is saved of the one before is kept."""
        self._is_another = True
        self.look()

    def strokes_changed(self) -> None:
        """Something was painted, undone or named."""
        self._is_changed = True
        if not self._timer.isActive():
            self._timer.start()

    # --- saving -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Save now what is not saved yet; returns at once."""
        task = self._task()
        if task is not None:
            self._start(task, self._on_saved, self._on_not_saved)

    def _on_saved(self, _: Any) -> None:
        if self._bench.annotation is None:  # the layer was deleted: what was on it can be put back
            self.look()

    def _on_not_saved(self, error: str) -> None:
        self._is_changed = True  # tried again with the next stroke, and at the end
        self._session.tell(f"the strokes are not saved automatically: {error}", warning=True)

    def _task(self) -> KeepTask | None:
        """What is to be saved, if anything."""
        bench, watch = self._bench, self._bench.watch
        self._timer.stop()
        if not self._is_changed or self.folder is None or bench.image is None or watch is None:
            return None
        task = KeepTask(
            self.folder,
            PaintedLabels([watch.handed_out(t) for t in range(bench.image.time_points)]),
            self._session.classes,
            settings_text(self._session),
            annotated_slices=bench.guide.slices,
            is_another_annotation=self._is_another,
        )
        self._is_changed = self._is_another = False
        return task

    def finish(self) -> None:
        """Save what is not saved yet, at once: this is the end."""
        self._bench.take_strokes()
        task = self._task()
        if task is not None:
            try:
                task()
            except UNet3dError:  # nobody is left to read it, and what was saved before is still there
                return

    # --- giving back --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Offer what is kept of the chosen image, if nothing is being painted on it."""
        folder = self.folder
        self._session.kept = ""
        if folder is None or self._bench.annotation is not None:
            return

        def offer(found: str) -> None:
            if folder is self.folder and self._bench.annotation is None:
                self._session.kept = found

        self._start(LookTask(folder), offer, lambda error: None)  # the first save will tell

    def dismiss(self) -> None:
        """Not now: the offer comes again when the image is chosen again."""
        self._session.kept = ""

    def restore(self) -> None:
        """Put back the annotation with its classes, the settings and the model."""
        folder = self.folder
        if folder is None:
            return
        self._session.kept = ""
        self._session.tell("reading what was kept")

        def use(found: Restored) -> None:
            if folder is self.folder:
                self._use(found)

        self._start(RestoreTask(folder), use, lambda error: self._session.tell(error, warning=True))

    def _use(self, found: Restored) -> None:
        bench, session = self._bench, self._session
        warnings = list(found.warnings)
        try:
            bench.set_classes(found.classes)
            bench.new_annotation(found.labels)
            if found.recipe is not None:
                take_settings(session, found.recipe)
        except UNet3dError as error:
            warnings.append(str(error))
        parts = "the painted slices"
        if found.model is not None and not session.phase.is_running:
            bench.use_model(found.model, "kept from an earlier session", is_of_this_image=True)
            bench.set_classes(found.classes)
            parts += " and the model"
        text = f"{parts} are back: go on painting, or click Continue" if found.model else f"{parts} are back"
        session.tell("; ".join([text, *warnings]), warning=bool(warnings))

    def _start(self, work: Work, use: Callable[[Any], None], fail: Callable[[str], None]) -> None:
        job = Job(work, self)
        self._jobs.append(job)

        def on_ended(ended: Ended) -> None:
            self._jobs.remove(job)
            job.deleteLater()
            if ended.error:
                fail(ended.error)
            else:
                use(ended.result)

        job.ended.connect(on_ended)
        job.start()


def settings_text(session: Session) -> str:
    """Network and training as they are set, as a recipe."""
    choice = NetworkChoice(session.network_preset, session.network_settings)
    return recipe_text(choice.config(session.image_channels, session.class_count), session.train_config)


def take_settings(session: Session, recipe: str) -> None:
    """Set network and training to those of a recipe; the device stays.

    Raises
    ------
    ConfigError
        If the text is no recipe.
    """
    network, train = read_recipe(recipe, "the kept recipe")
    if train is not None:
        session.train_config = train.updated(device=session.train_config.device)
    if network is not None:
        take_network(session, network)


def take_network(session: Session, network: Any) -> None:
    """Show a configuration in the session, as a preset and what differs from it."""
    choice = closest(network)
    if choice.preset != session.network_preset:
        session.network_settings = {}
        session.network_preset = choice.preset
    session.network_settings = choice.settings
