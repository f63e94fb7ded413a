from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_unet3d.engine.classes import ClassInfo
from napari_unet3d.engine.errors import DataError
from napari_unet3d.widgets._layers.annotation import complete_slice, new_annotation, spatial_view
from napari_unet3d.widgets._layers.image import ImageChoice, choose_image
from napari_unet3d.widgets._layers.strokes import Change, StrokeWatch
from napari_unet3d.widgets._layers.view import go_to

SIZES = {"T": 2, "C": 2, "Z": 6, "Y": 20, "X": 22}


def image_of(axes: str) -> ImageChoice:
    return choose_image([Image(np.zeros([SIZES[axis] for axis in axes]), rgb=False)], axes)


def labels_over(choice: ImageChoice, dtype: Any = np.uint8) -> Labels:
    return Labels(np.zeros([n for axis, n in choice.lengths.items() if axis != "C"], dtype))


class Receiver:
    """Keeps an annotation of its own from changes alone, as a trainer does."""

    def __init__(self, watch: StrokeWatch, choice: ImageChoice) -> None:
        self.watch = watch
        self.labels = np.zeros((choice.time_points, *choice.spatial_shape), np.uint16)

    def receive(self) -> list[Change]:
        changes = self.watch.take()
        for change in changes:
            self.labels[(change.t, *change.box)] = change.labels
        return changes

    def receive_all(self) -> None:
        while self.watch.is_pending:
            self.receive()


@pytest.fixture
def choice() -> ImageChoice:
    return image_of("ZYX")


@pytest.fixture
def layer(choice: ImageChoice) -> Labels:
    layer = labels_over(choice)
    layer.brush_size = 3
    return layer


def test_what_is_painted_at_the_start_is_handed_out(choice: ImageChoice, layer: Labels) -> None:
    layer.data[2, 3:6, 4:9] = 2
    watch = StrokeWatch(layer, choice)
    assert watch.is_pending
    assert watch.annotated_time_points == ()
    (change,) = watch.take()
    assert (change.t, change.box) == (0, (slice(2, 3), slice(3, 6), slice(4, 9)))
    assert (change.labels == 2).all()
    assert change.labels.dtype == np.uint8
    assert not watch.is_pending
    assert watch.annotated_time_points == (0,)
    np.testing.assert_array_equal(watch.handed_out(), layer.data)


def test_a_stroke_is_handed_out_once(choice: ImageChoice, layer: Labels) -> None:
    watch = StrokeWatch(layer, choice, is_empty=True)
    assert not watch.is_pending
    assert watch.take() == []
    layer.paint((1, 10, 11), 3)
    assert watch.is_pending
    (change,) = watch.take()
    assert change.box[0] == slice(1, 2)
    np.testing.assert_array_equal(change.labels, layer.data[change.box])
    assert watch.take() == []


def test_changes_are_copies(choice: ImageChoice, layer: Labels) -> None:
    watch = StrokeWatch(layer, choice, is_empty=True)
    layer.paint((1, 10, 11), 3)
    (change,) = watch.take()
    layer.data[:] = 0
    assert (change.labels == 3).any()
    with pytest.raises(ValueError, match="read-only"):
        watch.handed_out()[:] = 0


def test_an_undone_stroke_is_taken_back(choice: ImageChoice, layer: Labels) -> None:
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    layer.paint((1, 10, 11), 3)
    receiver.receive()
    layer.undo()
    assert receiver.watch.is_pending
    receiver.receive_all()
    assert not receiver.labels.any()
    layer.redo()
    receiver.receive_all()
    assert receiver.labels.any()


def test_undone_before_it_was_looked_at_and_then_redone(choice: ImageChoice, layer: Labels) -> None:
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    layer.paint((1, 10, 11), 3)
    layer.undo()
    receiver.receive_all()
    assert not receiver.labels.any()
    layer.redo()
    receiver.receive_all()
    np.testing.assert_array_equal(receiver.labels[0], layer.data)


def test_undo_of_erasing_before_the_watch_began(choice: ImageChoice, layer: Labels) -> None:
    layer.paint((1, 10, 11), 3)
    layer.paint((1, 10, 11), 0)
    receiver = Receiver(StrokeWatch(layer, choice), choice)
    receiver.receive_all()
    layer.undo()
    receiver.receive_all()
    receiver.receive()  # the rest of the volume, which does not count as pending
    np.testing.assert_array_equal(receiver.labels[0], layer.data)
    assert receiver.labels.any()


