"""The command `distill`, from files to a student, its proof, and one-line refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.engine.config import DistillConfig
from napari_unet3d.engine.distillation.student import operations_on
from napari_unet3d.engine.model_file import load_model

Run = Callable[..., Any]
STEPS = ("--steps", "2", "--device", "cpu", "--set", "train.precision=float32")
NARROW = ("--set", "network.filters=2", "--set", "network.levels=2", "--set", "network.features=none")
PLAIN = (*NARROW, "--no-compare", *STEPS)


def test_a_student_and_its_proof(run: Run, scene: Any, model: Path) -> None:
    outcome = run(
        "distill", model, "image.npy", "labels.npy", "--out", "student.safetensors", "--scratch", "alone.safetensors",
        "--truth", "truth.npy", "--json", "figures.json", "--temperature", "3", "--alpha", "0.9",
        *NARROW, *STEPS,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    student, alone = (load_model(scene.folder / f"{name}.safetensors") for name in ("student", "alone"))
    assert student.recipe.distill == DistillConfig(temperature=3, alpha=0.9)
    assert student.recipe.record is not None
    assert [teacher.name for teacher in student.recipe.record.teachers] == [model.name]
    assert alone.recipe.distill is None
    assert alone.recipe.network == student.recipe.network
    assert alone.recipe.record is not None
    assert alone.recipe.record.steps == student.recipe.record.steps == 2
    figures = json.loads((scene.folder / "figures.json").read_text())["models"]
    assert [entry["name"] for entry in figures] == [model.name, "without a teacher", "student"]
    assert figures[0]["agreement"] == 1
    assert figures[2]["file_bytes"] == (scene.folder / "student.safetensors").stat().st_size
    truth, labels = (np.load(scene.folder / f"{name}.npy") for name in ("truth", "labels"))
    assert figures[2]["truth"]["voxels"] == ((labels == 0) & (truth > 0)).sum()
    for word in ("IoU truth", "agreement", "operations", "seconds", "memory", "times as fast", "of its IoU"):
        assert word in outcome.out


def test_without_labels_by_share(run: Run, scene: Any, model: Path) -> None:
    outcome = run(
        "distill", model, "image.npy", "--out", "s.safetensors", "--operations", "1/2", "--no-compare", *STEPS
    )
    assert outcome.code == 0, outcome.err
    assert "nothing is annotated" in outcome.out
    student, teacher = (load_model(path).recipe.network for path in (scene.folder / "s.safetensors", model))
    assert operations_on(student, (12, 32, 32)) <= operations_on(teacher, (12, 32, 32)) / 2


def test_the_teacher_first(run: Run, scene: Any) -> None:
    outcome = run(
        "distill", "image.npy", "labels.npy", "--train-teacher", "t.safetensors", "--out", "s.safetensors",
        "--operations", "1/8", "--no-compare", *STEPS,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    teacher, student = (load_model(scene.folder / name) for name in ("t.safetensors", "s.safetensors"))
    assert teacher.recipe.network.features == "scale_space"  # the default preset
    assert student.recipe.record is not None
    assert student.recipe.record.teachers[0].name == "t.safetensors"


def test_teachers_of_the_same_name_and_more_images(run: Run, scene: Any, model: Path) -> None:
    (scene.folder / "other").mkdir()
    shutil.copy(model, scene.folder / "other" / model.name)
    shutil.copy(scene.image, scene.folder / "more.npy")
    outcome = run(
        "distill", model, f"other/{model.name}", "image.npy", "--also", "more.npy", "--out", "s.safetensors",
        "--json", "f.json", "--flips", *NARROW, *STEPS,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    names = [entry["name"] for entry in json.loads((scene.folder / "f.json").read_text())["models"]]
    assert names == [str(model), f"other/{model.name}", "student"]


def test_going_on(run: Run, scene: Any, model: Path) -> None:
    first = ("distill", model, "image.npy", "--out")
    assert run(*first, "s.safetensors", "--keep-state", *PLAIN).code == 0
    outcome = run(*first, "longer.safetensors", "--resume", "s.safetensors", "--no-compare", "--steps", "3")
    assert outcome.code == 0, outcome.err
    record = load_model(scene.folder / "longer.safetensors").recipe.record
    assert record is not None
    assert record.steps == 5
    outcome = run(*first, "again.safetensors", "--weights-from", "s.safetensors", "--no-compare", *STEPS)
    assert outcome.code == 0, outcome.err
    record = load_model(scene.folder / "again.safetensors").recipe.record
    assert record is not None
    assert (record.steps, record.from_weights) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("image.npy",), "there is no teacher"),
        (("MODEL",), "needed besides teachers: IMAGE and perhaps LABELS; found: none"),
        (("MODEL", "image.npy", "labels.npy", "truth.npy"), "more images go to --also"),
        (("MODEL.onnx", "image.npy"), "is an exported model, which cannot teach"),
        (("MODEL", "image.npy", "--operations", "2"), "--operations '2' is no share"),
        (("MODEL", "image.npy", "--operations", "1/8", "--preset", "fast"), "give one of them"),
        (("MODEL", "image.npy", "--operations", "1/8", "--set", "network.filters=2"), "give one of them"),
        (("MODEL", "image.npy", "--alpha", "0"), "listens to the annotation alone"),
        (("MODEL", "image.npy", "--alpha", "2"), "distill.alpha"),
        (("MODEL", "image.npy", "--temperature", "0"), "distill.temperature"),
        (("MODEL", "image.npy", "--student-from", "nowhere"), "distill.student_from"),
        (("MODEL", "image.npy", "--scratch", "x.safetensors"), "--scratch trains on labels; add LABELS"),
        (("image.npy", "--train-teacher", "x.safetensors"), "--train-teacher trains on labels; add LABELS"),
        (("MODEL", "image.npy", "--train-teacher", "x.safetensors"), "give one of them"),
        (("MODEL", "image.npy", "--teacher-preset", "fast"), "add --train-teacher MODEL"),
        (("MODEL", "image.npy", "--no-compare", "--truth", "truth.npy"), "leave --no-compare away"),
        (("MODEL", "image.npy", "--resume", "MODEL", "--weights-from", "MODEL"), "give one of them"),
        (("MODEL", "two.npy", "--axes", "CZYX"), "channel"),
        (("MODEL", "gone.npy"), "gone.npy"),
    ],
)
def test_refusals(run: Run, scene: Any, model: Path, arguments: tuple[str, ...], message: str) -> None:
    np.save(scene.folder / "two.npy", np.stack([np.load(scene.image)] * 2))
    named = [str(model) + word.removeprefix("MODEL") if word.startswith("MODEL") else word for word in arguments]
    outcome = run("distill", *named, "--out", "s.safetensors", "--steps", "2")
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (scene.folder / "s.safetensors").exists()


def test_the_student_may_not_overwrite_what_it_needs(run: Run, scene: Any, model: Path) -> None:
    teacher = scene.folder / "t.safetensors"
    shutil.copy(model, teacher)
    before = teacher.read_bytes()
    outcome = run("distill", teacher, "image.npy", "--out", teacher, *PLAIN)
    assert (outcome.code, teacher.read_bytes() == before) == (1, True)
    assert "would overwrite" in outcome.err
