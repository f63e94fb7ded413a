"""Every setting there is, as frozen pydantic models.

They are the single source of the form in the dock, the command line's ``--set``, YAML recipes and the header of
model files. Unknown keys are errors. The docstring under a field is its help text everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.errors import ConfigError, UNet3dError

PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Triple: TypeAlias = tuple[PositiveInt, PositiveInt, PositiveInt]
PerLevel: TypeAlias = PositiveInt | tuple[PositiveInt | Triple, ...]
"""One number for all, or one entry per level; an entry is a number or one number per axis (Z Y X)."""


FEATURES_PER_SCALE: Final = 5
"""Scale-space features of one image channel at one scale (see `engine.filters`)."""


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden, field docstrings as help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def updated(self, **changes: Any) -> Self:
        """A checked copy with some fields changed.

        Raises
        ------
        ConfigError
            If a field is unknown or a value is out of range.
        """
        return validated(type(self), {**self.model_dump(), **changes})


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def validated(model: type[ConfigT], values: Mapping[str, Any], prefix: str = "") -> ConfigT:
    """Build a configuration from plain values, with one-line errors that name the field.

    Parameters
    ----------
    model
        The configuration class.
    values
        Plain values, as read from YAML or JSON.
    prefix
        Put before the field names in messages, for example ``"network."``.

    Raises
    ------
    ConfigError
        If a key is unknown or a value is not allowed; the message names the field and the remedy.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_first_problem(error, model, prefix)) from None


