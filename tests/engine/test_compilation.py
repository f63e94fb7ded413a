"""Training and prediction in compiled code. The compiler is pretended: the real one takes minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine.config import PredictConfig
from napari_unet3d.engine.networks.outputs import NetworkOutputs
from napari_unet3d.engine.prediction_io import PredictionOutputs
from napari_unet3d.engine.predictor import Predictor
from napari_unet3d.engine.progress import Note

Make = Callable[..., Any]


def trained(make_trainer: Make, **options: Any) -> tuple[Any, list[str]]:
    trainer = make_trainer(steps=4, validation=0, dropout=0.2, **options)
    warnings = [event.text for event in trainer.fit() if isinstance(event, Note) and event.level == "warning"]
    return trainer.model(), warnings


def test_every_step_runs_in_compiled_code(
    make_trainer: Make, same_weights: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pretend(function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(*arguments: Any) -> Any:
            calls.append(1)
            return function(*arguments)

        return compiled

    plain, _ = trained(make_trainer)
    monkeypatch.setattr(torch, "compile", pretend)
    found, warnings = trained(make_trainer, compile=True)
    assert len(calls) == 4
    assert warnings == []
    assert same_weights(found, plain)


def refuse(function: Callable[..., Any]) -> Callable[..., Any]:
    raise RuntimeError("torch.compile is not supported here")


def fail_forward(function: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(*_: Any) -> Any:
        raise ValueError("no C++ compiler\n\nset TORCHDYNAMO_VERBOSE=1 for the internal stack trace")

    return compiled


def fail_backward(function: Callable[..., Any]) -> Callable[..., Any]:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler")

    def compiled(*arguments: Any) -> Any:
        outputs = function(*arguments)
        return NetworkOutputs([Broken.apply(logits) for logits in outputs.logits])  # type: ignore[no-untyped-call]

    return compiled


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (refuse, "RuntimeError: torch.compile is not supported here"),
        (fail_forward, "ValueError: no C++ compiler"),
        (fail_backward, "RuntimeError: no C++ compiler"),
    ],
)
def test_without_a_compiler_it_goes_on_interpreted(
    make_trainer: Make, same_weights: Make, monkeypatch: pytest.MonkeyPatch, compiler: Any, reason: str
) -> None:
    plain, _ = trained(make_trainer)
    monkeypatch.setattr(torch, "compile", compiler)
    found, warnings = trained(make_trainer, compile=True)
    assert warnings == [f"the network could not be compiled ({reason}): going on without"]
    assert same_weights(found, plain)


def test_an_error_of_interpreted_code_is_raised(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", refuse)

    def broken(*_: Any) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr("napari_unet3d.engine.learner.Learner._loss_of", broken)
    with pytest.raises(ValueError, match="a bug"):
        trained(make_trainer, compile=True)


# --- prediction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compiler", "notes"), [(None, 0), (refuse, 1), (fail_forward, 1)])
def test_prediction_is_the_same_with_and_without_a_compiler(
    make_trainer: Make, make_volume: Make, monkeypatch: pytest.MonkeyPatch, compiler: Any, notes: int
) -> None:
    trainer = make_trainer(steps=1)
    list(trainer.fit())
    image = make_volume().image
    labels = {}
    calls = []

    def pretend(function: Callable[..., Any]) -> Callable[..., Any]:
        calls.append(1)
        return function

    monkeypatch.setattr(torch, "compile", compiler or pretend)
    for is_on in (False, True):
        config = PredictConfig(device="cpu", precision="float32", compile=is_on, tile=(12, 20, 20))
        labels[is_on] = np.zeros(image.shape, np.uint8)
        events = list(Predictor(trainer.model(), config).run(image, PredictionOutputs(labels[is_on])))
        told = [event.text for event in events if isinstance(event, Note)]
        assert len(told) == notes * is_on
    np.testing.assert_array_equal(labels[True], labels[False])
    assert len(calls) == (compiler is None)
