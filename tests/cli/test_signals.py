"""Ctrl-C, SIGTERM and kill -9."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.cli.signals import stop_on_signal
from napari_unet3d.engine.model_file import load_model
from napari_unet3d.engine.progress import Inbox, Stop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on POSIX")

# saves after every step, so that being killed in the middle of writing is likely
SAVING_ALWAYS = (
    "import sys; from napari_unet3d import cli; from napari_unet3d.api import training; "
    "training._SAVE_EVERY = 0.0; sys.exit(cli.main())"
)


def start(folder: Path, *program: str, network: tuple[str, ...]) -> subprocess.Popen[str]:
    arguments = ["train", "image.npy", "labels.npy", "--out", "new.safetensors", *network]
    return subprocess.Popen(
        [sys.executable, *program, *arguments, "--steps", "1000000"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], beginning: str, times: int = 1) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.startswith(beginning)
        if times == 0:
            return
    raise AssertionError(f"no line began with {beginning!r}: {process.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_saves_a_model_that_can_be_resumed(
    scene: Any, run: Any, quick: Any, number: signal.Signals
) -> None:
    process = start(scene.folder, "-m", "napari_unet3d", network=quick[:4])
    wait_for(process, "step ")
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines() == ["stopping; the best model so far is being saved; once more to quit at once"]
    assert "model: " in out
    stopped = load_model(scene.folder / "new.safetensors")
    assert stopped.state is not None
    assert stopped.recipe.record is not None
    assert stopped.recipe.record.stop_reason == "stopped"
    more = ("train", "image.npy", "labels.npy", "--resume", "new.safetensors", "--out", "more.safetensors")
    outcome = run(*more, "--steps", "1")
    assert outcome.code == 0, outcome.err
    record = load_model("more.safetensors").recipe.record
    assert record is not None
    assert record.steps == stopped.recipe.record.steps + 1


def test_killed_training_leaves_a_whole_model(scene: Any, quick: Any) -> None:
    process = start(scene.folder, "-c", SAVING_ALWAYS, network=quick[:4])
    wait_for(process, "saved step ", times=5)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    saved = load_model(scene.folder / "new.safetensors")
    assert saved.state is not None
    assert saved.recipe.record is not None
    assert saved.recipe.record.steps >= 5


def test_interrupted_prediction_leaves_nothing(scene: Any, model: Path) -> None:
    before = sorted(scene.folder.iterdir())
    # signals itself when the first tile is done
    code = (
        "import signal, sys\n"
        "from napari_unet3d import cli\n"
        "from napari_unet3d.cli import progress\n"
        "progress.LineReporter.predicted = lambda self, event: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(cli.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", model, "image.npy", "--out", "o.npy", "--tile", "4,8,8"],
        cwd=scene.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["stopping; an unfinished result is not kept; once more to quit at once"]
    assert sorted(scene.folder.iterdir()) == before


def test_a_write_that_the_system_cuts_short(scene: Any, model: Path) -> None:
    """A limit on file sizes is a full disk that needs no disk."""
    before = sorted(scene.folder.iterdir())
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from napari_unet3d import cli; sys.exit(cli.main())"
    )
    for arguments in (
        ["predict", str(model), "image.npy", "--out", "o.npy"],
        ["train", "image.npy", "labels.npy", "--out", "o.safetensors", "--steps", "1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=scene.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert sorted(scene.folder.iterdir()) == before


def test_first_signal_asks_the_second_quits(capfd: pytest.CaptureFixture[str]) -> None:
    inbox = Inbox()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_on_signal(inbox, "stopping") as request:  # noqa: PT012
        assert not request
        signal.raise_signal(signal.SIGINT)
        assert request
        assert list(inbox.drain()) == [Stop()]
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == "stopping; once more to quit at once\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_outside_of_a_run_is_130(run: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("napari_unet3d.api.evaluate", interrupted)
    outcome = run("evaluate", "truth.npy", "truth.npy")
    assert (outcome.code, outcome.err) == (130, "interrupted\n")
