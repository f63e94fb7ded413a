"""Scores stand for the probabilities they were made from."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_unet3d.engine.config import UNetConfig
from napari_unet3d.engine.distillation.scores import (
    class_indices,
    log_probabilities,
    probabilities_of,
    same_form,
    score_channels,
    scores_of,
)
from napari_unet3d.engine.heads import class_logits

values = st.floats(0.0078125, 1, width=32)


@given(arrays(np.float32, st.tuples(st.integers(2, 5), st.just(3)), elements=values))
def test_softmax_there_and_back(raw: np.ndarray) -> None:
    p = (raw / raw.sum(0)).astype(np.float32)
    scores = scores_of(p, "softmax")
    assert scores.shape == (1 if len(p) == 2 else len(p), 3)
    np.testing.assert_allclose(probabilities_of(scores, "softmax"), p, atol=1e-5)


@given(arrays(np.float32, (3, 4), elements=st.floats(0.0078125, 0.9921875, width=32)))
def test_sigmoids_there_and_back(structures: np.ndarray) -> None:
    p = np.concatenate([1 - structures.max(0, keepdims=True), structures])
    back = probabilities_of(scores_of(p, "sigmoid"), "sigmoid")
    np.testing.assert_allclose(back[1:], structures, atol=1e-5)
    assert np.isnan(back[0]).all()


def test_extreme_probabilities_have_finite_scores() -> None:
    certain = np.array([[0.0], [1.0]], np.float32)
    for p in (certain, certain[::-1], np.array([[0.0], [1.0], [0.0]], np.float32)):
        assert np.isfinite(scores_of(p, "softmax")).all()
    assert np.isfinite(scores_of(certain, "sigmoid")).all()
    # kept in float16 they must not overflow either
    assert np.isfinite(scores_of(certain, "softmax").astype(np.float16)).all()


@pytest.mark.parametrize(("head", "classes"), [("softmax", 1), ("softmax", 2), ("softmax", 3), ("sigmoid", 2)])
def test_classes_are_those_of_the_logits(head: Literal["softmax", "sigmoid"], classes: int) -> None:
    logits = torch.randn(1, classes, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    scores = same_form(logits, head)[0].movedim(0, -1)
    assert scores.shape[-1] == score_channels(UNetConfig(classes=classes, head=head))
    assert torch.equal(class_indices(scores, head), class_logits(logits[0], head).argmax(0))


@pytest.mark.parametrize(("head", "channels", "shape"), [("softmax", 3, (2, 1, 3, 5)), ("softmax", 1, (2, 1, 2, 5))])
def test_log_probabilities_are_distributions(
    head: Literal["softmax", "sigmoid"], channels: int, shape: tuple[int, ...]
) -> None:
    found = log_probabilities(torch.randn(2, channels, 5), head, temperature=3.0)
    assert found.shape == shape
    torch.testing.assert_close(found.exp().sum(2), torch.ones(2, 1, 5))


def test_each_structure_of_a_sigmoid_head_is_a_distribution_of_its_own() -> None:
    logits = torch.tensor([[[0.0], [4.0]]])  # B C N
    found = log_probabilities(logits, "sigmoid", temperature=2.0).exp()
    assert found.shape == (1, 2, 2, 1)
    torch.testing.assert_close(found[0, :, 1, 0], torch.tensor([0.5, 1 / (1 + np.exp(-2.0))]).float())
