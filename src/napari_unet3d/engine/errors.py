"""The exceptions a user can meet.

::

    UNet3dError
    ├── ConfigError          a setting is unknown, out of range or contradicts another
    ├── DataError            an image or its labels cannot be used as they are
    ├── DeviceError          the asked-for device is missing or out of memory
    ├── ExportError          a model cannot be exported, or a package for that is missing
    ├── FileError            a file cannot be read or written
    │   └── ModelFileError   a model file is foreign, damaged or of another version
    └── TrainingError        training cannot go on

A message is one line. It names the value given, the value needed and the setting to turn.
"""

from __future__ import annotations


class UNet3dError(Exception):
    """Base of every error that is the input's or the environment's fault, not the program's."""


class ConfigError(UNet3dError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(UNet3dError):
    """An image or its labels cannot be used as they are."""


class DeviceError(UNet3dError):
    """The asked-for device is missing or out of memory."""


class ExportError(UNet3dError):
    """A model cannot be exported, or a package that exporting or exported models need is missing."""


class FileError(UNet3dError):
    """A file cannot be read or written."""


class ModelFileError(FileError):
    """A model file is foreign, damaged or of another version."""


class TrainingError(UNet3dError):
    """Training cannot go on."""
