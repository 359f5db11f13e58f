"""What the settings of all experiments share: copying, a hash for the name, and seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any


def same_named(source: object, kind: Any) -> dict[str, Any]:
    """Return the attributes of an object whose names are fields of a dataclass."""
    names = (field.name for field in fields(kind))
    return {name: getattr(source, name) for name in names if hasattr(source, name)}


def given(**values: Any) -> dict[str, Any]:
    """Return the settings that were given: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def settings_digest(settings: dict[str, Any]) -> str:
    """Return the short hash of a run's settings that ends its name."""
    canonical = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def stream_seed(description: str) -> int:
    """Return the seed of the random stream of a description; no two descriptions share one."""
    # 63 bits: what every generator of torch takes.
    return int.from_bytes(hashlib.sha256(description.encode()).digest()[:8], "big") >> 1
