"""The model inside the wrappers of PyTorch, whose names are the plain ones."""

import sys
from collections.abc import Iterator
from typing import cast

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from polarity._checks import check_module

__all__ = ["layers", "refuse_ddp", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside ``torch.compile``, DataParallel, DDP and ``AveragedModel``.

    Raises:
        TypeError: if ``model`` is not a module.
    """
    check_module(model)
    *_, innermost = layers(model)
    return innermost


def refuse_ddp(model: nn.Module, call: str) -> None:
    """Raise if DDP wraps a model, or a part of it, whose parameters ``call`` would change."""
    plain = unwrapped(model)
    inside = [f"its {name!r}" for name, each in plain.named_modules() if _is_ddp(each)]
    around = ["model" for each in layers(model) if _is_ddp(each)]
    if around or inside:
        raise TypeError(
            f"{(around or inside)[0]} is wrapped in DistributedDataParallel, which has registered "
            "its parameters, expected the model itself: attach before wrapping (call "
            f"{call} on the model, then wrap it)"
        )


def layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model, what it wraps, and so on to the innermost."""
    inner: nn.Module | None = model
    while inner is not None:
        yield inner
        inner = _inside(inner)


def _inside(model: nn.Module) -> nn.Module | None:
    """Return what a wrapper wraps, or None."""
    if isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
        return cast(nn.Module, model.module)
    # Importing the compiler takes seconds; a compiled model has imported it.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is not None and isinstance(model, compiler.OptimizedModule):
        return cast(nn.Module, model._orig_mod)
    return None


def _is_ddp(module: nn.Module) -> bool:
    """Return whether a module is DistributedDataParallel."""
    return isinstance(module, DistributedDataParallel)
