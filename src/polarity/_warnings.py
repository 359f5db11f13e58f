"""Warn at the caller's line."""

import sys
import warnings

__all__ = ["warn_caller"]

_NOT_THE_CALLER = ("polarity", "torch")


def warn_caller(message: str) -> None:
    """Give a UserWarning at the line outside this package, and outside torch, that called it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_THE_CALLER:
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level + 1)
