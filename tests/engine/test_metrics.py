from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import DataError
from napari_unet3d.engine.metrics import (
    class_scores,
    class_volumes,
    confusion_matrix,
    evaluate_labels,
    mean_foreground_iou,
)
from napari_unet3d.engine.progress import ClassScore
from napari_unet3d.engine.volume import Volume

NAN = math.nan


def score(class_id: int, iou: float) -> ClassScore:
    return ClassScore(class_id, iou, NAN, NAN, NAN)


# --- counting ---------------------------------------------------------------------------------------------


def test_confusion_has_true_classes_in_rows_and_other_predictions_in_the_last_column() -> None:
    truth = np.array([[1, 1, 1, 5], [5, 5, 0, 3]], dtype=np.uint8)
    prediction = np.array([[1, 1, 5, 5], [1, 9, 1, 1]], dtype=np.uint8)
    assert confusion_matrix(prediction, truth, (1, 5)).tolist() == [[2, 1, 0], [1, 1, 1]]
    where = np.array([[True, False, False, False], [True, True, True, True]])
    assert confusion_matrix(prediction, truth, (1, 5), where).tolist() == [[1, 0, 0], [1, 0, 1]]
    assert confusion_matrix(prediction, truth, (7,)).tolist() == [[0, 0]]


def test_confusion_takes_ids_of_different_types_beyond_the_listed_ones() -> None:
    truth = np.array([2, 2, 301], dtype=np.uint16)
    prediction = np.array([2, 255, 2], dtype=np.uint8)
    assert confusion_matrix(prediction, truth, (1, 2)).tolist() == [[0, 0, 0], [0, 1, 1]]


