"""How a network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config.settings import Config, PositiveInt, Triple
from napari_unet3d.engine.errors import UNet3dError


class NormalizeConfig(Config):
    """How grey values become network input; fitted once, carried by the model."""

    method: Literal["percentile", "zscore", "minmax", "window", "none"] = "percentile"
    """percentile: `low` and `high` percentile to -1 and 1; zscore: mean 0, deviation 1; minmax: 0 to 1;
    window: `low` and `high` are grey values (such as Hounsfield units), clipped, to 0 and 1; none: as they are."""
    low: float = 1.0
    """Lower percentile (percent) or lower end of the window (grey value)."""
    high: float = 99.0
    """Upper percentile (percent) or upper end of the window (grey value)."""
    voxel_size: str | None = None
    """Voxel size that the network works at, Z,Y,X[unit] such as 1,1,1mm: images are resampled to it, and results
    back to the voxels of the image. Without a unit that of the image; empty: as the images are."""

    @property
    def size(self) -> VoxelSize | None:
        """`voxel_size` as the engine's type."""
        return None if self.voxel_size is None else VoxelSize.parse(self.voxel_size)

    @model_validator(mode="after")
    def _check_voxel_size(self) -> Self:
        try:
            _ = self.size
        except UNet3dError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        if self.method == "percentile" and (self.low < 0 or self.high > 100):
            raise ValueError(f"percentiles {self.low:g} and {self.high:g} must lie within 0 and 100")
        return self


class AugmentConfig(Config):
    """Random changes of each training patch (Çiçek 2016, section 3, and more)."""

    probability: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of patches that are deformed (rotated, scaled, warped); all are mirrored at random."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Largest rotation about each axis, degrees; for flat voxels only about the axis across the planes."""
    scaling: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest relative change of size."""
    deformation: Annotated[float, Field(ge=0)] = 4.0
    """Standard deviation of the B-spline grid's displacements, in edges of the finest voxel axis."""
    deformation_grid: Annotated[float, Field(gt=0)] = 32.0
    """Distance of the B-spline grid's nodes, in edges of the finest voxel axis."""
    flips: bool = True
    """Mirror along each axis with probability one half."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative change of contrast. Within one volume grey values tell classes apart; 0.2 for a model that shall
    label other volumes."""
    offset: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift of grey values, in normalised units; 0.1 for a model that shall label other volumes."""
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative change of the exponent of a grey-value curve."""
    noise: Annotated[float, Field(ge=0)] = 0.05
    """Largest standard deviation of added Gaussian noise, in normalised units."""
    blur: Annotated[float, Field(ge=0)] = 0.0
    """Largest standard deviation of added Gaussian blur, in edges of the finest voxel axis."""


NO_AUGMENTATION: Final = AugmentConfig(probability=0, flips=False, gain=0, offset=0, gamma=0, noise=0, blur=0)
"""Patches as they are."""

LossName: TypeAlias = Literal[
    "cross_entropy",
    "dice",
    "generalised_dice",
    "iou",
    "focal",
    "ms_ssim",
    "cross_entropy_dice",
    "cross_entropy_generalised_dice",
    "hybrid",
]

LOSS_TERMS: Final[Mapping[LossName, tuple[str, ...]]] = {
    "cross_entropy": ("cross_entropy",),
    "dice": ("dice",),
    "generalised_dice": ("generalised_dice",),
    "iou": ("iou",),
    "focal": ("focal",),
    "ms_ssim": ("ms_ssim",),
    "cross_entropy_dice": ("cross_entropy", "dice"),
    "cross_entropy_generalised_dice": ("cross_entropy", "generalised_dice"),
    "hybrid": ("focal", "ms_ssim", "iou"),
}
"""Terms that each loss adds up."""


class TrainConfig(Config):
    """How a network is trained."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    """Wall time from reading the input to the saved model."""
    steps: PositiveInt | None = None
    """Optimiser steps. With neither seconds nor steps, training stops when it stops improving."""
    patience: PositiveInt | None = None
    """Stop after so many validations without improvement. Empty: 10 where there is no other budget, else never."""
    loss: LossName = "cross_entropy_dice"
    """What is minimised over annotated voxels. hybrid: focal + multi-scale SSIM + IoU (Huang 2020). ms_ssim and hybrid
    compare windows of 11 voxels a side, so paint whole areas for them."""
    loss_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Weights of the terms of a combined loss, as its name lists them (hybrid: focal, MS-SSIM, IoU); empty: 1 each."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Exponent of the focal loss, hybrid included."""
    class_weights: Literal["off", "balanced"] | tuple[Annotated[float, Field(ge=0)], ...] = "off"
    """Weights of the classes in cross-entropy and focal loss: off, balanced by frequency, or one for each class."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    """Highest learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd; first moment of adam and adamw."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the budget in which the learning rate rises."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the budget, at its end, in which the learning rate falls to zero."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay per step of the moving average of the weights; 0 switches it off."""
    batch_size: PositiveInt | Literal["auto"] = "auto"
    """Patches in a step."""
    patch_size: Triple | Literal["auto"] = "auto"
    """Z Y X voxels of a patch. auto: a flat slab along painted slices, as large as a step of the device allows."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the annotated slices held out to measure the model; 0 trains on all."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic. auto: what a short trial on the machine finds fastest."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, mps, or several GPUs: cuda:0,cuda:1 or cuda:all."""
    processes: Annotated[int, Field(ge=1, le=256)] | None = None
    """Processes that share every batch, one for each GPU. Empty: one for each device named."""
    sync_batch_norm: bool = False
    """Batch normalisation over the patches of all processes (GPUs only), not of each by itself."""
    compile: bool = False
    """Compile the network (torch.compile): takes a minute or more at first, then steps are faster on GPUs."""
    resident: Literal["auto", "device", "host", "off"] = "auto"
    """Where the volume lies during training, with its features: in the memory of the device or in that of the computer
    (host). off: features are computed anew for every patch. auto: the first of these that has room."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads; empty: what PyTorch chooses."""
    random_state: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything random."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of each patch."""
    normalize: NormalizeConfig = NormalizeConfig()
    """How grey values become network input."""

    @property
    def loss_terms(self) -> dict[str, float]:
        """Weight of each term of the loss, those of weight 0 left out."""
        terms = LOSS_TERMS[self.loss]
        weights = self.loss_weights or (1.0,) * len(terms)
        return {name: weight for name, weight in zip(terms, weights, strict=True) if weight > 0}

    @model_validator(mode="after")
    def _check_loss_weights(self) -> Self:
        terms = LOSS_TERMS[self.loss]
        given = self.loss_weights
        if given and len(given) != len(terms):
            raise ValueError(
                f"loss_weights has {len(given)} entries but loss = {self.loss} has the terms {', '.join(terms)}; "
                f"give {len(terms)}, or none for equal weights"
            )
        if given and not any(given):
            raise ValueError(f"loss_weights = {given} leaves nothing to learn from; make one of them positive")
        return self

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.seconds is not None and self.steps is not None:
            raise ValueError(f"seconds = {self.seconds:g} and steps = {self.steps} are both given; give one of them")
        return self