def _first_problem(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    problem = error.errors()[0]
    # pydantic puts the names of union members into the path: keep what a user could have typed
    path = [str(part) for part in problem["loc"] if isinstance(part, int) or str(part).isidentifier()]
    where = prefix + ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = ", ".join(_fields_at(model, path[:-1]))
        return f"unknown setting {where!r}; known here: {known}"
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return message
    given = problem.get("input")
    if problem["type"] in ("missing", "too_long", "tuple_type") and isinstance(given, Sequence | int | float):
        if problem["type"] == "missing":
            where = where.rpartition(".")[0]
        message = _needed_entries(error, problem, given)
    return f"{where} = {given!r}: {message[0].lower()}{message[1:]}"


def _needed_entries(error: ValidationError, problem: Any, given: Any) -> str:
    """What a field with a list of values wants, in place of one with too few, too many or none."""
    field = problem["loc"][0]
    word = next(
        (p["ctx"]["expected"] for p in error.errors() if p["type"] == "literal_error" and p["loc"][0] == field), ""
    )
    otherwise = f", or {word}" if word else ""
    if problem["type"] == "tuple_type":
        return f"give a list, such as [1, 2, 3]{otherwise}"
    missing = sum(p["type"] == "missing" and p["loc"][:-1] == problem["loc"][:-1] for p in error.errors())
    needed = len(given) + missing if missing else problem["ctx"]["max_length"]
    axes = " (Z Y X)" if needed == 3 else ""
    return f"give {needed} values{axes}, not {len(given)}{otherwise}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    for name in path:
        field = model.model_fields.get(name)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return list(model.model_fields)


# --- networks ---------------------------------------------------------------------------------------------


def label_count(classes: int, head: Literal["softmax", "sigmoid"]) -> int:
    """Label ids, the background included, that a head with `classes` channels tells apart."""
    return classes + 1 if head == "sigmoid" or classes == 1 else classes


class NetworkSettings(Config):
    """What all networks have in common; the families are `UNetConfig` and `UNet3PlusConfig`."""

    kind: str
    """Family of the network."""
    dimensions: Literal[2, 3] = 3
    """2: works plane by plane; 3: works on volumes."""
    in_channels: PositiveInt = 1
    """Channels of the image."""
    classes: PositiveInt = 2
    """Output channels, one for each class; 1 means one sigmoid channel for two classes. With the sigmoid head one for
    each structure, the background not counted."""
    head: Literal["softmax", "sigmoid"] = "softmax"
    """How logits become probabilities. softmax: every voxel belongs to one of the classes; sigmoid: each structure is
    told by itself, and what is none of them (no probability above one half) is background."""
    neighbours: Annotated[int, Field(ge=0, le=16)] = 0
    """Planes on each side that a two-dimensional network sees beside its own, as further channels (2.5D); at the ends
    of the volume the last plane is repeated."""
    plane_axis: Literal["z", "y", "x", "all"] = "z"
    """Axis across which the planes of a two-dimensional network lie. all: it learns from planes across every axis,
    and predicts the average of the three."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """Resolution levels, the bottleneck included."""
    filters: PositiveInt | tuple[PositiveInt, ...] = 16
    """Filters of the first level (doubled from level to level), or one number for each level."""
    convolutions: PositiveInt | tuple[PositiveInt, ...] = 2
    """Convolutions in each block: one number, or one for each level."""
    kernel: Literal["auto"] | PerLevel = "auto"
    """Kernel size, odd: one number, or for each level a number or Z Y X sizes. auto: 3, and flat (1, 3, 3) on
    levels where the planes lie further apart than twice the finest axis."""
    strides: Literal["auto"] | PerLevel = "auto"
    """Down-sampling from each level to the next: one number, or an entry for each of the levels - 1 steps.
    auto: 2, and 1 along an axis that is still coarser than twice the finest."""
    norm: Literal["none", "batch", "batch_renorm", "instance", "group"] = "batch"
    """Normalisation after each convolution. batch_renorm: batch normalisation that trains with the running
    statistics, as it predicts (Ioffe 2017); better than batch where a batch holds few patches."""
    norm_groups: PositiveInt = 8
    """Groups of group normalisation, reduced where the filters are fewer."""
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance by normalisation."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the newest batch in the running statistics of batch normalisation."""
    norm_statistics: Literal["running", "batch"] = "running"
    """What norm = batch uses when predicting. running: the statistics gathered in training; batch: those of
    the tile at hand (Çiçek 2016), which then decide together with all voxels around."""
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu", "mish", "tanh"] = "relu"
    """Non-linearity after each convolution."""
    negative_slope: Annotated[float, Field(ge=0)] = 0.01
    """Slope of leaky_relu below zero."""
    initialization: Literal["kaiming", "xavier", "truncated_normal", "framework"] = "kaiming"
    """How weights start. kaiming: normal, deviation gain / sqrt(inputs), with gain sqrt(2) (less for
    leaky_relu) in front of a non-linearity and 1 elsewhere; xavier: normal, deviation sqrt(2 / (inputs +
    outputs)); truncated_normal: deviation 0.1, cut at 0.2; biases start at 0. framework: the default of
    PyTorch."""
    deep_supervision: bool = False
    """Extra heads on the coarser levels, used in training only. In a U-Net they are 1 x 1 x 1, on all decoder
    levels; in a UNet3+ they stand on the bottleneck too, and are interpolated to the resolution of the image."""
    features: Literal["none", "scale_space"] = "none"
    """Fixed filters in front of the network. scale_space: Gaussian-derivative features over several
    scales."""
    feature_scales: tuple[PositiveFloat, ...] = (1.0, 2.0, 4.0)
    """Standard deviations of the scale-space features, in units of the finest voxel edge."""
    feature_voxel: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    """Z Y X voxel edges, relative to the finest, for which the features are computed; set from the voxel
    size."""

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        self._check_entries("filters", "convolutions", "kernel", needed=self.levels)
        self._check_entries("strides", needed=self.levels - 1)
        even = [size for kernel in self.kernel_per_level for size in kernel if size % 2 == 0]
        if even:
            raise ValueError(
                f"kernel has the even size {even[0]}; it needs odd sizes, such as {even[0] + 1}, so that "
                "the output stays on the input's voxels"
            )
        if self.neighbours and self.dimensions == 3:
            raise ValueError(
                f"neighbours = {self.neighbours} needs dimensions = 2; a three-dimensional network sees them anyway"
            )
        if self.plane_axis != "z":
            self._check_planes()
        return self

    def _check_planes(self) -> None:
        chosen = f"plane_axis = {self.plane_axis}"
        if self.dimensions == 3:
            raise ValueError(f"{chosen} needs dimensions = 2; a three-dimensional network has no planes")
        if self.features != "none":
            raise ValueError(f"{chosen} needs features = none, not {self.features}, which are made for planes across Z")
        uneven = [sizes for sizes in (*self.kernel_per_level, *self.stride_per_level) if sizes[1] != sizes[2]]
        if self.plane_axis == "all" and uneven:
            raise ValueError(f"{chosen} needs the same kernel and stride along both axes of a plane, not {uneven[0]}")

    def _check_entries(self, *names: str, needed: int) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != needed:
                raise ValueError(
                    f"{name} has {len(value)} entries but levels = {self.levels} needs {needed}; "
                    f"change {name} or levels"
                )

    @property
    def label_count(self) -> int:
        """Label ids that the output tells apart, the background included."""
        return label_count(self.classes, self.head)

    @property
    def has_batch_statistics(self) -> bool:
        """Whether normalisation is over the batch, with running statistics in the model."""
        return self.norm in ("batch", "batch_renorm")

    @property
    def body_channels(self) -> int:
        """Channels of the body's input: the image's, or its features'."""
        if self.features == "none":
            return self.in_channels
        return self.in_channels * (1 + FEATURES_PER_SCALE * len(self.feature_scales))

    @property
    def first_channels(self) -> int:
        """Channels that enter the first convolution: the body's, of a plane and its neighbours."""
        return self.body_channels * (1 + 2 * self.neighbours)

    @property
    def filters_per_level(self) -> tuple[int, ...]:
        """Filters of every level, finest first."""
        if isinstance(self.filters, tuple):
            return self.filters
        return tuple(self.filters * 2**level for level in range(self.levels))

    @property
    def convolutions_per_level(self) -> tuple[int, ...]:
        """Convolutions of every level, finest first."""
        return _spread(self.convolutions, self.levels)

    @property
    def kernel_per_level(self) -> tuple[Triple, ...]:
        """Z Y X kernel of every level, finest first; ``auto`` counts as 3."""
        return _triples(3 if self.kernel == "auto" else self.kernel, self.levels, self.dimensions)

    @property
    def stride_per_level(self) -> tuple[Triple, ...]:
        """Z Y X stride from every level to the next, finest first; ``auto`` counts as 2."""
        return _triples(2 if self.strides == "auto" else self.strides, self.levels - 1, self.dimensions)

    @property
    def plane_axes(self) -> tuple[int, ...]:
        """Axes (0 = Z) across which a two-dimensional network cuts a volume into planes, one after the other."""
        return (0, 1, 2) if self.plane_axis == "all" else ("zyx".index(self.plane_axis),)

    def cut_across(self, zyx: Sequence[int]) -> int:
        """Axis (0 = Z) across which a patch of this size is cut into planes in training: of several, its shortest."""
        return min(self.plane_axes, key=lambda axis: zyx[axis])

    def for_voxels(self, voxel_size: VoxelSize) -> Self:
        """The configuration with ``auto`` kernels and strides settled for a voxel size.

        A level is flat along an axis (kernel 1, stride 1) while its voxels are more than twice as long
        there as along the finest axis, so that every level sees a nearly cubic neighbourhood. For planes across
        all axes voxels count as cubes.
        """
        edges = list(voxel_size.relative)
        if self.plane_axis == "all":
            edges = [1.0] * 3
        elif self.dimensions == 2:  # across the planes, then rows and columns
            edges = [1.0, *(edge for axis, edge in enumerate(edges) if axis not in self.plane_axes)]
        kernels: list[Triple] = []
        strides: list[Triple] = []
        for _ in range(self.levels):
            finest = min(edges)
            flat = [edge > 2 * finest for edge in edges]
            kernels.append(_triple([1 if is_flat else 3 for is_flat in flat]))
            step = [1 if is_flat else 2 for is_flat in flat]
            strides.append(_triple(step))
            edges = [edge * factor for edge, factor in zip(edges, step, strict=True)]
        return self.updated(
            kernel=tuple(kernels) if self.kernel == "auto" else self.kernel,
            strides=tuple(strides[:-1]) if self.strides == "auto" else self.strides,
            feature_voxel=voxel_size.relative,
        )


class UNetConfig(NetworkSettings):
    """A U-Net in two or three dimensions (Ronneberger 2015, Çiçek 2016 and relatives)."""

    kind: Literal["unet"] = "unet"
    """Family of the network."""
    pooling: Literal["max", "average", "convolution"] = "max"
    """How a level is brought to the next lower resolution. convolution: a convolution with kernel = stride,
    as many filters as before and no non-linearity."""
    upsampling: Literal["nearest", "linear", "transposed"] = "nearest"
    """How a level is brought back up: repeating voxels, linear interpolation or a transposed convolution with
    kernel = stride."""
    up_channels: Literal["keep", "level"] = "keep"
    """Channels after a transposed convolution: as before it, or those of the level it arrives at."""
    up_bias: bool = True
    """Whether transposed convolutions have a bias."""
    up_norm_activation: bool = False
    """Whether normalisation and activation follow a transposed convolution."""
    dropout: Fraction | tuple[Fraction, ...] = 0.0
    """Share of channels dropped in training (whole channels at a time): one number, or one for each level
    of the encoder, finest first."""
    decoder_dropout: Fraction | tuple[Fraction, ...] | None = None
    """The same for the levels of the decoder, finest first (levels - 1 entries); empty: as in the encoder."""
    dropout_place: Literal["between_convolutions", "after_block", "after_pooling_and_concatenation"] = "after_block"
    """Where dropout acts. between_convolutions: after all but the last convolution of a block; after_block:
    on what a block hands on, skip included; after_pooling_and_concatenation: after the pooling that leaves
    a level (the coarsest level's entry is then unused) and after the concatenation that enters a decoder
    block."""
    padding: Literal["same", "valid"] = "same"
    """same: output as large as the input, zeros beyond the border; valid: only voxels with full context
    (Çiçek 2016), skips cropped to their centre."""
    bias: bool = True
    """Whether convolutions have a bias; the heads always have one."""
    double_before_pooling: bool = False
    """All but the last convolution of an encoder block, bottleneck included, have half its filters (Çiçek
    2016)."""
    extra_block: bool = False
    """A further block before the first, with the filters, kernel and convolutions of the first level."""
    concatenation: Literal["skip_first", "up_first"] = "skip_first"
    """Order of the channels where skip and up-sampled path meet."""
    residual: bool = False
    """Add the input of each block in front of its last non-linearity (He 2016), through a 1 x 1 x 1
    convolution where the channels differ."""

    @model_validator(mode="after")
    def _check_unet(self) -> Self:
        for name, needed in (("padding", "same"), ("deep_supervision", False)):
            if self.plane_axis == "all" and getattr(self, name) != needed:
                raise ValueError(f"{name} = {getattr(self, name)} needs a single plane_axis, not all")
        self._check_entries("dropout", needed=self.levels)
        self._check_entries("decoder_dropout", needed=self.levels - 1)
        return self

    @property
    def encoder_dropout_per_level(self) -> tuple[float, ...]:
        """Dropout of every encoder level, finest first."""
        return _spread(self.dropout, self.levels)

    @property
    def decoder_dropout_per_level(self) -> tuple[float, ...]:
        """Dropout of every decoder level, finest first."""
        if self.decoder_dropout is None:
            return self.encoder_dropout_per_level[:-1]
        return _spread(self.decoder_dropout, self.levels - 1)


class UNet3PlusConfig(NetworkSettings):
    """A U-Net with full-scale skips (Huang 2020, "UNet 3+"): every decoder level joins all levels."""

    kind: Literal["unet3plus"] = "unet3plus"
    """Family of the network."""
    levels: Annotated[int, Field(ge=2, le=8)] = 5
    """Resolution levels, the bottleneck included."""
    filters: PositiveInt | tuple[PositiveInt, ...] = 64
    """Filters of the encoder's first level (doubled from level to level), or one number for each level."""
    branch_filters: PositiveInt | None = None
    """Filters to which each level is brought before all are joined; empty: those of the first level."""
    dropout: Fraction = 0.0
    """Share of channels dropped in training after every encoder block."""
    guidance: bool = False
    """A classifier on the bottleneck that says which classes are present, and holds back the others."""
    guidance_dropout: Fraction = 0.5
    """Share of channels dropped in training in front of this classifier."""

    @property
    def padding(self) -> Literal["same"]:
        """The output is as large as the input, zeros counting beyond the border."""
        return "same"

    @property
    def filters_per_branch(self) -> int:
        """Filters to which each level is brought before all are joined."""
        return self.branch_filters or self.filters_per_level[0]

    @property
    def decoder_filters(self) -> int:
        """Channels of every decoder level: one branch from each level."""
        return self.filters_per_branch * self.levels

    @property
    def unet(self) -> UNetConfig:
        """The U-Net with the same encoder, and with the same kind of convolutions."""
        names = NetworkSettings.model_fields.keys() - {"kind", "deep_supervision"}
        shared = {name: getattr(self, name) for name in names}
        return UNetConfig(**shared, upsampling="linear", dropout=self.dropout)


NetworkConfig: TypeAlias = UNetConfig | UNet3PlusConfig
"""Configuration of any network."""


def network_class(kind: str) -> type[NetworkConfig]:
    """The configuration class of a family of networks.

    Raises
    ------
    ConfigError
        If there is no such family.
    """
    if kind not in _FAMILIES:
        raise ConfigError(f"network.kind = {kind!r}: there is no such family; known: {', '.join(_FAMILIES)}")
    return _FAMILIES[kind]


_FAMILIES: Final[Mapping[str, type[NetworkConfig]]] = {"unet": UNetConfig, "unet3plus": UNet3PlusConfig}


def _family(values: Any) -> str | None:
    """Family of a configuration, or of plain values, in which a U-Net need not be named."""
    kind = values.get("kind", "unet") if isinstance(values, Mapping) else getattr(values, "kind", None)
    return kind if isinstance(kind, str) else None


T = TypeVar("T")


def _spread(value: T | tuple[T, ...], count: int) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,) * count