@given(cut=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_confusions_of_blocks_add_up(cut: int, seed: int) -> None:
    prediction, truth = np.random.default_rng(seed).integers(0, 5, (2, 20, 3, 4), dtype=np.uint8)
    ids = (1, 2, 4)
    parts = [confusion_matrix(prediction[part], truth[part], ids) for part in (slice(cut), slice(cut, None))]
    assert np.array_equal(parts[0] + parts[1], confusion_matrix(prediction, truth, ids))


def test_scores_from_hand_counted_pairs() -> None:
    # class 1: 2 hits, 3 true, 3 predicted; class 5: 1 hit, 3 true, 2 predicted
    scores = class_scores(np.array([[2, 1, 0], [1, 1, 1]]), (1, 5))
    assert scores == (
        ClassScore(1, iou=2 / 4, dice=4 / 6, precision=2 / 3, recall=2 / 3),
        ClassScore(5, iou=1 / 4, dice=2 / 5, precision=1 / 2, recall=1 / 3),
    )


def test_scores_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    truth = random.integers(1, 5, 2000, dtype=np.uint8)
    prediction = np.where(random.random(2000) < 0.6, truth, random.integers(1, 5, 2000)).astype(np.uint8)
    ids = (1, 2, 3, 4)
    confusion = confusion_matrix(prediction, truth, ids)
    assert np.array_equal(confusion[:, :-1], metrics.confusion_matrix(truth, prediction, labels=ids))
    scores = class_scores(confusion, ids)
    for name, function in (
        ("iou", metrics.jaccard_score),
        ("dice", metrics.f1_score),
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
    ):
        expected = function(truth, prediction, labels=ids, average=None)
        assert [getattr(s, name) for s in scores] == pytest.approx(expected)


def test_a_class_in_neither_is_nan_and_one_in_truth_or_prediction_only_is_zero() -> None:
    neither, missed, invented = class_scores(np.array([[0, 0, 0, 0], [0, 0, 3, 1], [0, 0, 0, 0]]), (1, 2, 3))
    assert all(math.isnan(v) for v in (neither.iou, neither.dice, neither.precision, neither.recall))
    for entry in (missed, invented):
        assert (entry.iou, entry.dice, entry.precision, entry.recall) == (0, 0, 0, 0)


def test_mean_foreground_iou_leaves_out_background_and_absent_classes() -> None:
    scores = [score(1, 0.9), score(2, 0.2), score(3, NAN), score(4, 0.6)]
    assert mean_foreground_iou(scores, background_id=1) == pytest.approx(0.4)
    assert math.isnan(mean_foreground_iou(scores[:1], background_id=1))
    assert math.isnan(mean_foreground_iou([score(1, 0.9), score(3, NAN)], background_id=1))


def test_volumes_are_voxel_counts_times_the_volume_of_a_voxel() -> None:
    labels = np.zeros((3, 4, 5), dtype=np.uint8)
    labels[0], labels[1:, :2, 0] = 1, 4
    size = VoxelSize(2.0, 0.5, 0.25, "um")
    assert class_volumes(labels, (1, 3, 4), size) == {1: 20 * 0.25, 3: 0, 4: 4 * 0.25}
    assert class_volumes(labels, (1, 4), size, where=labels == 4) == {1: 0, 4: 1.0}
    assert class_volumes(labels, (1,), size) == {1: 5.0}


def test_counting_in_slabs_counts_every_plane() -> None:
    labels = np.full((3, 1024, 1025), 2, dtype=np.uint8)  # more than a slab holds in each plane
    labels[1] = 1
    assert class_volumes(labels, (1, 2), VoxelSize()) == {1: 1024 * 1025, 2: 2 * 1024 * 1025}


# --- evaluation -------------------------------------------------------------------------------------------


@pytest.fixture
def cube_and_shifted_cube() -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth: a cube of 4 voxels a side (id 3) in background (id 1), shifted by one along x."""
    prediction, truth = np.ones((2, 8, 8, 8), dtype=np.uint8)
    prediction[2:6, 2:6, 3:7] = 3
    truth[2:6, 2:6, 2:6] = 3
    return prediction, truth


def test_evaluation_of_a_shifted_cube(cube_and_shifted_cube: tuple[np.ndarray, np.ndarray]) -> None:
    result = evaluate_labels(*cube_and_shifted_cube, voxel_size=VoxelSize(2, 1, 1, "um"))
    background, cube = result.classes
    assert (background.score.class_id, cube.score.class_id) == (1, 3)
    assert result.background_id == 1
    assert result.scored_voxels == 512
    assert cube.score.iou == result.mean_foreground_iou == pytest.approx(48 / 80)
    assert cube.score.dice == cube.score.precision == cube.score.recall == pytest.approx(48 / 64)
    assert background.score.iou == pytest.approx((512 - 80) / (512 - 48))
    assert cube.volume_truth == cube.volume_prediction == 128
    # of 56 surface voxels a side 16 (one face) lie one voxel off, inner ones of the other end (4) too
    assert cube.surface.mean == pytest.approx((16 + 4) / 56)
    assert cube.surface.hausdorff95 == 1


def test_zeros_of_the_truth_are_not_scored(cube_and_shifted_cube: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, truth = cube_and_shifted_cube
    truth[:, :, :3] = truth[:, :, 6:] = 0
    result = evaluate_labels(prediction, truth, voxel_size=VoxelSize())
    assert result.scored_voxels == 8 * 8 * 3
    assert result.mean_foreground_iou == 1
    assert [(c.volume_truth, c.volume_prediction, c.surface.mean) for c in result.classes] == [
        (144, 144, 0),
        (48, 48, 0),
    ]


def test_excluded_voxels_are_not_scored_but_belong_to_volumes(
    cube_and_shifted_cube: tuple[np.ndarray, np.ndarray],
) -> None:
    prediction, truth = cube_and_shifted_cube
    prediction[:4] = truth[:4]
    exclude = np.zeros_like(truth)
    exclude[:4] = truth[:4]
    result = evaluate_labels(prediction, truth, voxel_size=VoxelSize(), exclude=exclude)
    assert result.scored_voxels == 256
    assert result.mean_foreground_iou == pytest.approx(24 / 40)
    assert result.classes[1].volume_truth == 64
    # of planes 4 and 5: contours of 12 and 16 (the cube's end) voxels, 4 of a row off by one at either side
    assert result.classes[1].surface.mean == pytest.approx((4 + 4 + 2) / 28)


def test_a_perfect_prediction(cube_and_shifted_cube: tuple[np.ndarray, np.ndarray]) -> None:
    _, truth = cube_and_shifted_cube
    for entry in evaluate_labels(truth, truth, voxel_size=VoxelSize()).classes:
        assert (entry.score.iou, entry.score.dice, entry.score.precision, entry.score.recall) == (1, 1, 1, 1)
        assert entry.surface.mean == entry.surface.hausdorff95 == 0


def test_background_written_as_zero_leaves_the_structures_score(
    cube_and_shifted_cube: tuple[np.ndarray, np.ndarray],
) -> None:
    prediction, truth = cube_and_shifted_cube
    expected = evaluate_labels(prediction, truth, voxel_size=VoxelSize())
    prediction[prediction == 1] = 0
    result = evaluate_labels(prediction, truth, voxel_size=VoxelSize())
    assert result.mean_foreground_iou == expected.mean_foreground_iou
    assert result.classes[1] == expected.classes[1]
    assert result.classes[0].score.iou == 0


def test_an_invented_structure_lowers_the_mean() -> None:
    truth = np.array([[1, 1, 2, 2]])
    prediction = np.array([[4, 1, 2, 2]])
    result = evaluate_labels(prediction, truth, voxel_size=VoxelSize())
    assert [c.score.iou for c in result.classes] == [0.5, 1, 0]
    assert result.mean_foreground_iou == 0.5


def test_one_plane_gives_the_same_with_two_and_three_axes() -> None:
    prediction, truth = np.random.default_rng(1).integers(1, 4, (2, 12, 15))
    flat = evaluate_labels(prediction, truth, voxel_size=VoxelSize())
    assert flat == evaluate_labels(prediction[None], truth[None], voxel_size=VoxelSize())
    assert all(c.surface.mean > 0 for c in flat.classes)


def test_evaluation_becomes_plain_json() -> None:
    truth = np.array([[[1, 1, 2], [1, 1, 2]]])
    prediction = np.array([[[1, 1, 1], [1, 1, 1]]])
    text = json.dumps(
        evaluate_labels(prediction, truth, voxel_size=VoxelSize(2, 1, 1, "nm")).as_dict(), allow_nan=False
    )
    data = json.loads(text)
    assert data["mean_foreground_iou"] == 0
    assert (data["background_id"], data["scored_voxels"], data["unit"]) == (1, 6, "nm")
    assert data["classes"][1] == {
        "class_id": 2,
        "iou": 0,
        "dice": 0,
        "precision": 0,
        "recall": 0,
        "volume_truth": 4,
        "volume_prediction": 0,
        "threshold_iou": None,
        "mean_surface_distance": None,
        "hausdorff95": None,
    }
    only_background = evaluate_labels(prediction, prediction, voxel_size=VoxelSize()).as_dict()
    assert only_background["mean_foreground_iou"] is None


@pytest.mark.parametrize(
    ("prediction", "truth", "exclude", "message"),
    [
        (np.ones((2, 3, 4)), np.ones((2, 3, 5)), None, r"the prediction has shape \(2, 3, 4\)"),
        (np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2)), r"the excluded labels has shape"),
        (np.ones(4), np.ones(4), None, r"shape \(4,\)"),
        (np.ones((2, 3)), np.zeros((2, 3)), None, "--zero-is-background"),
        (np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)), "no voxel can be scored"),
        (np.full((2, 3), 1.5), np.ones((2, 3)), None, "the prediction holds the fractional value 1.5"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    prediction: np.ndarray, truth: np.ndarray, exclude: np.ndarray | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_labels(prediction, truth, voxel_size=VoxelSize(), exclude=exclude)


# --- probabilities ----------------------------------------------------------------------------------------


@pytest.fixture
def with_probabilities(
    cube_and_shifted_cube: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cubes, and probabilities of ids 1 and 3: .72 where the prediction says so, .28 elsewhere."""
    prediction, truth = cube_and_shifted_cube
    cube = np.where(prediction == 3, 0.72, 0.28).astype(np.float32)
    return prediction, truth, np.stack([1 - cube, cube])


def test_iou_over_thresholds(with_probabilities: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    prediction, truth, p = with_probabilities
    result = evaluate_labels(prediction, truth, voxel_size=VoxelSize(), probabilities=Volume.from_array(p))
    background, cube = result.classes
    # exceeded at .5 to .7: five of ten thresholds
    assert cube.threshold_iou == pytest.approx(cube.score.iou / 2)
    assert background.threshold_iou == pytest.approx(background.score.iou / 2)
    assert result.mean_foreground_threshold_iou == cube.threshold_iou
    assert result.has_probabilities
    values = result.as_dict()
    assert values["mean_foreground_threshold_iou"] == pytest.approx(0.3)
    assert values["classes"][1]["threshold_iou"] == pytest.approx(0.3)
    assert not evaluate_labels(prediction, truth, voxel_size=VoxelSize()).has_probabilities


def test_only_scored_voxels_count_at_thresholds(
    with_probabilities: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    prediction, truth, p = with_probabilities
    exclude = (prediction != truth).astype(np.uint8)
    result = evaluate_labels(
        prediction, truth, voxel_size=VoxelSize(), exclude=exclude, probabilities=Volume.from_array(p)
    )
    assert result.classes[1].threshold_iou == pytest.approx(0.5)


def test_channels_find_their_ids(with_probabilities: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    prediction, truth, p = with_probabilities

    def scores(prediction: np.ndarray, truth: np.ndarray, p: np.ndarray, ids: tuple[int, ...] | None) -> list[float]:
        result = evaluate_labels(
            prediction, truth, voxel_size=VoxelSize(), probabilities=Volume.from_array(p), probability_ids=ids
        )
        return [entry.threshold_iou for entry in result.classes]

    expected = scores(prediction, truth, p, None)
    assert scores(prediction, truth, p[::-1], (3, 1)) == expected
    # no voxel was told to be 3: the truth helps
    assert scores(np.ones_like(prediction), truth, p, None) == expected
    # the truth has an id that the network does not know: it is found nowhere
    more = truth.copy()
    more[0] = 7
    assert scores(prediction, more, p, None)[2] == 0
    with pytest.raises(DataError, match=r"have 2 channels, but the prediction has the ids 1; .* --probability-ids"):
        scores(np.ones_like(prediction), np.where(truth == 3, 3, more), p, None)


@pytest.mark.parametrize(
    ("spoil", "ids", "message"),
    [
        (lambda p: 3 * p, None, "outside of 0 to 1"),
        (lambda p: np.where(p > 0.5, np.nan, p), None, "outside of 0 to 1"),
        (lambda p: p[:, :4], None, r"the shape \(4, 8, 8\), the truth \(8, 8, 8\)"),
        (lambda p: p, (1, 2, 3), "2 channels, but 3 ids"),
        (lambda p: p, (3, 3), "2 channels, but 1 ids"),
    ],
)
def test_useless_probabilities_are_refused(
    with_probabilities: tuple[np.ndarray, np.ndarray, np.ndarray],
    spoil: Callable[[np.ndarray], np.ndarray],
    ids: tuple[int, ...] | None,
    message: str,
) -> None:
    prediction, truth, p = with_probabilities
    with pytest.raises(DataError, match=message):
        evaluate_labels(
            prediction, truth, voxel_size=VoxelSize(), probabilities=Volume.from_array(spoil(p)), probability_ids=ids
        )
