"""How a network is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import Field, model_validator

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.config.settings import Config, Fraction, PositiveFloat, PositiveInt, Triple
from napari_unet3d.engine.errors import ConfigError

PerLevel: TypeAlias = PositiveInt | tuple[PositiveInt | Triple, ...]
"""One number for all, or one entry per level; an entry is a number or one number per axis (Z Y X)."""


FEATURES_PER_SCALE: Final = 5
"""Scale-space features of one image channel at one scale (see `engine.filters`)."""


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
