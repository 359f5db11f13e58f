"""The most memory that a call needed beyond what was there before it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    """Runs `call` once and gives its peak extra memory, or None where the system does not tell.

    On a CPU the high-water mark of the resident set (Linux), reset before the call; memory that
    the allocator had kept from earlier calls is not seen, so the smallest sizes read as 0.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    before = _high_water()
    call()
    return max(0, _high_water() - before)


def _high_water() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")
