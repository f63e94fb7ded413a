"""Colours of the viewer's theme, for what style sheets do not reach: plots, drawings, messages."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

READABLE_TEXT: Final = 4.5
READABLE_SHAPE: Final = 3.0
"""Contrast that text and thin lines need (WCAG 2.1, sections 1.4.3 and 1.4.11)."""


@dataclass(frozen=True)
class ThemeColours:
    """Colours as ``#rrggbb``.

    Attributes
    ----------
    background
        Behind docks.
    surface
        Of fields and boxes on the background.
    border
        Thin lines.
    text, faint_text
        Text, and text that explains.
    accent
        What is active.
    warning, error
        Readable as text on the background.
    """

    background: str
    surface: str
    border: str
    text: str
    faint_text: str
    accent: str
    warning: str
    error: str

    @property
    def is_dark(self) -> bool:
        """Whether the background is darker than the text."""
        return _luminance(QColor(self.background)) < _luminance(QColor(self.text))

    def readable(self, colour: str, contrast: float = READABLE_SHAPE) -> str:
        """The colour, moved towards the text's until it stands out from the background.

        Parameters
        ----------
        colour
            Anything `QColor` understands; nonsense gives the text's colour.
        contrast
            Wanted ratio of luminances, 1 to 21.
        """
        return readable_on(self.background, colour, self.text, contrast)

    def blend(self, colour: str, share: float) -> str:
        """`share` (0..1) of a colour over the background."""
        return _mixed(QColor(colour), QColor(self.background), share).name()


def theme_colours(name: str) -> ThemeColours:
    """Colours of one of napari's themes; unknown names give those of ``dark``."""
    try:
        theme = get_theme(name)
    except ValueError:  # a theme of a plugin that is gone
        theme = get_theme("dark")
    background, text = theme.background.as_hex("long"), theme.text.as_hex("long")
    mixed = _mixed(QColor(text), QColor(background), 0.72).name()
    return ThemeColours(
        background=background,
        surface=theme.foreground.as_hex("long"),
        border=theme.secondary.as_hex("long"),
        text=text,
        faint_text=readable_on(background, mixed, text, READABLE_TEXT),
        accent=readable_on(background, theme.current.as_hex("long"), text, READABLE_SHAPE),
        warning=readable_on(background, theme.warning.as_hex("long"), text, READABLE_TEXT),
        error=readable_on(background, theme.error.as_hex("long"), text, READABLE_TEXT),
    )


def follow_theme(viewer: Any, owner: QWidget, apply: Callable[[ThemeColours], None]) -> None:
    """Give the colours now and whenever the viewer's theme changes, as long as a widget lives.

    Parameters
    ----------
    viewer
        The napari viewer.
    owner
        Ends the following with its destruction.
    apply
        A method; called with the colours, on the GUI thread. It is held weakly, so as not to keep its object alive.
    """
    held = weakref.WeakMethod(apply)

    def on_theme_changed(event: Any = None) -> None:
        method = held()
        if method is not None:
            method(theme_colours(str(viewer.theme)))

    viewer.events.theme.connect(on_theme_changed)
    owner.destroyed.connect(lambda *_: viewer.events.theme.disconnect(on_theme_changed))
    on_theme_changed()


def readable_on(background: str, colour: str, text: str, contrast: float) -> str:
    """A colour, moved towards that of the text until it has a contrast to the background."""
    behind, end = QColor(background), QColor(text)
    start = QColor(colour)
    if not start.isValid():
        return end.name()
    for tenth in range(11):
        mixed = _mixed(end, start, tenth / 10)
        if contrast_ratio(mixed, behind) >= contrast:
            return mixed.name()
    return end.name()


def contrast_ratio(one: QColor, other: QColor) -> float:
    """Ratio of luminances, 1 to 21 (WCAG 2.1)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: QColor) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(channel) for channel in (colour.redF(), colour.greenF(), colour.blueF()))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mixed(one: QColor, other: QColor, share: float) -> QColor:
    """`share` of one colour, the rest of the other."""
    channels = zip((one.redF(), one.greenF(), one.blueF()), (other.redF(), other.greenF(), other.blueF()), strict=True)
    red, green, blue = (a * share + b * (1 - share) for a, b in channels)
    return QColor.fromRgbF(min(1.0, red), min(1.0, green), min(1.0, blue))