def _triple(values: Sequence[int]) -> Triple:
    z, y, x = values
    return (z, y, x)


def _triples(value: PerLevel, count: int, dimensions: int) -> tuple[Triple, ...]:
    """One Z Y X triple for each level; in two dimensions the Z entry is 1."""
    entries: tuple[int | Triple, ...] = value if isinstance(value, tuple) else (value,) * count
    triples = [_triple(entry if isinstance(entry, tuple) else (entry,) * 3) for entry in entries]
    return tuple(triples) if dimensions == 3 else tuple((1, y, x) for _, y, x in triples)


# --- training ---------------------------------------------------------------------------------------------


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
    """Share of patches that are deformed (rotated, scaled, warped); flips and grey values vary in all."""
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
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest relative change of contrast."""
    offset: Annotated[float, Field(ge=0)] = 0.1
    """Largest shift of grey values, in normalised units."""
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative change of the exponent of a grey-value curve."""
    noise: Annotated[float, Field(ge=0)] = 0.05
    """Largest standard deviation of added Gaussian noise, in normalised units."""
    blur: Annotated[float, Field(ge=0)] = 0.0
    """Largest standard deviation of added Gaussian blur, in edges of the finest voxel axis."""


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


class DistillConfig(Config):
    """How a student learns from teachers (Hinton et al. 2015)."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Softens the outputs of teacher and student while they are compared: 1 leaves them as they are, higher values show
    more of what the teacher holds possible."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Weight of the teacher; 1 - alpha is that of the annotation. The teacher counts on all voxels, the annotation on
    annotated ones."""
    labelled_patches: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the steps whose patches lie around annotation, where there is any; the others lie anywhere."""
    flips: bool = False
    """Average the teachers over mirrored volumes (eight times their work in three dimensions)."""
    feature_hint: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a hint: in front of the head the student shall be active where the teacher is (Zagoruyko and Komodakis
    2017). 0: none."""
    student_from: Literal["scratch", "teacher"] = "scratch"
    """What the student begins with: random weights, or those of the (first) teacher wherever names and sizes are
    equal."""
    teacher_outputs: Literal["auto", "cached", "live"] = "auto"
    """cached: the teachers label all of the volume before the first step; live: each patch when it is drawn. auto:
    cached, unless that takes too long or too much memory."""


