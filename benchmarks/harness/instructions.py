"""The instructions of a processor that a sweep may compute with."""

from __future__ import annotations

import os

# What limits the arithmetic of torch, oneDNN and MKL to the instructions of AVX2.
INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}


def limit_to_avx2() -> None:
    """Let torch, oneDNN and MKL compute with AVX2's instructions, here and in worker processes.

    Raises:
        ValueError: they have chosen others already, or the processor has no AVX2.
    """
    before = {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ}
    os.environ.update(INSTRUCTIONS)
    import torch

    found = torch.backends.cpu.get_cpu_capability()
    if found != "AVX2":
        for name in INSTRUCTIONS:
            del os.environ[name]
        os.environ.update(before)
        raise ValueError(f"--avx2, but torch computes with {found} here")
