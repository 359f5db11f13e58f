"""Checks that several calls share; each error names the parameter, its value and what fits."""

import math
from numbers import Real


def check_fraction(parameter: str, value: float) -> None:
    """Raise unless ``value`` is a number in [0, 1]."""
    _check_number(parameter, value)
    if math.isnan(value) or not 0 <= value <= 1:
        raise ValueError(f"{parameter}={value!r} is out of range, expected a number in [0, 1]")


def check_finite(parameter: str, value: float) -> None:
    """Raise unless ``value`` is a finite number."""
    _check_number(parameter, value)
    if not math.isfinite(value):
        raise ValueError(f"{parameter}={value!r}, expected a finite number")


def _check_number(parameter: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{parameter}={value!r} is a {type(value).__name__}, expected a number")


def check_scope(scope: str) -> None:
    """Raise unless ``scope`` is one of the two there are."""
    if scope not in ("global", "layer"):
        raise ValueError(f"scope={scope!r}, expected 'global' or 'layer'")
