"""The program around the verbs: one line for every error, and the exit code."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Final

import typer

from napari_unet3d.cli.demo import demo
from napari_unet3d.cli.distill import distill
from napari_unet3d.cli.evaluate import evaluate
from napari_unet3d.cli.export import export
from napari_unet3d.cli.info import info
from napari_unet3d.cli.options import joined_pairs
from napari_unet3d.cli.predict import predict
from napari_unet3d.cli.signals import INTERRUPTED
from napari_unet3d.cli.suggest import suggest
from napari_unet3d.cli.train import train
from napari_unet3d.engine.errors import UNet3dError

_NAME: Final = "napari-unet3d"
_FAILED: Final = 1
_ALLOCATION: Final = re.compile("out of memory|allocate memory", re.IGNORECASE)
"""What PyTorch says in a RuntimeError instead of raising MemoryError."""
_TRACEBACK_VARIABLE: Final = "NAPARI_UNET3D_TRACEBACK"

_app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a few painted slices to a whole labelled volume.",
)
for _verb in (demo, train, predict, distill, evaluate, suggest, export, info):
    _app.command()(_verb)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"{_NAME} {version(_NAME)}")
        raise typer.Exit


@_app.callback()
def _program(
    context: typer.Context,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", hidden=True, envvar=_TRACEBACK_VARIABLE)] = False,
) -> None:
    context.obj["traceback"] = show_traceback


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; see `cli.main`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    wishes = {"traceback": False}
    with _quiet_libraries(), _termination_as_interrupt():
        try:
            command = typer.main.get_command(_app)
            with command.make_context(_NAME, _with_pairs(given), obj=wishes) as context:
                command.invoke(context)
            sys.stdout.flush()
        except typer.Exit as request:
            return request.exit_code
        except (KeyboardInterrupt, typer.Abort):
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except (BrokenPipeError, SystemExit):  # rich turns the first into the second
            _forget_stdout()
            return _FAILED
        except Exception as error:
            return _refuse(error, wishes["traceback"])
    return 0


def _with_pairs(arguments: Sequence[str]) -> list[str]:
    """Arguments in which no option has two values; of the verbs only train has such options."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    return joined_pairs(arguments, ("--also", "--validate-on")) if verb == "train" else list(arguments)


def _refuse(error: Exception, show_traceback: bool) -> int:
    """Say in one line on stderr what went wrong."""
    # the class of usage errors moved between versions of typer; their method did not
    usage = getattr(error, "format_message", None)
    if usage is not None:
        text = f"{usage()} (see {_NAME} --help)"
    elif isinstance(error, UNet3dError):
        text = str(error)
    elif isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        text = f"{name}{error.strerror or error}"
    elif isinstance(error, MemoryError) or _ALLOCATION.search(str(error)):
        text = "not enough memory; close other programs, or give a smaller --memory, network or image"
    else:
        text = f"internal error: {type(error).__name__}: {error}; run with {_TRACEBACK_VARIABLE}=1 and report it"
        if show_traceback:
            traceback.print_exception(error)
    line = " ".join(text.split())
    print(line if line.startswith("internal error") else f"error: {line}", file=sys.stderr)
    return _FAILED


def _forget_stdout() -> None:
    """Nobody reads any more (``| head``): keep the interpreter from complaining about it while it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep warnings and log records of libraries off the terminal; what matters is said in events."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # any name can be shown in any encoding
    nothing = logging.NullHandler()
    logging.getLogger().addHandler(nothing)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(nothing)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Make SIGTERM end the program the way Ctrl-C does, with clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
