"""An existing labels layer looked through before it is trained on: which ids it holds, what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject, Signal

from napari_unet3d.engine.volume import NOT_ANNOTATED, LazyArray
from napari_unet3d.widgets._layers.annotation import is_own, label_ids
from napari_unet3d.widgets._workers import Emit, Ended, Job, WorkerInbox

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

MOST_CLASSES: Final = 64
"""More ids than this are numbered objects, not classes."""


@dataclass(frozen=True, eq=False)
class LabelIdsTask:
    """The data of a labels layer."""

    data: LazyArray

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> tuple[int, ...]:
        """Ids that occur."""
        return label_ids(self.data)


class AnnotationCheck(QObject):
    """Asks what "not annotated" is in a layer without zeros. The layer itself is never changed.

    Parameters
    ----------
    bench
        Its owner.
    """

    changed = Signal()
    """There is something to ask, or it was answered, or nothing to ask any more."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._layer: Any = None
        self._job: Job | None = None
        self._is_answered = True
        self.ids: tuple[int, ...] = ()
        """Ids that the layer holds; empty before it was looked through, and for layers made here."""
        self.not_annotated = NOT_ANNOTATED
        """Id that means "not annotated"; 0 also where everything is annotated."""

    @property
    def layer_name(self) -> str:
        """Of the layer that is looked through."""
        return "" if self._layer is None else str(self._layer.name)

    @property
    def is_asking(self) -> bool:
        """Whether the user has to say which id means "not annotated"."""
        return bool(self.ids) and NOT_ANNOTATED not in self.ids and not self._has_too_many

    @property
    def is_answered(self) -> bool:
        """Whether the user has said so."""
        return self._is_answered

    @property
    def _has_too_many(self) -> bool:
        return len(self.ids) > MOST_CLASSES

    @property
    def classes(self) -> tuple[int, ...]:
        """Ids of the layer that are classes."""
        return tuple(i for i in self.ids if i not in (NOT_ANNOTATED, self.not_annotated) and i > 0)

    def look(self, layer: Any) -> None:
        """Look through another layer, or none."""
        self._layer, self._job = layer, None
        self.ids, self.not_annotated, self._is_answered = (), NOT_ANNOTATED, True
        if layer is not None and not is_own(layer) and not layer.multiscale:
            self._is_answered = False
            self._job = job = Job(LabelIdsTask(layer.data), self)
            job.ended.connect(lambda ended: self._on_ended(job, ended))
            job.start()
        self.changed.emit()

    def answer(self, not_annotated: int) -> None:
        """Take `not_annotated` for it; 0 says that everything is annotated."""
        self.not_annotated, self._is_answered = not_annotated, True
        self.changed.emit()

    def problem(self) -> str:
        """Why the layer cannot be trained on yet, with what to do; empty if it can."""
        if self._layer is None:
            return ""
        name = repr(self._layer.name)
        if self._job is not None:
            return f"looking through {name} for its ids"
        if self._has_too_many:
            return (
                f"{name} holds {len(self.ids)} ids, which look like numbered objects; each id is a class: choose "
                f"labels with at most {MOST_CLASSES} ids, or make a new annotation layer"
            )
        if self.is_asking and not self._is_answered:
            return f"no voxel of {name} is 0: say which id means 'not annotated'"
        return ""

    def _on_ended(self, job: Job, ended: Ended) -> None:
        job.deleteLater()
        if job is not self._job:  # another layer was chosen meanwhile
            return
        self._job = None
        self.ids = ended.result or ()
        self._is_answered = not self.is_asking
        self.changed.emit()
