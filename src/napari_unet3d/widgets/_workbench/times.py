"""Durations for people."""

from __future__ import annotations


def clock_text(seconds: float) -> str:
    """``7 s``, ``1 min 05 s``, ``2 h 03 min``; rounded, not negative."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s"