class PredictConfig(Config):
    """How a model is applied."""

    tile: Triple | Literal["auto"] = "auto"
    """Z Y X voxels of the network's input block. auto: least work within `memory`, up to 5 million."""
    halo: tuple[int, int, int] | Literal["auto"] = "auto"
    """Z Y X context around each tile that is discarded. auto: what the network sees, up to 16 voxels
    and a third of a tile."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a tile that neighbours share and blend."""
    memory: Annotated[int, Field(gt=0)] | None = None
    """Bytes the prediction may use; empty: half of what is free."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic. auto: what a short trial on the machine finds fastest."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    flips: bool = False
    """Average the predictions of mirrored tiles (eight times the work in three dimensions)."""
    compile: bool = False
    """Compile the network (torch.compile): takes a minute or more at first, for large volumes on GPUs."""
    background_as_zero: bool = False
    """Write 0 instead of the background's id (the lowest class)."""


# --- the whole --------------------------------------------------------------------------------------------


UnitState: TypeAlias = tuple[int, int, int, int, int, int, int, int]
HoldOutState: TypeAlias = tuple[float, Triple, int, tuple[UnitState, ...], tuple[UnitState, ...]]
"""Fraction, margin, number of units met, held-out units, all units met. A unit is volume, axis (-1: none),
start and stop (Z Y X)."""


