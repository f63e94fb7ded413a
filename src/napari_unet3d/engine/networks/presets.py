"""Named network configurations. Importing this module imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from napari_unet3d.engine.config import NetworkConfig, network_class, validated
from napari_unet3d.engine.errors import ConfigError

_ISOTROPIC: Final = {"kernel": 3, "strides": 2}

_CICEK_2016: Final = {
    **_ISOTROPIC,
    "levels": 4,
    "filters": 64,
    "double_before_pooling": True,
    "upsampling": "transposed",
    "up_channels": "keep",
    "up_bias": False,
    "concatenation": "skip_first",
    "activation": "relu",
}

# the UNet 3+ (Huang et al. 2020, figure 1), on its own encoder; sizes must be multiples of 16
_HUANG_2020: Final = {"kind": "unet3plus", "levels": 5}
_FLAT: Final = {**_HUANG_2020, **_ISOTROPIC, "dimensions": 2, "filters": 64}
_SOLID: Final = {**_HUANG_2020, "dimensions": 3, "filters": 16}
_SUPERVISED: Final = {"deep_supervision": True}
_GUIDED: Final = {"deep_supervision": True, "guidance": True}

_PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # learns in a minute on a laptop CPU
        "fast": {"levels": 3, "filters": 16, "norm": "batch_renorm", "features": "scale_space"},
        # for a GPU; five levels of residual blocks as in nnU-Net (Isensee et al. 2021)
        "large": {
            "levels": 5,
            "filters": (32, 64, 128, 256, 320),
            "residual": True,
            "norm": "instance",
            "activation": "leaky_relu",
            "upsampling": "transposed",
            "up_channels": "level",
            "deep_supervision": True,
        },
        # the 3D U-Net (Çiçek et al. 2016, figure 2), as counted there: without normalisation
        "cicek2016": {**_CICEK_2016, "norm": "none", "norm_statistics": "batch", "padding": "valid"},
        # the same network in Keras: padded, with the defaults of Keras' batch normalisation
        "keras3d": {
            **_CICEK_2016,
            "norm": "batch",
            "norm_epsilon": 1e-3,
            "norm_momentum": 0.01,
            "padding": "same",
            "dropout": (0.0, 0.2, 0.2, 0.2),
            "decoder_dropout": (0.2, 0.2, 0.2),
            "dropout_place": "after_block",
        },
        # a configurable 3D U-Net in TensorFlow, the example of its README
        "framework3d": {
            **_ISOTROPIC,
            "levels": 4,
            "filters": 16,
            "extra_block": True,
            "up_channels": "level",
            "up_norm_activation": True,
            "norm": "batch",
            "norm_epsilon": 1e-3,
            "norm_momentum": 0.01,
            "concatenation": "up_first",
            "dropout_place": "after_pooling_and_concatenation",
            "initialization": "xavier",
        },
        # the U-Net (Ronneberger et al. 2015, figure 1)
        "unet2d": {
            **_ISOTROPIC,
            "dimensions": 2,
            "levels": 5,
            "filters": 64,
            "upsampling": "transposed",
            "up_channels": "level",
            "norm": "none",
            "padding": "valid",
            "dropout": (0.0, 0.0, 0.0, 0.5, 0.5),
            "decoder_dropout": 0.0,
        },
        # a small 2D U-Net in Keras
        "unet2d-elu": {
            **_ISOTROPIC,
            "dimensions": 2,
            "levels": 5,
            "filters": 16,
            "upsampling": "transposed",
            "up_channels": "level",
            "concatenation": "up_first",
            "norm": "none",
            "activation": "elu",
            "dropout": (0.1, 0.1, 0.2, 0.2, 0.3),
            "dropout_place": "between_convolutions",
        },
        "unet3plus": _FLAT,
        "unet3plus-ds": {**_FLAT, **_SUPERVISED},
        "unet3plus-ds-cgm": {**_FLAT, **_GUIDED},
        # the same in three dimensions, lean enough for a laptop
        "unet3plus-3d": _SOLID,
        "unet3plus-ds-3d": {**_SOLID, **_SUPERVISED},
        "unet3plus-ds-cgm-3d": {**_SOLID, **_GUIDED},
    }
)


def network_presets() -> tuple[str, ...]:
    """The names that `network_config` knows."""
    return tuple(_PRESETS)


def network_config(name: str, *, in_channels: int = 1, classes: int = 2, **overrides: Any) -> NetworkConfig:
    """The configuration of a preset.

    Parameters
    ----------
    name
        One of `network_presets`.
    in_channels
        Channels of the image.
    classes
        Output channels; 1 means one sigmoid channel.
    **overrides
        Fields of the configuration that differ from the preset. A `kind` other than the preset's gives the
        defaults of that family instead of the preset.

    Raises
    ------
    ConfigError
        If the preset or a field is unknown, or a value is out of range or contradicts another.
    """
    if name not in _PRESETS:
        close = difflib.get_close_matches(name, _PRESETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"unknown network preset {name!r}; {hint}known: {', '.join(_PRESETS)}")
    preset = _PRESETS[name]
    own_kind = str(preset.get("kind", "unet"))
    kind = str(overrides.get("kind", own_kind))
    if kind != own_kind:
        preset = {}
    settings = {**preset, "in_channels": in_channels, "classes": classes, **overrides}
    return validated(network_class(kind), settings, prefix="network.")
