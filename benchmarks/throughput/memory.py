"""The most memory that a call needed beyond what was there before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Below this many weights, buffers of a fixed size are most of what is seen.
WORTH_WEIGHING = 10_000_000

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    """Runs `call` once and gives its peak extra memory, or None where the system does not tell.

    On a CPU the high-water mark of the resident set (Linux with glibc). What the allocator kept of
    memory that was freed goes back to the system first, or else the call would live on it unseen.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
    except (OSError, AttributeError):
        return None
    before = _high_water()
    call()
    return max(0, _high_water() - before)


def kept_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    """Run `call` once and return the memory that is still held afterwards, as `peak_bytes`."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        call()
        gc.collect()
        return torch.cuda.memory_allocated() - before
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        before = _status("VmRSS")
        call()
        gc.collect()
        libc.malloc_trim(0)
    except (OSError, AttributeError):
        return None
    return max(0, _status("VmRSS") - before)


def _high_water() -> int:
    return _status("VmHWM")


def _status(entry: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {entry} in /proc/self/status")
