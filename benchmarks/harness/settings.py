"""What every run's settings give it: a hash for its name, and seeds for its random streams."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def settings_digest(settings: dict[str, Any]) -> str:
    """Return the short hash of a run's settings that ends its name."""
    canonical = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def stream_seed(description: str) -> int:
    """Return the seed of the random stream of a description; no two descriptions share one."""
    # 63 bits: what every generator of torch takes.
    return int.from_bytes(hashlib.sha256(description.encode()).digest()[:8], "big") >> 1
