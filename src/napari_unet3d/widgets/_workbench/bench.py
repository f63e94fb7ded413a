"""The workbench of one viewer: the chosen image and annotation, and what is done with them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.engine.classes import COLOURS, ClassInfo, default_classes
from napari_unet3d.engine.errors import DataError, UNet3dError
from napari_unet3d.widgets._layers.annotation import (
    annotation_problem,
    is_own,
    new_annotation,
)
from napari_unet3d.widgets._layers.classes import apply_classes, classes_of
from napari_unet3d.widgets._layers.held_out import HeldOutMarks, plane_box
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.prediction import add_prediction, refresh, show_plane
from napari_unet3d.widgets._layers.strokes import Change, StrokeWatch
from napari_unet3d.widgets._layers.view import Plane
from napari_unet3d.widgets._preferences import follow_device, preferences
from napari_unet3d.widgets._session import Session, session_of
from napari_unet3d.widgets._shortcuts import bind_shortcuts
from napari_unet3d.widgets._workbench.annotation_check import MOST_CLASSES, AnnotationCheck
from napari_unet3d.widgets._workbench.applying import PredictionRunner
from napari_unet3d.widgets._workbench.cleaning import Cleaning
from napari_unet3d.widgets._workbench.distilling import Distilling
from napari_unet3d.widgets._workbench.file_scale import FileScale
from napari_unet3d.widgets._workbench.further import FurtherVolumes
from napari_unet3d.widgets._workbench.guide import Guide
from napari_unet3d.widgets._workbench.keeping import Keeper
from napari_unet3d.widgets._workbench.measuring import Measuring
from napari_unet3d.widgets._workbench.model_files import ModelFiles
from napari_unet3d.widgets._workbench.repeating import Repeating
from napari_unet3d.widgets._workbench.slice_painting import SlicePainting
from napari_unet3d.widgets._workbench.suggesting import Suggesting
from napari_unet3d.widgets._workbench.training import TrainingRunner
from napari_unet3d.widgets._workers import Job

_PREVIEW: Final = "preview"
_LOOK_MS: Final = 200


class Workbench(QObject):
    """What the docks of a viewer call. All methods return at once; long work is done by jobs.

    Parameters
    ----------
    viewer
        Its layers are looked at and added to.
    session
        The state that the docks show.
    """

    layers_changed = Signal()
    """The chosen image or annotation is another one, or none."""

    painted = Signal()
    """There are new strokes, or strokes were undone."""

    def __init__(self, viewer: Any, session: Session) -> None:
        super().__init__()
        self.viewer = viewer
        self.session = session
        self.image: ImageChoice | None = None
        self.image_problem = ""
        """Why there is no image, for people."""
        self.image_layers: tuple[Any, ...] = ()
        """The layers that were chosen, also where they cannot be used together."""
        self.image_axes: str | None = None
        """The axes that were asked for; None for guessed ones."""
        self.annotation: Any = None
        """The labels layer that is trained on, or None."""
        self.prediction: Any = None
        """The newest predicted labels layer, or None."""
        self.shows_preview = True
        """Whether the slice in view is predicted during training."""
        self.watch: StrokeWatch | None = None
        """What was painted so far; None without an annotation that fits the image."""
        self._painted: set[int] = set()
        self._deleted: set[int] = set()
        self._marks: HeldOutMarks | None = None
        self._held_out: tuple[Plane, ...] = ()
        self._looks = QTimer(self)
        self._looks.setInterval(_LOOK_MS)
        self._looks.timeout.connect(self.look_for_strokes)
        self.keeping = Keeper(self)
        self.file_scale = FileScale(self)
        self.guide = Guide(self)
        self.further = FurtherVolumes(self)
        self.training = TrainingRunner(self)
        self.repeating = Repeating(self)
        self.files = ModelFiles(self)
        self.slices = SlicePainting(self)
        self.applying = PredictionRunner(self)
        self.distilling = Distilling(self)
        self.suggesting = Suggesting(self)
        self.cleaning = Cleaning(self)
        self.measuring = Measuring(self)
        self.check = AnnotationCheck(self)
        self.check.changed.connect(self._on_checked)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self._on_device_preferred()
        follow_device(self._on_device_preferred)

    def close(self) -> None:
        """The window is gone: keep the strokes and end what runs. A training keeps its best model in its file."""
        self.keeping.finish()
        for job in self.findChildren(Job):
            job.abandon()
        for timer in self.findChildren(QTimer):
            timer.stop()
        self.viewer.layers.events.removed.disconnect(self._on_layer_removed)
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        _BENCHES.pop(getattr(self.viewer, "__wrapped__", self.viewer), None)

    # --- what is worked on --------------------------------------------------------------------------------

    def choose_image(self, layers: Sequence[Any], axes: str | None = None) -> None:
        """Work on these image layers; `axes` instead of guessed ones."""
        session = self.session
        self._end_strokes()
        self.image_layers, self.image_axes = tuple(layers), axes
        try:
            self.image, self.image_problem = choose_image(layers, axes), ""
        except UNet3dError as error:
            self.image, self.image_problem = None, str(error)
        self._marks, self._held_out = None, ()
        self._follow(is_empty=False)
        self.keeping.follow_image()
        session.image_channels = self.image.channels if self.image else 1
        self.file_scale.follow_image()
        session.image_shape = self.image.spatial_shape if self.image else None
        self.layers_changed.emit()

    @property
    def image_name(self) -> str:
        """Name of the chosen image, for people."""
        return self.image.name if self.image else "an image"

    def choose_annotation(self, layer: Any) -> None:
        """Train on this labels layer, or on none."""
        self._set_annotation(layer, is_empty=False)

    def _set_annotation(self, layer: Any, *, is_empty: bool) -> None:
        self._end_strokes()
        is_another = layer != self.annotation
        if is_another:
            self._deleted = set()
        self.annotation = layer
        self.check.look(layer)
        self._follow(is_empty=is_empty)
        if is_another:
            self.keeping.follow_annotation()
        self.layers_changed.emit()

    def _on_checked(self) -> None:
        """The ids of an existing layer are known, or what they mean: they become classes."""
        check, session = self.check, self.session
        if check.problem():
            self.layers_changed.emit()
            return
        if check.not_annotated:
            self._follow(is_empty=False)
        ids = check.classes
        if len(ids) > 1:
            known = {entry.id: entry for entry in session.classes}
            is_untouched = session.model is None and session.classes == default_classes(tuple(known))
            kept = {} if is_untouched else known
            new = {entry.id: entry for entry in classes_of(self.annotation, ids)}
            classes = tuple(entry for _, entry in sorted((new | kept).items()))
            if classes != session.classes:
                self.set_classes(classes)
        self.layers_changed.emit()

    def new_annotation(self, labels: NDArray[np.unsignedinteger] | None = None) -> None:
        """Add an annotation layer over the image, with the brush ready.

        Parameters
        ----------
        labels
            What is painted in it: Z Y X, for several time points T Z Y X; by default nothing.

        Raises
        ------
        DataError
            If the labels do not have the shape of the image.
        """
        if self.image is None:
            self.session.tell(self.image_problem or "open an image first", warning=True)
            return
        layer = new_annotation(self.viewer, self.image, self.session.classes, labels)
        self._set_annotation(layer, is_empty=labels is None)

    def _end_strokes(self) -> None:
        """Save what was painted on the present annotation: another image or layer may be chosen."""
        self.take_strokes()
        self.keeping.flush()

    def _follow(self, *, is_empty: bool) -> None:
        """Watch the strokes of the chosen annotation, if it fits the image."""
        if self.watch is not None:
            self.watch.close()
        self.watch, self._painted = None, set()
        self._looks.stop()
        if self.image is None or annotation_problem(self.annotation, self.image):
            return
        self.watch = StrokeWatch(self.annotation, self.image, is_empty=is_empty, not_annotated=self.check.not_annotated)
        self._looks.start()

    def look_for_strokes(self) -> None:
        """Look for strokes now, for a few milliseconds; a timer does it too."""
        try:
            changes = self.strokes().take()
        except UNet3dError as error:
            self.session.tell(str(error), warning=True)
            self.choose_annotation(None)
            return
        self._take_over(changes)

    def _take_over(self, changes: Sequence[Change]) -> None:
        if changes:
            for change in changes:
                self._painted.update(int(i) for i in np.unique(change.labels) if i)
            self._name_new_ids()
            self.training.take_over(changes)
            if any(_is_on(change, plane) for change in changes for plane in self._held_out):
                self.show_held_out(self._held_out)
            self.keeping.strokes_changed()
            self.painted.emit()

    def _name_new_ids(self) -> None:
        """Make a class of ids that the user chose in napari's layer controls and painted with."""
        if not is_own(self.annotation):  # ids of other layers are looked through first
            return
        new = sorted(self._painted - self._deleted - {entry.id for entry in self.session.classes})
        if new and len(new) <= MOST_CLASSES:
            self.set_classes(sorted([*self.session.classes, *map(self._new_class, new)], key=lambda entry: entry.id))

    def take_strokes(self) -> None:
        """Look for strokes now, at all places where some may be."""
        if self.watch is None:
            return
        with suppress(UNet3dError):  # data that was replaced by something else: what was taken before stays
            while self.watch.is_pending:
                self._take_over(self.watch.take())

    def strokes(self) -> StrokeWatch:
        """What was painted so far.

        Raises
        ------
        DataError
            If there is no annotation that fits the image.
        """
        if self.watch is None:
            raise DataError(
                (self.image and annotation_problem(self.annotation, self.image)) or "make an annotation layer first"
            )
        return self.watch

    def _on_layer_removed(self, event: Any) -> None:
        layer = event.value
        self.applying.stop_for(layer)
        if layer == self.prediction:
            self.prediction = None
        if layer == self.training.preview_layer:
            self.training.preview_layer = None
        if layer == self.annotation:
            self.choose_annotation(None)
        if layer in self.image_layers:
            self.choose_image([])
        self.training.forget_run_on(layer)

    def _on_device_preferred(self, *_: Any) -> None:
        """The user prefers another device."""
        self.choose_device(preferences().device)

    def choose_device(self, device: str) -> None:
        """Train and predict there from the next run on: auto, cpu, cuda, cuda:N or mps."""
        session = self.session
        session.train_config = session.train_config.updated(device=device)
        session.predict_config = session.predict_config.updated(device=device)

    # --- classes ------------------------------------------------------------------------------------------

    def set_classes(self, classes: Sequence[ClassInfo]) -> None:
        """Use these classes, in all layers of the workbench too."""
        session = self.session
        is_new = session.classes != tuple(classes)
        session.classes = tuple(classes)
        if is_new and self._painted:
            self.keeping.strokes_changed()
        session.class_count = len(classes)
        for layer in (self.annotation, self.prediction, self.training.preview_layer):
            if layer is not None and (layer != self.annotation or is_own(layer)):
                apply_classes(layer, classes)

    def add_class(self) -> None:
        """Add a structure with the next free id and a colour of its own."""
        classes = self.session.classes
        label_id = max((entry.id for entry in classes), default=0) + 1
        self._deleted.discard(label_id)
        self.set_classes([*classes, self._new_class(label_id)])
        self.paint_with(label_id)

    def _new_class(self, label_id: int) -> ClassInfo:
        """With a colour that no other class has, while there are some."""
        taken = {entry.colour for entry in self.session.classes}
        colours = COLOURS[1:]
        colour = next((c for c in colours if c not in taken), colours[label_id % len(colours)])
        return ClassInfo(id=label_id, name=f"class {label_id}", colour=colour)

    def edit_classes(self, classes: Sequence[ClassInfo]) -> None:
        """The user edited the table: what is no class any more is not trained on, but stays painted."""
        before, after = ({entry.id for entry in found} for found in (self.session.classes, classes))
        self._deleted = (self._deleted | (before - after)) - after
        self.set_classes(classes)
        self.painted.emit()

    def paint_with(self, label_id: int) -> None:
        """Take the brush with a label id; 0 takes paint away."""
        if self.annotation is not None:
            self.viewer.layers.selection.active = self.annotation
            self.annotation.selected_label = label_id
            self.annotation.mode = "paint"

    # --- painting -----------------------------------------------------------------------------------------

    @property
    def painted_ids(self) -> frozenset[int]:
        """Label ids that were painted since the annotation was chosen; also where they were erased since.

        Ids of deleted classes do not count.
        """
        return frozenset(self._painted - self._deleted)

    @property
    def deleted_ids(self) -> frozenset[int]:
        """Ids whose class was deleted: their strokes are there, but are not trained on."""
        return frozenset(self._deleted)

    def painting_problem(self) -> str:
        """What has to be painted before anything can be learnt, as a sentence; empty if nothing."""
        painted = self.painted_ids
        missing = [entry.name for entry in self.session.classes if entry.id not in painted]
        if len(painted) >= 2:
            return ""
        if not painted:
            return "paint a few slices first: some background and some of each structure"
        return f"only one class is painted: paint some {missing[0] if missing else 'background'} too"

    def complete_slice(self) -> None:
        """Paint what is not annotated in the slice in view as background; one action for undo."""
        self.slices.complete()

    def copy_prediction(self) -> None:
        """Copy the predicted slice in view to where nothing is annotated; one action for undo."""
        self.slices.copy_prediction()

    def time_in_view(self) -> int:
        """Time point that the slider stands at; 0 without time."""
        image = self.image
        if image is None or "T" not in image.layer_axes:
            return 0
        at = image.layer.world_to_data(self.viewer.dims.point)[image.layer_axes.index("T")]
        return int(np.clip(round(float(at)), 0, image.time_points - 1))

    # --- what training shows ------------------------------------------------------------------------------

    def show_preview(self, plane: Plane, labels: NDArray[np.unsignedinteger]) -> None:
        """Put a predicted plane into the preview layer."""
        if self.image is None or not self.shows_preview:
            return
        runner = self.training
        if runner.preview_layer is None:
            runner.preview_layer = add_prediction(self.viewer, self.image, self.session.classes, _PREVIEW)
        show_plane(runner.preview_layer, self.image, plane.axis, plane.index, labels, plane.t)
        refresh(runner.preview_layer)

    def show_held_out(self, planes: Sequence[Plane]) -> None:
        """Mark the strokes on these slices, also those that come later: they are measured on, not trained on."""
        image = self.image
        if image is None or self.annotation is None:
            return
        self._held_out = tuple(planes)
        if self._marks is None:
            self._marks = HeldOutMarks(self.viewer, image)
        regions = [(plane.t, plane_box(image, plane)) for plane in planes]
        self._marks.show(self.annotation, regions, not_annotated=self.check.not_annotated)

    @property
    def held_out_layer(self) -> Any:
        """The layer with the marks of held-out strokes, or None."""
        return None if self._marks is None else self._marks.layer

    # --- files --------------------------------------------------------------------------------------------

    def autosaved_model(self) -> Path | None:
        """Where a running training keeps its best model; None where nothing is kept, or not yet known."""
        folder = self.keeping.folder
        return None if folder is None or folder.found is None else folder.found.model_path

    def load_model(self, path: Path) -> None:
        """Read a model file: its settings, classes and curves come back too."""
        self.files.load(path)

    def use_model(self, model: Any, origin: str, *, is_of_this_image: bool = False) -> None:
        """Take a model with its settings, classes and curves.

        Parameters
        ----------
        model
            What was read.
        origin
            Where it comes from, for people.
        is_of_this_image
            It was trained on the chosen image and its annotation, so an interrupted training can go on.
        """
        self.files.use(model, origin, is_of_this_image=is_of_this_image)

    def save_model(self, path: Path) -> None:
        """Write the present model."""
        self.files.save(path)

    def export_labels(self, layer: Any, path: Path, *, background_as_zero: bool) -> None:
        """Write a labels layer, all time points, in the place and with the class names that it has."""
        self.files.export_labels(layer, path, background_as_zero=background_as_zero)


def _is_on(change: Change, plane: Plane) -> bool:
    along = change.box[plane.axis]
    return change.t == plane.t and bool(along.start <= plane.index < along.stop)


_BENCHES: weakref.WeakKeyDictionary[Any, Workbench] = weakref.WeakKeyDictionary()


def workbench_of(viewer: Any) -> Workbench:
    """The workbench of a viewer, made on first use; a proxy of a viewer has the same as the viewer."""
    key = getattr(viewer, "__wrapped__", viewer)
    if key not in _BENCHES:
        _BENCHES[key] = Workbench(viewer, session_of(key))
        bind_shortcuts(key)
    return _BENCHES[key]
