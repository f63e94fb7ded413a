"""Every setting there is, as frozen pydantic models.

They are the single source of the form in the dock, the command line's ``--set``, YAML recipes and the header of
model files. Unknown keys are errors. The docstring under a field is its help text everywhere.
"""

from napari_unet3d.engine.config.distillation import DistillConfig
from napari_unet3d.engine.config.network import (
    FEATURES_PER_SCALE,
    NetworkConfig,
    NetworkSettings,
    UNet3PlusConfig,
    UNetConfig,
    label_count,
    network_class,
)
from napari_unet3d.engine.config.prediction import PredictConfig
from napari_unet3d.engine.config.recipe import HoldOutState, Recipe, RunRecord, TeacherRecord, UnitState
from napari_unet3d.engine.config.settings import Config, Triple, validated
from napari_unet3d.engine.config.training import (
    LOSS_TERMS,
    NO_AUGMENTATION,
    AugmentConfig,
    LossName,
    NormalizeConfig,
    TrainConfig,
)

__all__ = [
    "FEATURES_PER_SCALE",
    "LOSS_TERMS",
    "NO_AUGMENTATION",
    "AugmentConfig",
    "Config",
    "DistillConfig",
    "HoldOutState",
    "LossName",
    "NetworkConfig",
    "NetworkSettings",
    "NormalizeConfig",
    "PredictConfig",
    "Recipe",
    "RunRecord",
    "TeacherRecord",
    "TrainConfig",
    "Triple",
    "UNet3PlusConfig",
    "UNetConfig",
    "UnitState",
    "label_count",
    "network_class",
    "validated",
]