class TeacherRecord(Config):
    """A model that a student learnt from."""

    name: str
    """Usually the name of its file."""
    fingerprint: str
    """SHA-256 of its weights, hexadecimal."""
    parameters: int
    """Trainable values of its network."""
    mean_iou: float | None = None
    """Best mean IoU of the structures on what was held out when it was trained."""


class RunRecord(Config):
    """What happened in a run, as much as is needed to repeat it step by step."""

    steps: int
    """Optimiser steps taken."""
    best_step: int
    """Step whose weights were kept."""
    seconds: float
    """Wall time of the run."""
    device: str
    """Where it ran; the first process's device."""
    processes: int = 1
    """Processes that shared the batches."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Arithmetic it began with."""
    precision_changes: tuple[tuple[int, Literal["float32", "bfloat16", "float16"]], ...] = ()
    """Step after which, and arithmetic to which it fell back."""
    threads: int
    """CPU threads."""
    batch_size: int
    """Patches in a step, at first."""
    batch_size_changes: tuple[tuple[int, int], ...] = ()
    """Step after which, and number of patches with which it went on because memory ran out."""
    patch_halvings: tuple[int, ...] = ()
    """Steps after which the patches were halved because memory ran out for a single one."""
    patch_size: Triple
    """Z Y X voxels of a patch, at first."""
    schedule: tuple[tuple[int, float, float], ...]
    """Knots of the schedule: from step s on, progress is p and grows by d a step."""
    validated_steps: tuple[int, ...] = ()
    """Steps after which the model was validated."""
    label_ids: tuple[int, ...] = ()
    """Label id of each class."""
    held_out: tuple[tuple[int, int, int], ...] = ()
    """Held-out slices: volume, axis (0 = Z), index."""
    hold_out: HoldOutState | None = None
    """The whole choice, loose strokes included."""
    from_weights: bool = False
    """Whether it began with the weights of another model."""
    teachers: tuple[TeacherRecord, ...] = ()
    """Whom a student learnt from."""
    stop_reason: str = ""
    """Why the run ended."""
    stage_seconds: dict[str, float] = {}
    """Seconds spent on data, augmentation, forward and backward passes and validation."""


class Recipe(Config):
    """The whole configuration that produced, or will produce, a model."""

    network: Annotated[
        Annotated[UNetConfig, Tag("unet")] | Annotated[UNet3PlusConfig, Tag("unet3plus")], Discriminator(_family)
    ] = UNetConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """The training."""
    record: RunRecord | None = None
    """What happened; a recipe with a record is repeated by steps, not by the clock."""
    distill: DistillConfig | None = None
    """How it learnt from teachers; empty for a model that did not."""
