"""Slices worth painting, and the way there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_unet3d import api
from napari_unet3d.engine.progress import Stop
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.widgets._layers.view import Plane, box_in_view, visible_plane
from napari_unet3d.widgets._session import Phase
from napari_unet3d.widgets._workbench.bench import Workbench
from napari_unet3d.widgets._workbench.suggesting import slice_text
from napari_unet3d.widgets._workers import Job

from .conftest import SHAPE, TIMEOUT, pictures


@pytest.fixture
def ready(bench: Workbench, model_of: Callable[..., TrainedModel]) -> Workbench:
    """An image that is scaled and lies somewhere, one painted slice, a model."""
    layer = bench.viewer.add_image(
        pictures(1)[0], name="cell", scale=(3.0, 0.5, 0.25), translate=(100, 20, -7), units=("um",) * 3
    )
    bench.choose_image([layer])
    bench.new_annotation()
    bench.annotation.data_setitem(np.nonzero(np.ones((1, *SHAPE[1:]))), 1)  # slice Z 0
    bench.session.model = model_of()
    return bench


def suggested(qtbot: Any, bench: Workbench) -> Any:
    bench.take_strokes()
    bench.suggesting.start()
    assert bench.suggesting.problem() == "slices are being ranked"
    qtbot.waitUntil(lambda: not bench.suggesting.job.is_running, timeout=TIMEOUT)
    assert bench.suggesting.job.problem == ""
    return bench.suggesting.suggestions


def test_the_same_slices_as_from_python(qtbot: Any, ready: Workbench) -> None:
    found = suggested(qtbot, ready)
    assert ready.image is not None
    assert ready.session.model is not None
    labels = np.zeros(SHAPE, np.uint8)
    labels[0] = 1
    wanted = api.suggest(ready.session.model, ready.image.volume(), labels, config=ready.session.predict_config)
    assert [(one.axis, one.index) for one in found] == [(one.axis, one.index) for one in wanted]
    assert len(found) == 5
    assert (0, 0) not in [(one.axis, one.index) for one in found]
    assert slice_text(found[0]) == f"{'ZYX'[found[0].axis]} {found[0].index}"


def test_a_click_goes_to_the_slice_whatever_the_view(qtbot: Any, ready: Workbench) -> None:
    found = suggested(qtbot, ready)
    viewer, image = ready.viewer, ready.image
    assert image is not None
    viewer.dims.order = (2, 0, 1)
    viewer.dims.ndisplay = 3
    viewer.scene.camera.zoom = 400.0  # one micrometre fills the canvas
    assert len({one.axis for one in found}) > 1
    for number, one in enumerate(found):
        ready.suggesting.go_to(number)
        assert visible_plane(viewer, image) == Plane(one.axis, one.index)
        for part, at in zip(box_in_view(viewer, image), one.centre, strict=True):
            assert part.start <= at < part.stop
        assert ready.suggesting.shown == number
    ready.suggesting.go_to_next()
    assert ready.suggesting.shown == 0


def test_what_is_in_view_stays_where_it_is(qtbot: Any, ready: Workbench) -> None:
    suggested(qtbot, ready)
    camera = ready.viewer.scene.camera
    ready.suggesting.go_to(0)
    before = tuple(camera.center)
    ready.suggesting.go_to(0)
    assert tuple(camera.center) == before


def test_without_annotation_and_without_training(
    qtbot: Any, bench: Workbench, model_of: Callable[..., TrainedModel]
) -> None:
    bench.choose_image([bench.viewer.add_image(pictures(1)[0])])
    assert "train a model or load" in bench.suggesting.problem()
    bench.session.model = model_of()
    bench.session.phase = Phase.TRAINING
    assert "stop or pause" in bench.suggesting.problem()
    bench.session.phase = Phase.PAUSED
    assert bench.suggesting.problem() == ""
    bench.suggesting.start()
    qtbot.waitUntil(lambda: not bench.suggesting.job.is_running, timeout=TIMEOUT)
    assert "nothing is annotated yet" in bench.suggesting.suggestions[0].reason


def test_models_for_other_images(bench: Workbench, model_of: Callable[..., TrainedModel]) -> None:
    assert bench.suggesting.problem() != ""
    bench.choose_image([bench.viewer.add_image(pictures(1)[0], name="cell")])
    bench.session.model = model_of(2)
    assert "cell has 1 channel, the model needs 2" in bench.suggesting.problem()
    bench.session.model = model_of(1, 2)
    assert "cell is 3D, the model was trained on 2D" in bench.suggesting.problem()


def test_cancelling_keeps_the_list_before(qtbot: Any, ready: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = suggested(qtbot, ready)
    start = Job.start

    def stopped_at_once(self: Job) -> None:
        self.inbox.put(Stop())
        start(self)

    monkeypatch.setattr(Job, "start", stopped_at_once)
    assert suggested(qtbot, ready) == before
    assert ready.suggesting.job.progress.text == "cancelled"


def test_an_image_that_is_gone_is_said(qtbot: Any, ready: Workbench) -> None:
    suggested(qtbot, ready)
    ready.viewer.layers.remove("cell")
    ready.suggesting.go_to(0)
    assert "is gone" in ready.session.message
