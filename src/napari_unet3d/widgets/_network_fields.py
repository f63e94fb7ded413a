"""How the settings of networks are explained: presets in a sentence, fields in groups, and which do not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from napari_unet3d.engine.config import NetworkConfig

FIELD_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("levels", "filters", "features", "norm", "dimensions"),
    "Shape": (
        "kernel",
        "strides",
        "convolutions",
        "padding",
        "neighbours",
        "residual",
        "extra_block",
        "double_before_pooling",
        "bias",
    ),
    "Down and up": (
        "pooling",
        "upsampling",
        "up_channels",
        "up_bias",
        "up_norm_activation",
        "concatenation",
        "branch_filters",
    ),
    "Normalisation": ("norm_groups", "norm_epsilon", "norm_momentum", "norm_statistics"),
    "Non-linearity and start": ("activation", "negative_slope", "initialization"),
    "Dropout": ("dropout", "decoder_dropout", "dropout_place"),
    "Output and supervision": ("head", "deep_supervision", "guidance", "guidance_dropout"),
    "Fixed features": ("feature_scales",),
}
"""Fields by the title of their section; those of the first are always in view."""

_SENTENCES: Final[Mapping[str, str]] = {
    "fast": "Learns in about a minute on a laptop, from fixed filters over several scales. The one to start with.",
    "large": "Five levels of residual blocks, for a GPU, fine structures and more annotation.",
    "cicek2016": "The 3D U-Net paper (Çiçek 2016): no padding, so the result is smaller than what the network sees.",
    "keras3d": "The 3D U-Net as it is usual in Keras: padded, batch normalisation, dropout.",
    "framework3d": "A lean 3D U-Net with an extra first block, from a configurable framework's example.",
    "unet2d": "The original U-Net (Ronneberger 2015), plane by plane, without padding.",
    "unet2d-elu": "A small 2D U-Net with ELU and dropout, plane by plane.",
    "unet3plus": "UNet 3+ (Huang 2020), plane by plane: each decoder level joins all levels.",
    "unet3plus-ds": "UNet 3+ with deep supervision: the coarser levels are trained on the annotation too.",
    "unet3plus-ds-cgm": "UNet 3+ with deep supervision, and a classifier that holds back classes that are not there.",
    "unet3plus-3d": "UNet 3+ in three dimensions, with fewer filters.",
    "unet3plus-ds-3d": "UNet 3+ in three dimensions with deep supervision.",
    "unet3plus-ds-cgm-3d": "UNet 3+ in three dimensions with deep supervision and the classifier of classes.",
}


def preset_sentence(name: str, config: NetworkConfig) -> str:
    """What a preset is good for; its size if nothing else is known."""
    plain = f"A network in {config.dimensions} dimensions with {config.levels} levels."
    return _SENTENCES.get(name, plain)


def irrelevant_fields(config: NetworkConfig) -> dict[str, str]:
    """Field -> why it makes no difference in this configuration."""
    return dict(_irrelevant(config.model_dump()))


def _irrelevant(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if values["norm"] == "none":
        yield "norm_epsilon", "Only with normalisation."
    if values["norm"] != "group":
        yield "norm_groups", "Only for norm = group."
    if values["norm"] != "batch":
        yield "norm_statistics", "Only for norm = batch."
    if values["norm"] not in ("batch", "batch_renorm"):
        yield "norm_momentum", "Only for norm = batch or batch renorm."
    if values["activation"] != "leaky_relu":
        yield "negative_slope", "Only for activation = leaky relu."
    if values["dimensions"] == 3:
        yield "neighbours", "Only for dimensions = 2."
    if values["features"] == "none":
        yield "feature_scales", "Only for features = scale space."
    if values.get("upsampling") != "transposed":
        for name in ("up_channels", "up_bias", "up_norm_activation"):
            yield name, "Only for upsampling = transposed."
    if not _drops(values["dropout"]) and not _drops(values.get("decoder_dropout")):
        yield "dropout_place", "Only with dropout."
    if not values.get("guidance"):
        yield "guidance_dropout", "Only with guidance."


def _drops(dropout: float | tuple[float, ...] | None) -> bool:
    return any(dropout) if isinstance(dropout, tuple) else bool(dropout)
