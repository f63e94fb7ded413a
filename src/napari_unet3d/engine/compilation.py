"""Modules whose forward pass is compiled, as long as that works."""

from __future__ import annotations

from torch import nn

_SHORT = 120


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called, and `interpret` not since."""
    return module._compiled_call_impl is not None


def interpret(module: nn.Module) -> None:
    """Go on without the compiled code."""
    module._compiled_call_impl = None


def not_compiled_note(reason: str) -> str:
    """What to tell where a network cannot be compiled."""
    return f"the network could not be compiled ({reason}): going on without"


def reason_in_short(error: Exception) -> str:
    """The kind of an error and the beginning of its first line: compilers write pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_SHORT]}" if lines else type(error).__name__
