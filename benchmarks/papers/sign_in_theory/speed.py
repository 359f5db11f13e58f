"""How much faster a batch is than one autograd run after the other, measured in one process."""

from __future__ import annotations

from time import process_time

import numpy as np
import torch

from .config import DIM, LR, RUNS, SAMPLES, STEPS
from .dynamics import balance, descend
from .neuron import CASES, Array, Task, draw_cases, gaussian_task
from .records import Record


def autograd_run(
    start: Array, task: Task, *, lr: float, steps: int, beta: tuple[float, float] | None = None
) -> Array:
    """Perform one run as one would write it in torch: forward, backward, a step of SGD.

    Args:
        start: (1 + d,), a first.
        task: the data; the first column of labels is used.
        lr: step size.
        steps: number of steps.
        beta: Sign-In's inner scalings of a and w; None for none.

    Returns:
        (1 + d,), the end.
    """
    inputs, labels = torch.from_numpy(task.inputs), torch.from_numpy(task.labels[:, 0].copy())
    if beta is None:
        parts = [torch.tensor(start, requires_grad=True)]
    else:
        scalings = np.array([beta[0], *[beta[1]] * (len(start) - 1)])
        parts = [torch.tensor(part, requires_grad=True) for part in balance(start, scalings)]
    optimizer = torch.optim.SGD(parts, lr=lr)
    for _ in range(steps):
        theta = parts[0] if beta is None else parts[0] * parts[1]
        loss = 0.5 * (theta[0] * torch.relu(inputs @ theta[1:]) - labels).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        theta = parts[0] if beta is None else parts[0] * parts[1]
    found: Array = theta.detach().numpy().copy()
    return found


def speed(quick: bool) -> Record:
    """Time 100 runs of Table 8 with d = 5, 25 of every sign case: batch against single runs.

    Process times, one thread. The single runs are extrapolated from a few hundred steps of one run;
    the batch takes every step, and its runs leave it when they have reached a fixed point.
    """
    probe, steps, runs = (50, 500, 8) if quick else (500, STEPS, RUNS)
    task = gaussian_task(SAMPLES, DIM, seed=0)
    start = draw_cases(DIM, runs // len(CASES), seed=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for method, beta in (("overparam", None), ("overparam+sign_in", (1.0, 1.0))):
            autograd_run(start[:, 0], task, lr=LR, steps=20, beta=beta)
            begin = process_time()
            autograd_run(start[:, 0], task, lr=LR, steps=probe, beta=beta)
            single = (process_time() - begin) / probe
            begin = process_time()
            descend(start, task, lr=LR, steps=steps, beta=beta)
            batch = process_time() - begin
            rows.append(
                {
                    "method": method,
                    "seconds_per_single_step": single,
                    "sequential_seconds": single * steps * runs,
                    "batched_seconds": batch,
                    "ratio": single * steps * runs / batch,
                }
            )
    finally:
        torch.set_num_threads(threads)
    settings = {"runs": runs, "steps": steps, "samples": SAMPLES, "dim": DIM, "probe_steps": probe}
    return {"settings": settings, "rows": rows}
