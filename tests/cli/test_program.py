"""The program as a process: quick help, quiet libraries, tracebacks on request, a reader that goes away."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "napari_unet3d"]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["predict", "--help"], ["trian"], ["info", "fast"], ["info", "fats"]],
)
def test_help_and_refusals_do_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from napari_unet3d.cli import main\n"
        f"main({arguments!r}); assert not {{'torch', 'napari', 'qtpy'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_settings_are_refused_without_torch() -> None:
    code = (
        "import sys; from napari_unet3d.cli import main\n"
        "code = main(['train', 'a.npy', 'b.npy', '--out', 'm.safetensors', '--set', 'network.levles=3'])\n"
        "assert code == 1 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("verb", ["demo", "train", "predict", "evaluate", "info"])
def test_every_verb_has_help(run: Any, verb: str) -> None:
    outcome = run(verb, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "Usage" in outcome.out


def test_version(run: Any) -> None:
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("napari-unet3d ")


def test_later_verbs_are_not_listed(run: Any) -> None:
    assert run("distill").code == 1


def test_as_a_module(scene: Any, model: Any) -> None:
    done = subprocess.run(
        [*PROGRAM, "predict", model, "image.npy", "--out", "o.npy"],
        cwd=scene.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (scene.folder / "o.npy").exists()


def test_a_mistake_of_our_own_is_one_line_too(run: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("napari_unet3d.api.evaluate", broken)
    outcome = run("evaluate", "truth.npy", "truth.npy")
    assert outcome.code == 1
    assert outcome.err.startswith("internal error: ZeroDivisionError: two lines; run with")
    assert outcome.err.count("\n") == 1
    monkeypatch.setenv("NAPARI_UNET3D_TRACEBACK", "1")
    assert "Traceback" in run("evaluate", "truth.npy", "truth.npy").err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        OSError(5, "Input/output error", "disk"),
    ],
)
def test_trouble_of_the_machine_is_one_line(
    run: Any, scene: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("napari_unet3d.api.evaluate", broken)
    outcome = run("evaluate", "truth.npy", "truth.npy")
    assert outcome.code == 1
    assert outcome.err in (
        "error: not enough memory; close other programs, or give a smaller --memory, network or image\n",
        "error: disk: Input/output error\n",
    )


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    process = subprocess.Popen([*PROGRAM, "info", "fast"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (1, "")


def test_names_that_the_terminal_cannot_show(scene: Any) -> None:
    code = "import sys; from napari_unet3d.cli import main; sys.exit(main(['info', 'Zellkern-µ.safetensors']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=scene.folder,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: there is no model file Zellkern-\\xb5.safetensors\n"
