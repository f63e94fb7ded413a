"""Predicted labels tidied, or split into numbered objects, each time as a new layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.engine.errors import UNet3dError
from napari_unet3d.engine.progress import Finished, Preparing, Stop
from napari_unet3d.widgets._layers.prediction import add_quietly
from napari_unet3d.widgets._workbench.labels_source import LabelsSource
from napari_unet3d.widgets._workbench.side_job import SideJob
from napari_unet3d.widgets._workers import Emit, WorkerInbox

if TYPE_CHECKING:
    from napari_unet3d.widgets._workbench.bench import Workbench

_OPACITY: Final = 0.5


@dataclass(frozen=True)
class Tidying:
    """What to do with pieces and holes; volumes in cubed units of the voxel size."""

    fill_holes: bool = False
    """Fill background that structures enclose."""
    largest_hole: float | None = None
    """Larger holes stay; None fills all."""
    keep_largest: bool = False
    """Keep only the largest piece of each structure."""
    minimum_volume: float = 0.0
    """Smaller pieces become background."""


class NumberedObjects(NamedTuple):
    """Objects of all time points: `numbers` have the axes of the layer, `class_ids[n]` is the class of object n."""

    numbers: NDArray[np.unsignedinteger]
    class_ids: NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False)
class TidyTask:
    """Labels to tidy; `classes` are the ids to look at, None for all structures."""

    source: LabelsSource
    tidying: Tidying
    classes: tuple[int, ...] | None = None

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> NDArray[Any] | None:
        """Tidy each time point; None where it was cancelled."""
        from napari_unet3d.engine.cleanup.run import CleanUpConfig, clean_up

        source, config = self.source, CleanUpConfig(**asdict(self.tidying))
        done = []
        for t in range(source.time_points):
            events = clean_up(
                source.read(t),
                source.volume.voxel_size,
                config,
                background_id=source.background_id,
                classes=self.classes,
                inbox=inbox,
            )
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    if end.value is None:
                        return None
                    done.append(end.value)
                    break
                if isinstance(event, Preparing):
                    emit(Preparing(event.stage, (t + event.fraction) / source.time_points))
        return source.layer_data(done)


@dataclass(frozen=True, eq=False)
class SplitTask:
    """Touching objects to tell apart and number; `separation` as for `split_touching_objects`."""

    source: LabelsSource
    separation: float
    classes: tuple[int, ...] | None = None

    def __call__(self, emit: Emit, inbox: WorkerInbox) -> NumberedObjects | None:
        """Number the objects of each time point, going on from one to the next; None where it was cancelled."""
        from napari_unet3d.engine.cleanup.pieces import cleanable_ids
        from napari_unet3d.engine.cleanup.touching import split_touching_objects

        source = self.source
        done: list[NDArray[np.uint32]] = []
        class_ids = [0]
        for t in range(source.time_points):
            labels = source.read(t)
            numbers = np.zeros(labels.shape, np.uint32)
            ids = cleanable_ids(labels, source.background_id, self.classes)
            for place, label_id in enumerate(ids):
                if any(isinstance(command, Stop) for command in inbox.drain()):
                    return None
                name = source.names.get(label_id, f"class {label_id}")
                emit(Preparing(f"objects of {name}", (t + place / len(ids)) / source.time_points))
                found = split_touching_objects(
                    labels,
                    self.separation,
                    source.volume.voxel_size,
                    background_id=source.background_id,
                    classes=[label_id],
                )
                inside = found.numbers > 0
                numbers[inside] = found.numbers[inside].astype(np.uint32) + np.uint32(len(class_ids) - 1)
                class_ids += [label_id] * (len(found.class_ids) - 1)
            done.append(numbers)
        emit(Finished("done"))
        return NumberedObjects(source.layer_data(done), np.array(class_ids, np.uint16))


class Cleaning:
    """Runs one clean-up at a time; layers given are never changed.

    Parameters
    ----------
    bench
        Has the viewer.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self.job = SideJob(bench)

    def problem(self, layer: Any) -> str:
        """Why a layer cannot be cleaned up, with what to do; empty if it can."""
        if self.job.is_running:
            return "a clean-up is running"
        try:
            LabelsSource.of(layer)
        except UNet3dError as error:
            return str(error)
        return ""

    def tidy(self, layer: Any, tidying: Tidying, classes: tuple[int, ...] | None = None) -> None:
        """Add a tidied copy of a labels layer."""
        if self.problem(layer):
            return
        source = LabelsSource.of(layer)
        look = {"colormap": layer.colormap, "features": layer.features.copy(), "opacity": layer.opacity}

        def show(labels: NDArray[Any]) -> str:
            added = self._add(labels, source, f"{source.name} cleaned", look)
            return f"made {added.name!r}"

        self.job.start(TidyTask(source, tidying, classes), show)

    def split(self, layer: Any, separation: float, classes: tuple[int, ...] | None = None) -> None:
        """Add a layer with a number for each object of a labels layer."""
        if self.problem(layer):
            return
        source = LabelsSource.of(layer)

        def show(objects: NumberedObjects) -> str:
            count = len(objects.class_ids) - 1
            names = ["", *(source.names.get(int(i), f"class {i}") for i in objects.class_ids[1:])]
            look = {"features": {"index": np.arange(count + 1), "class": names}, "opacity": _OPACITY}
            added = self._add(objects.numbers, source, f"{source.name} objects", look)
            return f"made {added.name!r}: {count} {'object' if count == 1 else 'objects'}"

        self.job.start(SplitTask(source, separation, classes), show)

    def _add(self, labels: NDArray[Any], source: LabelsSource, name: str, look: dict[str, Any]) -> Any:
        from napari.layers import Labels

        return add_quietly(self._bench.viewer, Labels(labels, name=name, **source.geometry, **look))
