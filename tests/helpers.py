"""What several test files do with a model: run it, train it, and remember what it held."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from multiprocessing import get_all_start_methods, set_forkserver_preload
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import polarity as pol
from polarity import deploy
from tests.forms import Form
from tests.laws.refusals import fingerprint
from tests.models import Kind, seeded

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def build(kind: Kind, seed: int = 0) -> nn.Module:
    return seeded(kind.build(), seed).eval()


def feed(kind: Kind, seed: int = 2) -> tuple[Tensor, ...]:
    return kind.inputs(torch.Generator().manual_seed(seed))


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the ``state_dict`` that training cannot reach."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: tuple[Tensor, ...]
) -> float:
    """Take one step on the mean square of the outputs' distance from 1; every weight has a part."""
    optimizer.zero_grad()
    loss = (model(*inputs).float() - 1).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def train(
    model: nn.Module, inputs: tuple[Tensor, ...], steps: int = 3, lr: float = 0.05
) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        train_step(model, optimizer, inputs)
    return model


def leaf_and_mask(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return what is stored, and what of it survives, for every masked weight.

    Read by torch's own attributes. Of a compact weight everything that is stored survives.
    """
    pairs = {}
    for module in model.modules():
        for chain in getattr(module, "parametrizations", {}).values():
            if isinstance(chain[0], pol.MaskedWeight):
                leaves = [p for name, p in chain.named_parameters(recurse=False)]
                kept = chain[0].mask != 0
                pairs |= {id(leaf): (leaf, kept if leaf.shape == kept.shape else
                                     torch.ones_like(leaf, dtype=torch.bool))
                          for leaf in leaves}  # fmt: skip
    return list(pairs.values())


def at_survivors(dense: Tensor, mask: Tensor, form: Form) -> Tensor:
    """Return what a form has an entry for: all entries, or those inside the mask."""
    return dense[mask] if form.compact else dense


def tensor_at(model: nn.Module, name: str) -> Tensor:
    """Return the tensor that ``model`` computes with under a plain dotted name."""
    path, _, tensor_name = name.rpartition(".")
    return getattr(model.get_submodule(path), tensor_name)


def zeroed(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """Zero a plain model's weights outside the masks: what masking has to be equal to."""
    with torch.no_grad():
        for name, mask in masks.items():
            tensor_at(model, name).masked_fill_(~mask, 0.0)
    return model


def outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return what the model computes, recording gradients and dropping them.

    Under ``no_grad`` PyTorch picks its kernels by ``requires_grad``, which a computed weight then
    lacks and a parameter has: a plain GRU with frozen parameters differs from itself by an ulp.
    """
    return model(*inputs).detach()


def full_precision() -> AbstractContextManager[None]:
    """Keep cuDNN from rounding float32 to TF32, so that a GPU can be compared with a CPU."""
    return torch.backends.cudnn.flags(allow_tf32=False)


def everything_of(model: nn.Module) -> list[Any]:
    """Bytes, identities, modes, classes and gradients of a model, and torch's random state."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    return [
        [(n, id(m), type(m), m.training, m._forward_hooks) for n, m in model.named_modules()],
        [(n, id(p), p.requires_grad, p._version) for n, p in tensors.items()],
        fingerprint({n: p.grad for n, p in tensors.items() if p.grad is not None}),
        fingerprint(dict(model.named_buffers())),
        fingerprint(model.state_dict()),
        fingerprint(torch.get_rng_state()),
    ]


def from_ranks(
    work: Callable[[int, str], Any], folder: Path, world: int, **options: Any
) -> list[Any]:
    """Run ``work(rank, folder)`` on each of several ranks, and return what each returned.

    The ranks are one process group, made with these options.
    """
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    start_processes(_one_rank, folder, world, work, options)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]


def _one_rank(rank: int, folder: str, world: int, work: Any, options: dict[str, Any]) -> None:
    """Join the ranks, work, and leave what came of it in a file."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world, **options
    )
    try:
        torch.save(work(rank, folder), f"{folder}/rank{rank}.pt")
    finally:
        distributed.destroy_process_group()


def start_processes(target: Callable[..., None], folder: Path, world: int, *others: Any) -> None:
    """Run ``target(rank, folder, world, *others)`` in several processes, and wait for them.

    They are forked from one that has imported the tests and computed nothing, and that serves all
    tests of this process: PyTorch is imported once, and not by every rank.
    """
    forks = "forkserver" in get_all_start_methods()
    set_forkserver_preload(["tests.helpers"])
    arguments = (str(folder), world, *others)
    start_method = "forkserver" if forks else "spawn"
    torch.multiprocessing.start_processes(target, arguments, world, start_method=start_method)


def torchrun(arguments: Iterable[str], folder: Path) -> str:
    """Run a script or module on two processes in a folder, and return what they print.

    polarity is that of these tests, and a GPU is not seen: two processes would share it.
    """
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    source = str(Path(pol.__file__).parents[1])
    hidden = {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*run, "--nproc-per-node=2", *arguments],
        env={**os.environ, **hidden},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def sparse_wins(dense, sparse):
    """Measure nothing: the sparse product is twice as fast."""
    dense(), sparse()
    return 2.0, 1.0


def dense_wins(dense, sparse):
    return 1.0, 2.0


def swapped_modules(model: nn.Module) -> list[str]:
    return [n for n, each in model.named_modules() if isinstance(each, deploy.SparseLinear)]


def reasons(report: deploy.CompressReport) -> dict[str, str]:
    return {layer.name: layer.reason for layer in report}
