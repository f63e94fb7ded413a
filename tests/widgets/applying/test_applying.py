"""Every kind of image is predicted as the same voxels are from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_unet3d import api
from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.progress import Stop
from napari_unet3d.engine.tile_network import TileNetwork
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.widgets._layers.prediction import PROVENANCE_KEY
from napari_unet3d.widgets._layers.view import go_to
from napari_unet3d.widgets._workbench import applying, result_memory
from napari_unet3d.widgets._workbench.applying import ApplyOptions
from napari_unet3d.widgets._workbench.bench import Workbench

from .conftest import FLAT, SHAPE, TIMEOUT, pictures

ModelOf = Callable[..., TrainedModel]
FLOAT32 = PredictConfig(precision="float32", device="cpu")
MANY_TILES = PredictConfig(precision="float32", device="cpu", tile=(12, 16, 16), halo=(0, 2, 2))


def expected(model: TrainedModel, image: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    return api.predict(model, image, config=FLOAT32)


def applied(qtbot: Any, bench: Workbench, options: ApplyOptions | None = None) -> Any:
    """The labels layer of a prediction."""
    bench.applying.start(options or ApplyOptions())
    qtbot.waitUntil(lambda: not bench.session.is_applying, timeout=TIMEOUT)
    return bench.applying.result


def volume(kind: str, data: NDArray[np.uint8]) -> Any:
    if kind == "dask":
        return da.from_array(data, chunks=7)
    if kind == "zarr":
        return zarr.array(data, chunks=(5, 9, 9))
    return data


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_volumes_of_any_array(qtbot: Any, bench: Workbench, model_of: ModelOf, kind: str) -> None:
    data = pictures(1)[0]
    layer = bench.viewer.add_image(volume(kind, data), scale=(2, 0.5, 0.5), units=("um",) * 3, contrast_limits=(0, 255))
    bench.choose_image([layer])
    bench.session.model, bench.session.model_origin = model_of(), "a few steps"
    result = applied(qtbot, bench)
    np.testing.assert_array_equal(result.data, expected(model_of(), data))
    np.testing.assert_array_equal(result.scale, layer.scale)
    assert result.units == layer.units
    assert list(result.features["class"]) == ["not annotated", "background", "cell"]
    assert result.metadata[PROVENANCE_KEY] == {"model": "a few steps", "image": layer.name}
    assert bench.session.applying_progress == (1.0, "done")


def test_the_finest_level_of_a_pyramid(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(1)[0]
    layer = bench.viewer.add_image([data, data[::2, ::2, ::2]], multiscale=True, contrast_limits=(0, 255))
    bench.choose_image([layer])
    bench.session.model = model_of()
    result = applied(qtbot, bench)
    assert not result.multiscale
    np.testing.assert_array_equal(result.data, expected(model_of(), data))


def test_time_points_all_or_the_one_in_view(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = np.stack([pictures(1, seed=seed)[0] for seed in range(3)])
    bench.choose_image([bench.viewer.add_image(data)], "TZYX")  # three of something short would be channels
    bench.session.model = model_of()
    bench.viewer.dims.set_point(0, 1)
    one = applied(qtbot, bench)
    assert one.data.shape == data.shape
    np.testing.assert_array_equal(one.data[1], expected(model_of(), data[1]))
    assert not one.data[[0, 2]].any()
    every = applied(qtbot, bench, ApplyOptions(all_times=True))
    for labels, image in zip(every.data, data, strict=True):
        np.testing.assert_array_equal(labels, expected(model_of(), image))


def test_a_channel_axis(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(2)
    bench.choose_image([bench.viewer.add_image(data)])
    assert bench.image is not None
    assert bench.image.axes == "CZYX"
    bench.session.model = model_of(2)
    np.testing.assert_array_equal(applied(qtbot, bench).data, expected(model_of(2), data))


def test_a_channel_axis_elsewhere(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(2)
    bench.choose_image([bench.viewer.add_image(np.moveaxis(data, 0, -1))], "zyxc")
    bench.session.model = model_of(2)
    result = applied(qtbot, bench)
    assert result.data.shape == (*SHAPE, 1)
    np.testing.assert_array_equal(result.data[..., 0], expected(model_of(2), data))


def test_layers_as_channels(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(2)
    layers = [bench.viewer.add_image(channel, name=f"channel {i}") for i, channel in enumerate(data)]
    bench.choose_image(layers)
    bench.session.model = model_of(2)
    np.testing.assert_array_equal(applied(qtbot, bench).data, expected(model_of(2), data))


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_are_channels_and_opacity_is_none(
    qtbot: Any, bench: Workbench, model_of: ModelOf, colours: int
) -> None:
    data = pictures(3)
    stored = np.moveaxis(data, 0, -1)
    if colours == 4:
        stored = np.concatenate([stored, np.full((*SHAPE, 1), 255, np.uint8)], axis=-1)
    bench.choose_image([bench.viewer.add_image(stored, rgb=True)])
    bench.session.model = model_of(3)
    np.testing.assert_array_equal(applied(qtbot, bench).data, expected(model_of(3), data))


def test_a_plane(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(1, FLAT)[0]
    bench.choose_image([bench.viewer.add_image(data)])
    bench.session.model = model_of(1, 2)
    np.testing.assert_array_equal(applied(qtbot, bench).data, expected(model_of(1, 2), data))


def test_only_what_is_in_view(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(1)[0]
    bench.choose_image([bench.viewer.add_image(data)])
    bench.session.model = model_of()
    assert bench.image is not None
    go_to(bench.viewer, bench.image, 0, 5)
    camera = bench.viewer.scene.camera
    _, width = bench.viewer.canvas.viewbox_size(bench.viewer.layers)
    camera.zoom = width / 10  # ten voxels wide
    camera.center = (0, 12, 14)
    result = applied(qtbot, bench, ApplyOptions(only_view=True)).data
    there = np.argwhere(result)
    low, high = there.min(0), there.max(0)
    assert (low[0], high[0]) == (0, SHAPE[0] - 1)  # along the slider all of it
    assert (low[2], high[2]) == (9, 19)  # voxels that are seen in part count
    assert result[:, low[1] : high[1] + 1, 9:20].all()
    assert bench.applying.bytes_needed(ApplyOptions(only_view=True)) == there.shape[0]


def test_probabilities_and_uncertainty(qtbot: Any, bench: Workbench, model_of: ModelOf) -> None:
    data = pictures(1)[0]
    bench.choose_image([bench.viewer.add_image(data, name="image")])
    bench.session.model = model_of()
    result = applied(qtbot, bench, ApplyOptions(probabilities=True, uncertainty=True))
    layers = bench.viewer.layers
    background, cell = (layers[f"image probability of {name}"] for name in ("background", "cell"))
    np.testing.assert_allclose(background.data + cell.data, 1, atol=1e-5)
    np.testing.assert_array_equal(result.data, np.where(cell.data > background.data, 2, 1))
    p = np.stack([background.data, cell.data]).astype(np.float64).clip(1e-12, 1)
    np.testing.assert_allclose(layers["image uncertainty"].data, -(p * np.log2(p)).sum(0), atol=1e-3)
    assert [layer.visible for layer in (background, cell, layers["image uncertainty"])] == [False, False, True]


def test_lack_of_memory_leads_to_smaller_tiles(
    qtbot: Any, bench: Workbench, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(1)[0]
    bench.choose_image([bench.viewer.add_image(data)])
    bench.session.model = model_of()
    compute, calls = TileNetwork.__call__, []

    def short_of_memory(self: TileNetwork, block: Any, *args: Any) -> Any:
        calls.append(block.shape)
        if len(calls) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return compute(self, block, *args)

    monkeypatch.setattr(TileNetwork, "__call__", short_of_memory)
    told: list[str] = []
    bench.session.events.message.connect(told.append)
    result = applied(qtbot, bench)
    assert any("memory ran out" in text and "going on with" in text for text in told)
    assert np.prod(calls[1]) < np.prod(calls[0])
    assert result.data.all()
    assert bench.session.applying_progress.text == "done"


def test_no_memory_at_all_is_said(
    qtbot: Any, bench: Workbench, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    bench.session.model = model_of()

    def never(self: TileNetwork, *args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(TileNetwork, "__call__", never)
    applied(qtbot, bench)
    assert "smallest tile" in bench.session.message
    assert bench.session.is_warning
    assert not bench.applying.problem()  # the button is back


def test_large_results_are_told_of_before_and_too_large_ones_refused(
    bench: Workbench, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    bench.session.model = model_of()
    voxels = int(np.prod(SHAPE))
    plain, all_of_it = ApplyOptions(), ApplyOptions(probabilities=True, uncertainty=True)
    assert bench.applying.bytes_needed(plain) == voxels
    assert bench.applying.bytes_needed(all_of_it) == voxels * (1 + 3 * 4)
    monkeypatch.setattr(result_memory, "free_memory", lambda: 20 * voxels)
    assert bench.applying.memory_note(plain) == ""
    assert "of memory" in bench.applying.memory_note(all_of_it)
    assert bench.applying.problem(all_of_it) == ""
    monkeypatch.setattr(result_memory, "free_memory", lambda: 10 * voxels)
    assert "command line" in bench.applying.problem(all_of_it)
    bench.applying.start(all_of_it)
    assert "of memory" in bench.session.message
    assert len(bench.viewer.layers) == 1


def test_cancelling_keeps_what_is_done(
    qtbot: Any, bench: Workbench, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    bench.session.model = model_of()
    bench.session.predict_config = MANY_TILES
    compute = TileNetwork.__call__

    def then_stop(self: TileNetwork, *args: Any) -> Any:
        job = bench.applying._job
        assert job is not None
        job.inbox.put(Stop())
        return compute(self, *args)

    monkeypatch.setattr(TileNetwork, "__call__", then_stop)
    result = applied(qtbot, bench)
    assert "cancelled" in bench.session.applying_progress.text
    assert result.data.any()
    assert not result.data.all()


def test_the_slice_in_view_comes_first(
    qtbot: Any, bench: Workbench, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    bench.session.model = model_of()
    bench.session.predict_config = MANY_TILES
    assert bench.image is not None
    go_to(bench.viewer, bench.image, 1, 20)
    seen: list[Any] = []
    monkeypatch.setattr(applying.PredictionRunner, "_on_event", lambda self, event: seen.append(event))
    applied(qtbot, bench)
    boxes = [event.box for event in seen if hasattr(event, "box")]
    assert boxes[0][1].start <= 20 < boxes[0][1].stop
    assert any(not box[1].start <= 20 < box[1].stop for box in boxes)


@pytest.mark.parametrize(
    ("channels", "dims", "shape", "words"),
    [(2, 3, SHAPE, ["1 channel,", "needs 2", "channels"]), (1, 2, SHAPE, ["is 3D", "2D images"])],
)
def test_images_that_do_not_fit_the_model(
    bench: Workbench, model_of: ModelOf, channels: int, dims: int, shape: tuple[int, ...], words: list[str]
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1, shape)[0])])
    bench.session.model = model_of(channels, dims)
    assert all(word in bench.applying.problem() for word in words)


def test_another_image_is_predicted_while_the_training_stays_with_its_own(
    qtbot: Any, bench: Workbench, model_of: ModelOf
) -> None:
    viewer: ViewerModel = bench.viewer
    mine = viewer.add_image(pictures(1)[0], name="mine")
    other_data = pictures(1, (8, 20, 22))[0]
    other = viewer.add_image(other_data, name="other", scale=(3, 1, 1))
    bench.choose_image([mine])
    bench.session.model = model_of()
    bench.applying.choose_image([other])
    assert bench.image is not None
    assert bench.image.layer == mine
    result = applied(qtbot, bench)
    np.testing.assert_array_equal(result.data, expected(model_of(), other_data))
    np.testing.assert_array_equal(result.scale, other.scale)
    assert bench.prediction is None  # nothing to copy into the annotation of another image
    viewer.layers.remove(other)
    assert bench.applying.image is not None
    assert bench.applying.image.layer == mine
    assert bench.applying.problem() == ""


def test_removing_the_result_ends_the_prediction(
    qtbot: Any, bench: Workbench, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    bench.session.model = model_of()
    stopped: list[bool] = []
    monkeypatch.setattr(bench.applying, "cancel", lambda: stopped.append(True))
    bench.applying.start(ApplyOptions(uncertainty=True))
    bench.viewer.layers.remove(bench.viewer.layers[-1])
    assert not stopped  # the labels are still wanted
    bench.viewer.layers.remove(bench.applying.result)
    assert stopped == [True]
    assert bench.applying.result is None
    qtbot.waitUntil(lambda: not bench.session.is_applying, timeout=TIMEOUT)