def test_data_written_past_napari_is_found_after_a_refresh(choice: ImageChoice, layer: Labels) -> None:
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    layer.data[5, 5, 5] = 2
    layer.refresh()
    receiver.receive()
    assert receiver.labels[0, 5, 5, 5] == 2


def test_unknown_atoms_lead_to_a_look_at_everything(choice: ImageChoice, layer: Labels) -> None:
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    layer.data[0, 0, 0] = layer.data[5, 19, 21] = 2
    layer.events.paint(value=[SimpleNamespace(something="else")])
    receiver.receive_all()
    np.testing.assert_array_equal(receiver.labels[0], layer.data)


def test_crossing_slices_are_two_changes(choice: ImageChoice, layer: Labels) -> None:
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    complete_slice(layer, choice, 0, 3)
    complete_slice(layer, choice, 1, 7)
    changes = receiver.receive()
    assert sorted(change.labels.shape for change in changes) == [(1, 20, 22), (6, 1, 22)]
    np.testing.assert_array_equal(receiver.labels[0], layer.data)


def test_one_call_reads_no_more_than_allowed(choice: ImageChoice) -> None:
    class Counted:
        def __init__(self, array: NDArray[Any]) -> None:
            self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
            self.read = 0

        def __getitem__(self, index: Any) -> Any:
            part = self.array[index]
            self.read += part.size
            return part

    data = np.zeros(choice.spatial_shape, np.uint8)
    data[::2, ::3, 5] = 4
    layer = Labels(Counted(data))
    receiver = Receiver(StrokeWatch(layer, choice, voxels_at_once=400), choice)
    calls = 0
    while receiver.watch.is_pending:
        layer.data.read = 0
        changes = receiver.receive()
        # what changed is read again to be handed out
        assert layer.data.read <= 400 + sum(change.labels.size for change in changes)
        calls += 1
    assert calls >= data.size / 400
    np.testing.assert_array_equal(receiver.labels[0], data)


def test_strokes_go_before_what_is_left_of_the_first_look(choice: ImageChoice, layer: Labels) -> None:
    layer.data[5] = 1
    watch = StrokeWatch(layer, choice, voxels_at_once=40)
    layer.data_setitem((np.array([5]), np.array([19]), np.array([21])), 3)
    assert [change.labels.tolist() for change in watch.take()] == [[[[3]]]]


def test_scrolling_does_not_keep_the_last_places_from_their_turn(choice: ImageChoice, layer: Labels) -> None:
    layer.data[::2] = 1
    receiver = Receiver(StrokeWatch(layer, choice, voxels_at_once=440), choice)
    receiver.receive_all()
    layer.data[4] = 2
    for _ in range(30):
        layer.refresh()
        receiver.receive()
    np.testing.assert_array_equal(receiver.labels[0], layer.data)


def test_another_id_can_mean_not_annotated(choice: ImageChoice, layer: Labels) -> None:
    layer.data[:] = 9
    layer.data[2, 2, 2] = 1
    receiver = Receiver(StrokeWatch(layer, choice, not_annotated=9), choice)
    receiver.receive_all()
    assert np.argwhere(receiver.labels).tolist() == [[0, 2, 2, 2]]


def test_wide_integers_are_handed_out_as_16_bits(choice: ImageChoice) -> None:
    layer = labels_over(choice, np.int64)
    layer.data[1, 1, 1] = 65534
    (change,) = StrokeWatch(layer, choice).take()
    assert change.labels.dtype == np.uint16
    assert change.labels.item() == 65534


@pytest.mark.parametrize("value", [-1, 65535, 1 << 40])
def test_ids_that_do_not_fit_are_told_until_they_are_mended(choice: ImageChoice, value: int) -> None:
    layer = labels_over(choice, np.int64)
    layer.data[1, 1, 1] = value
    watch = StrokeWatch(layer, choice)
    for _ in range(2):
        with pytest.raises(DataError, match="label ids go from 0 to 65534"):
            watch.take()
    layer.data[1, 1, 1] = 5
    assert [change.labels.item() for change in watch.take()] == [5]


def test_replaced_data_is_looked_at_anew(choice: ImageChoice, layer: Labels) -> None:
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    layer.paint((1, 10, 11), 3)
    receiver.receive_all()
    replacement = np.zeros_like(layer.data)
    replacement[0, 0, 0] = 7
    layer.data = replacement
    receiver.receive_all()
    np.testing.assert_array_equal(receiver.labels[0], replacement)
    layer.data = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(DataError, match="was replaced"):
        receiver.receive()


