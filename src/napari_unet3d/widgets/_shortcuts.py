"""Keys for what is done again and again while painting: one table, bound once for each viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple


class Shortcut(NamedTuple):
    """A key and the command it runs."""

    key: str
    """As napari writes it, such as ``Shift-B``."""
    command: str
    """Function of `napari_unet3d.commands`."""


SHORTCUTS: Final = {
    "complete": Shortcut("Shift-B", "complete_slice"),
    "copy": Shortcut("Shift-C", "copy_prediction"),
    "next": Shortcut("Shift-N", "next_slice"),
    "show": Shortcut("Shift-H", "show_or_hide_prediction"),
    "train": Shortcut("Shift-T", "train"),
    "apply": Shortcut("Shift-G", "apply_model"),
}
"""Keys that napari and its layers leave free; napari's key bindings for plugins are not registered by it yet."""


def with_key(tooltip: str, name: str) -> str:
    """A tooltip that tells the key of a shortcut too."""
    return f"{tooltip} ({SHORTCUTS[name].key.replace('-', '+')})"


def bind_shortcuts(viewer: Any) -> None:
    """Bind the keys in one viewer. A key that is taken there stays what it is."""
    from napari.utils.key_bindings import coerce_keybinding

    for key, command in SHORTCUTS.values():
        binding = coerce_keybinding(key)
        if binding not in viewer.keymap and binding not in viewer.class_keymap:
            viewer.bind_key(key, _runner(command))


def _runner(command: str) -> Callable[[Any], None]:
    def run(viewer: Any) -> None:
        from napari_unet3d import commands

        getattr(commands, command)(viewer)

    run.__doc__ = f"U-Net 3D: {command.replace('_', ' ')}."
    run.__name__ = command
    return run
