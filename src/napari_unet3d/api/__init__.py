"""The headless verbs: what the command line, notebooks and the docks' workers call.

Images and labels are paths or arrays (NumPy, zarr, dask): Z Y X, images also C Z Y X, 2D images Y X.
Unlike the other packages, importing this one imports torch: each of its names needs it.
"""

from __future__ import annotations

from napari_unet3d.api.distillation import (
    Comparison,
    compare,
    compare_events,
    distill,
    distill_events,
    scratch_events,
)
from napari_unet3d.api.evaluation import evaluate
from napari_unet3d.api.exporting import export_events, export_model, open_model
from napari_unet3d.api.prediction import PredictionStopped, predict, predict_events
from napari_unet3d.api.sources import check_apart, read_annotated
from napari_unet3d.api.suggestion import SuggestionRun, suggest, suggest_events
from napari_unet3d.api.training import DEFAULT_PRESET, TrainingRun, train, train_events
from napari_unet3d.engine.model_file import check_model_output, load_model

__all__ = [
    "DEFAULT_PRESET",
    "Comparison",
    "PredictionStopped",
    "SuggestionRun",
    "TrainingRun",
    "check_apart",
    "check_model_output",
    "compare",
    "compare_events",
    "distill",
    "distill_events",
    "evaluate",
    "export_events",
    "export_model",
    "load_model",
    "open_model",
    "predict",
    "predict_events",
    "read_annotated",
    "scratch_events",
    "suggest",
    "suggest_events",
    "train",
    "train_events",
]
