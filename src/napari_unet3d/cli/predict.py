"""``predict``: a model and images to labels that lie on them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from napari_unet3d.cli.batch import DONE, SKIPPED, Batch, Row
from napari_unet3d.cli.options import (
    AxesOption,
    DeviceOption,
    PrecisionOption,
    VoxelSizeOption,
    parse_memory,
    parse_triple,
)
from napari_unet3d.cli.progress import Reporter, make_console, make_reporter
from napari_unet3d.cli.signals import INTERRUPTED, stop_on_signal
from napari_unet3d.cli.text_file import check_text_output
from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config import PredictConfig, validated
from napari_unet3d.engine.errors import ConfigError, FileError
from napari_unet3d.engine.progress import Inbox

if TYPE_CHECKING:
    from napari_unet3d.engine.trained_model import TrainedModel
    from napari_unet3d.exports.runtime import ExportedModel

_KINDS: Final = ("labels", "probabilities", "uncertainty")


@dataclass(frozen=True)
class Job:
    """One image and the files to make of it, by kind of result."""

    image: Path
    outputs: dict[str, Path]


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A trained model, or an exported .onnx, .pt2 or .zip.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="One or more images, or folders of images.")],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE_OR_DIR", help="Labels; for several images a folder, made if missing."),
    ],
    probabilities: Annotated[
        Path | None,
        typer.Option("--probabilities", metavar="FILE_OR_DIR", help="Probability of each class (float32)."),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option("--uncertainty", metavar="FILE_OR_DIR", help="0 = sure, 1 = undecided (float32)."),
    ] = None,
    background_as_zero: Annotated[
        bool, typer.Option("--background-as-zero", help="Write 0 instead of the background's id.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="AMOUNT", help="Memory to use, e.g. 4GB; default: half of it."),
    ] = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    tile: Annotated[
        str | None,
        typer.Option("--tile", metavar="Z,Y,X", help="Voxels of a tile; default: what memory allows."),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option("--overlap", help="Share of a tile that neighbours share and blend.")
    ] = None,
    flips: Annotated[bool, typer.Option("--flips", help="Average over mirrored tiles; takes longer.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: for large volumes on GPUs.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out images whose results are all there.")
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE.csv", help="What became of each image: time, voxels and volumes."),
    ] = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
) -> None:
    """Label one or more images with a trained model.

    Of several images, one that fails does not end the rest; a table at the end tells of each.
    """
    given = {
        "background_as_zero": background_as_zero,
        "flips": flips,
        "compile": compiled,
        "memory": parse_memory(memory) if memory is not None else None,
        "tile": parse_triple(tile, "--tile") if tile is not None else None,
        "overlap": overlap,
        "precision": precision,
        "device": device,
    }
    config = validated(PredictConfig, {k: v for k, v in given.items() if v is not None}, "--")
    size = VoxelSize.parse(voxel_size) if voxel_size is not None else None
    targets = dict(zip(_KINDS, (out, probabilities, uncertainty), strict=True))
    wanted = {kind: target for kind, target in targets.items() if target is not None}
    images, is_batch = expanded(images)
    jobs = plan(images, wanted, is_batch=is_batch)
    if table is not None:
        check_text_output(table, images)

    from napari_unet3d import api

    loaded = api.open_model(model)
    inbox = Inbox()
    console = make_console()
    batch = Batch(table)
    with (
        _folders(wanted.values() if is_batch else ()),
        stop_on_signal(inbox, "stopping; an unfinished result is not kept"),
    ):
        for job in jobs:
            check_outputs(job)
        try:
            for number, job in enumerate(jobs, 1):
                name = str(job.image)
                if is_batch:
                    console.print(f"image {number} of {len(jobs)}: {name}", soft_wrap=True)
                if skip_existing and all(path.exists() for path in job.outputs.values()):
                    batch.add(Row(name, SKIPPED, reason="its results are there"))
                    continue
                with batch.trying(name) if is_batch else nullcontext(), make_reporter(console) as reporter:
                    batch.add(Row(name, DONE, _label(job, loaded, config, size, axes, inbox, reporter)))
        except api.PredictionStopped:
            if is_batch:
                batch.show(console)
            raise typer.Exit(INTERRUPTED) from None
    if is_batch:
        batch.show(console)
    batch.raise_failures()


def _label(
    job: Job,
    model: TrainedModel | ExportedModel,
    config: PredictConfig,
    voxel_size: VoxelSize | None,
    axes: str | None,
    inbox: Inbox,
    reporter: Reporter,
) -> dict[str, float | int]:
    """Predict an image into its files; gives the figures of the table."""
    from napari_unet3d import api
    from napari_unet3d.io.files import read_volume

    begun = time.monotonic()
    counts: Counter[int] = Counter()
    volume = read_volume(job.image, axes=axes, voxel_size=voxel_size)
    events = api.predict_events(
        model,
        volume,
        job.outputs["labels"],
        probabilities=job.outputs.get("probabilities"),
        uncertainty=job.outputs.get("uncertainty"),
        config=config,
        inbox=inbox,
        counts=counts,
    )
    with closing(events):
        for event in events:
            reporter.show(event)
    for kind, path in job.outputs.items():
        reporter.say(f"{kind}: {path.resolve()}")
    figures: dict[str, float | int] = {"seconds": round(time.monotonic() - begun, 2)}
    ids = [0 if config.background_as_zero and i == 0 else entry.id for i, entry in enumerate(model.classes)]
    unit = volume.voxel_size.unit
    for label_id, entry in zip(ids, model.classes, strict=True):
        figures[f"{entry.name} (voxels)"] = counts[label_id]
        if unit != "pixel":
            figures[f"{entry.name} ({unit}^3)"] = float(f"{counts[label_id] * volume.voxel_size.volume:.6g}")
    return figures


# --- where results go -------------------------------------------------------------------------------------


def expanded(images: Sequence[Path]) -> tuple[list[Path], bool]:
    """The images, those in folders instead of the folders, and whether results go to a folder for all.

    Raises
    ------
    FileError
        If a folder holds no image.
    """
    from napari_unet3d.io.folders import images_in, is_plain_folder

    folders = [image for image in images if is_plain_folder(image)]
    found = [path for image in images for path in (images_in(image) if image in folders else [image])]
    return found, bool(folders) or len(images) > 1


def plan(images: Sequence[Path], targets: Mapping[str, Path], *, is_batch: bool = False) -> list[Job]:
    """The files to make of each image.

    Parameters
    ----------
    images
        At least one.
    targets
        For each kind of result a file, or a folder: always for several images, and for one if it exists.
        In a folder results are called IMAGE_labels and so on, in the format of the image.
    is_batch
        Whether the targets are folders in any case.

    Raises
    ------
    ConfigError
        If two results have the same name.
    FileError
        If an image is missing, or has a suffix that is not known where its name is needed.
    """
    from napari_unet3d.io.files import is_supported_output

    for image in images:
        if not image.exists():
            raise FileError(f"{image} does not exist; check the spelling and the folder")
    jobs = []
    for image in images:
        outputs = {}
        for kind, target in targets.items():
            is_folder = is_batch or len(images) > 1 or (target.is_dir() and not is_supported_output(target))
            outputs[kind] = target / _name_for(image, kind) if is_folder else target
        jobs.append(Job(image, outputs))
    seen: set[Path] = set()
    for path in (path for job in jobs for path in job.outputs.values()):
        if path.resolve() in seen:
            raise ConfigError(f"two results would be called {path}; give them different names or folders")
        seen.add(path.resolve())
    return jobs


def _name_for(image: Path, kind: str) -> str:
    from napari_unet3d.io.files import file_format, file_suffix

    # an image may be a folder inside an OME-Zarr
    named = next((path for path in (image, *image.parents) if file_suffix(path)), image)
    file_format(named)
    suffix = file_suffix(named)
    return f"{named.name[: -len(suffix)]}_{kind}{suffix}"


def check_outputs(job: Job) -> None:
    """Make sure, before any work, that the results of an image can be written.

    Raises
    ------
    FileError
        If not.
    """
    from napari_unet3d.io.files import check_output

    for path in job.outputs.values():
        check_output(path, inputs=[job.image])


@contextmanager
def _folders(paths: Iterable[Path]) -> Iterator[None]:
    """Make missing folders; those still empty after an error are removed."""
    made = []
    for path in dict.fromkeys(paths):
        if path.is_dir():
            continue
        try:
            path.mkdir()
        except OSError as error:
            raise FileError(f"the folder {path} cannot be made ({error.strerror}); choose another --out") from None
        made.append(path)
    try:
        yield
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()
