"""Voxel sizes and axis orders. Spatial order is always Z Y X."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from napari_unet3d.engine.errors import ConfigError, DataError

SPATIAL_AXES: Final = ("z", "y", "x")

_METRES: Final = {"angstrom": 1e-10, "nm": 1e-9, "um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0}
_ALIASES: Final = {
    "": "pixel",
    "px": "pixel",
    "pixels": "pixel",
    "voxel": "pixel",
    "voxels": "pixel",
    "unknown": "pixel",
    "å": "angstrom",
    "nanometer": "nm",
    "nanometers": "nm",
    "nanometre": "nm",
    "µm": "um",
    "μm": "um",
    "\\u00b5m": "um",
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "micrometers": "um",
    "micrometre": "um",
    "millimeter": "mm",
    "millimeters": "mm",
    "millimetre": "mm",
    "centimeter": "cm",
    "centimetre": "cm",
    "meter": "m",
    "metre": "m",
}


def parse_unit(name: str) -> str:
    """Short name of a length unit: ``angstrom``, ``nm``, ``um``, ``mm``, ``cm``, ``m`` or ``pixel``.

    Raises
    ------
    ConfigError
        If the unit is not known.
    """
    key = name.strip()
    unit = _ALIASES.get(key.lower(), key.lower())
    if unit != "pixel" and unit not in _METRES:
        known = ", ".join([*_METRES, "pixel"])
        raise ConfigError(f"unknown length unit {name!r}; give one of {known}")
    return unit


@dataclass(frozen=True)
class VoxelSize:
    """Edge lengths of one voxel, Z Y X, with their unit.

    Raises
    ------
    DataError
        If an edge is not a positive finite number.
    """

    z: float = 1.0
    y: float = 1.0
    x: float = 1.0
    unit: str = "pixel"

    def __post_init__(self) -> None:
        if not all(math.isfinite(edge) and edge > 0 for edge in self.zyx):
            raise DataError(f"voxel size {self.zyx} needs three positive numbers; give it with --voxel-size")
        object.__setattr__(self, "unit", parse_unit(self.unit))

    @classmethod
    def parse(cls, text: str) -> VoxelSize:
        """Read ``"Z,Y,X[unit]"``, for example ``"0.5,0.1,0.1um"``.

        Raises
        ------
        ConfigError
            If the text is not three numbers and an optional unit.
        """
        match = re.fullmatch(r"\s*([^,]+),([^,]+),\s*([-+.\deE]+)\s*(\D*)\s*", text)
        try:
            if match is None:
                raise ValueError(text)
            z, y, x = (float(match[i]) for i in (1, 2, 3))
        except ValueError:
            raise ConfigError(
                f"voxel size {text!r} is not of the form Z,Y,X[unit], for example 0.5,0.1,0.1um"
            ) from None
        return cls(z, y, x, match[4])

    @property
    def zyx(self) -> tuple[float, float, float]:
        """The three edge lengths, in `unit`."""
        return (self.z, self.y, self.x)

    @property
    def symbol(self) -> str:
        """The unit as people write it."""
        return {"um": "µm", "angstrom": "Å"}.get(self.unit, self.unit)

    @property
    def volume(self) -> float:
        """Volume of one voxel, in cubic `unit`."""
        return self.z * self.y * self.x

    @property
    def relative(self) -> tuple[float, float, float]:
        """Edge lengths divided by the smallest one, so 1.0 marks the finest axis."""
        smallest = min(self.zyx)
        return (self.z / smallest, self.y / smallest, self.x / smallest)

    def to(self, unit: str) -> VoxelSize:
        """The same size in another unit; sizes in pixels keep their numbers.

        Raises
        ------
        ConfigError
            If the unit is not known.
        """
        unit = parse_unit(unit)
        if "pixel" in (unit, self.unit):
            return VoxelSize(*self.zyx, unit=unit)
        factor = _METRES[self.unit] / _METRES[unit]
        return VoxelSize(self.z * factor, self.y * factor, self.x * factor, unit)

    def __str__(self) -> str:
        return " x ".join(f"{edge:.4g}" for edge in self.zyx) + f" {self.unit}"