def test_closed_it_hears_nothing(choice: ImageChoice, layer: Labels) -> None:
    watch = StrokeWatch(layer, choice, is_empty=True)
    watch.close()
    layer.paint((1, 10, 11), 3)
    assert not watch.is_pending
    watch.close()


def test_zarr_annotation(choice: ImageChoice) -> None:
    data = zarr.create_array(zarr.storage.MemoryStore(), data=np.zeros(choice.spatial_shape, np.uint8))
    layer = Labels(data)
    receiver = Receiver(StrokeWatch(layer, choice, is_empty=True), choice)
    layer.paint((1, 10, 11), 3)
    receiver.receive_all()
    np.testing.assert_array_equal(receiver.labels[0], data[:])
    assert receiver.labels.any()


# --- any order of actions

Action = Callable[[ViewerModel, ImageChoice, Labels], None]


def brush(place: tuple[int, ...], value: int, size: int, dims: int) -> Action:
    def act(viewer: ViewerModel, choice: ImageChoice, layer: Labels) -> None:
        layer.n_edit_dimensions = dims
        layer.brush_size = size
        layer.paint([at % n for at, n in zip(place, layer.data.shape, strict=False)], value)
        layer.n_edit_dimensions = 2

    return act


def stroke(places: list[tuple[int, ...]], value: int) -> Action:
    def act(viewer: ViewerModel, choice: ImageChoice, layer: Labels) -> None:
        with layer.block_history():
            for place in places:
                layer.paint([at % n for at, n in zip(place, layer.data.shape, strict=False)], value)

    return act


def fill(place: tuple[int, ...], value: int) -> Action:
    def act(viewer: ViewerModel, choice: ImageChoice, layer: Labels) -> None:
        layer.fill([at % n for at, n in zip(place, layer.data.shape, strict=False)], value)

    return act


def complete(axis: int, place: tuple[int, ...]) -> Action:
    def act(viewer: ViewerModel, choice: ImageChoice, layer: Labels) -> None:
        complete_slice(layer, choice, axis, place[0] % choice.spatial_shape[axis], place[1] % choice.time_points)

    return act


def look(axis: int, index: int) -> Action:
    return lambda viewer, choice, layer: go_to(viewer, choice, axis, index, index % 2)


places = st.tuples(*(st.integers(0, 30) for _ in range(5)))
ids = st.integers(0, 3)
actions = st.one_of(
    st.builds(brush, places, ids, st.integers(1, 6), st.sampled_from([2, 3])),
    st.builds(stroke, st.lists(places, min_size=1, max_size=4), ids),
    st.builds(fill, places, ids),
    st.builds(complete, st.integers(0, 2), places),
    st.builds(look, st.integers(0, 2), st.integers(0, 30)),
    st.just(lambda viewer, choice, layer: layer.undo()),
    st.just(lambda viewer, choice, layer: layer.redo()),
)


@settings(max_examples=40)
@given(
    st.sampled_from(["ZYX", "TCZYX", "XYZ"]),
    st.lists(actions, max_size=3),
    st.lists(st.one_of(actions, st.just(None)), max_size=14),
    st.sampled_from([300, 5000, 1 << 22]),
)
def test_the_receiver_has_the_annotation_after_any_actions(
    axes: str, before: list[Action], during: list[Action | None], voxels_at_once: int
) -> None:
    viewer = ViewerModel()
    choice = choose_image([viewer.add_image(np.zeros([SIZES[axis] for axis in axes]), rgb=False)], axes)
    classes = [ClassInfo(id=i, name=str(i), colour="#ffffff") for i in (1, 2, 3)]
    layer = new_annotation(viewer, choice, classes)
    for action in before:
        action(viewer, choice, layer)
    receiver = Receiver(StrokeWatch(layer, choice, voxels_at_once=voxels_at_once), choice)
    for step in during:
        if step is None:
            receiver.receive()
        else:
            step(viewer, choice, layer)
    receiver.receive_all()
    # undoing what was erased before the watch began is found with the rest of the volume
    for _ in range(4 * layer.data.size // voxels_at_once + 4):
        receiver.receive()
    for t in range(choice.time_points):
        np.testing.assert_array_equal(receiver.labels[t], spatial_view(layer, choice, t))
        np.testing.assert_array_equal(receiver.watch.handed_out(t), receiver.labels[t])
        if receiver.labels[t].any():
            assert t in receiver.watch.annotated_time_points
