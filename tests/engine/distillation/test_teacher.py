"""Who may teach, what teachers say together, and that nothing changes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import DistillConfig, PredictConfig
from napari_unet3d.engine.distillation.scores import probabilities_of
from napari_unet3d.engine.distillation.teacher import Teacher, TeacherEnsemble, check_teachers
from napari_unet3d.engine.errors import ConfigError, DataError
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Event
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.volume import AnnotatedVolume, Volume

Make = Callable[..., Any]


def look(ensemble: TeacherEnsemble, image: Volume, **place: Any) -> np.ndarray[Any, Any]:
    """Z Y X C scores."""
    looking = ensemble.look(image, **place)
    while True:
        try:
            next(looking)
        except StopIteration as end:
            return np.asarray(end.value)


def ensemble_of(*models: TrainedModel, **settings: Any) -> TeacherEnsemble:
    return TeacherEnsemble(models, DistillConfig.model_validate(settings), "cpu", "float32")


def predicted(model: TrainedModel, image: Volume, **settings: Any) -> np.ndarray[Any, Any]:
    """C Z Y X probabilities."""
    found = np.zeros((len(model.classes), *image.shape), np.float32)
    config = PredictConfig.model_validate({"device": "cpu", "precision": "float32", **settings})
    events: list[Event] = list(Predictor(model, config).run(image, PredictionOutputs(probabilities=found)))
    assert events
    return found


# --- what they say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [False, True])
def test_the_mean_of_the_probabilities(make_teacher: Make, decided: Make, make_volume: Make, flips: bool) -> None:
    image = make_volume().image
    models = [decided(make_teacher(random_state=state)) for state in range(3)]
    wanted = np.mean([predicted(model, image, flips=flips) for model in models], axis=0)
    scores = look(ensemble_of(*models, flips=flips), image)
    assert scores.dtype == np.float16
    found = probabilities_of(np.moveaxis(scores, -1, 0).astype(np.float32), "softmax")
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert wanted[1].std() > 0.01


@pytest.mark.parametrize("network", [{"classes": 1}, {"classes": 1, "head": "sigmoid"}, {"norm_statistics": "batch"}])
def test_other_outputs(make_teacher: Make, decided: Make, make_volume: Make, network: dict[str, Any]) -> None:
    image, model = make_volume().image, decided(make_teacher(**network))
    scores = look(ensemble_of(model), image)
    found = probabilities_of(np.moveaxis(scores, -1, 0).astype(np.float32), model.recipe.network.head)
    np.testing.assert_allclose(found[1], predicted(model, image)[1], atol=2e-3)


def test_a_part_of_an_image(make_teacher: Make, decided: Make, make_volume: Make) -> None:
    image, model = make_volume().image, decided(make_teacher())
    box = (slice(8, 16), slice(4, 12), slice(6, 14))
    full = look(ensemble_of(model), image)
    np.testing.assert_allclose(look(ensemble_of(model), image, box=box), full[box], atol=0.02)


def test_the_activity_is_that_in_front_of_the_head(make_teacher: Make, make_volume: Make) -> None:
    image, model = make_volume().image, make_teacher()
    ensemble = ensemble_of(model, feature_hint=1.0)
    assert (ensemble.channels, ensemble.passes) == (2, 2)
    seen: list[torch.Tensor] = []
    model.network.body.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    footprint = Footprint.of(model.recipe.network)
    framed = footprint.legal_output(footprint.framed(image.shape))
    widths = [(b, n - b - size) for b, n, size in zip(footprint.border, framed, image.shape, strict=True)]
    grey = np.pad(model.normalization.apply(image.read()), [(0, 0), *widths], mode="edge")
    with torch.inference_mode():
        model.network(torch.from_numpy(grey)[None])
    inside = tuple(slice(b, b + size) for b, size in zip(footprint.border, image.shape, strict=True))
    wanted = seen[0].pow(2).mean(1)[0].clamp_min(torch.finfo(torch.float16).tiny).log()[inside]
    np.testing.assert_allclose(look(ensemble, image)[..., 1], wanted, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_teachers_are_frozen(make_teacher: Make, make_volume: Make, statistics: str) -> None:
    model = make_teacher(norm_statistics=statistics)
    ensemble = ensemble_of(model)
    (predictor,) = ensemble._teachers
    networks = model.network, predictor._network._network
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    assert any("running" in name for name in before[0])
    look(ensemble, make_volume().image)
    assert not any(module.training for module in networks[1].modules())
    for network, values in zip(networks, before, strict=True):
        now = network.state_dict()
        assert all(torch.equal(now[name], value) for name, value in values.items())


# --- who may teach ----------------------------------------------------------------------------------------


def refusal(models: list[TrainedModel], volume: AnnotatedVolume, kind: type[Exception] = ConfigError) -> str:
    teachers = [Teacher(f"{letter}.safetensors", model) for letter, model in zip("ab", models, strict=False)]
    with pytest.raises(kind) as error:
        check_teachers(teachers, [volume])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_good_teacher(make_teacher: Make, make_volume: Make) -> None:
    model = make_teacher()
    check_teachers([Teacher("a", model), Teacher("b", model)], [make_volume(seed=1)])


def test_no_teacher(make_volume: Make) -> None:
    assert "there is no teacher" in refusal([], make_volume())


def test_teachers_of_other_classes(make_teacher: Make, make_volume: Make) -> None:
    models = [make_teacher(), make_teacher(volumes=[make_volume(ids=(1, 5))])]
    assert "classes: a.safetensors has 1, 2, b.safetensors has 1, 5" in refusal(models, make_volume())


def test_teachers_of_another_head(make_teacher: Make, make_volume: Make) -> None:
    models = [make_teacher(), make_teacher(classes=1, head="sigmoid")]
    assert "kind of output" in refusal(models, make_volume())


def test_teachers_of_other_normalisation(make_teacher: Make, make_volume: Make) -> None:
    models = [make_teacher(), make_teacher(normalize={"method": "zscore"})]
    assert "normalise grey values differently" in refusal(models, make_volume())


def test_an_image_of_other_channels(make_teacher: Make, make_volume: Make) -> None:
    volume = make_volume()
    two = Volume.from_array(np.stack([volume.image.read()[0]] * 2))
    message = refusal([make_teacher()], AnnotatedVolume(two, volume.labels), DataError)
    assert "2" in message
    assert "channel" in message


def test_painted_classes_that_the_teacher_does_not_know(make_teacher: Make, make_volume: Make) -> None:
    message = refusal([make_teacher()], make_volume(ids=(1, 7)))
    assert "class 7 is painted" in message
    assert "distil without labels" in message


@pytest.mark.parametrize("change", [lambda grey: 100 * grey + 5000, lambda grey: grey / 1000])
def test_grey_values_that_the_teacher_does_not_know(make_teacher: Make, make_volume: Make, change: Make) -> None:
    volume = make_volume()
    other = dataclasses.replace(volume, image=Volume.from_array(change(volume.image.read()[0])))
    message = refusal([make_teacher()], other, DataError)
    assert "far from those that the teacher a.safetensors was trained on" in message
    assert "rescale the image" in message


def test_the_record_tells_the_weights_apart(make_teacher: Make) -> None:
    one, same, other = (make_teacher(random_state=state) for state in (0, 0, 1))
    records = [Teacher("a", model).record() for model in (one, same, other)]
    assert records[0] == records[1]
    assert records[0].fingerprint != records[2].fingerprint
    assert records[0].parameters == sum(p.numel() for p in one.network.parameters())
