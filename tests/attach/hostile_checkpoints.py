"""Checkpoints that are made to do harm: every key with every fault, and names that cannot be."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import half_masked
from tests.hostile import taken_apart
from tests.models import seeded

safetensors_torch = pytest.importorskip("safetensors.torch")

State = dict[str, Tensor]
NAN, INF = float("nan"), float("inf")
FIRST, SECOND = "0.parametrizations.weight.", "3.parametrizations.weight."
NORM = "1.parametrizations.weight."
NORM_BIAS = "1.parametrizations.bias."


def plain(seed: int = 5, width: int = 4) -> nn.Sequential:
    return seeded(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, width)), seed
    )


def every_form(seed: int = 0) -> nn.Sequential:
    """A mask on the first weight, a product in the last, and an interpolated norm between them."""
    model = half_masked(plain(seed))
    pol.sign_in(model, targets="3.weight")
    return pol.interpolate_norms(model, generator=torch.Generator().manual_seed(0))


@cache
def sound() -> tuple[State, dict[str, str]]:
    """The tensors and ties that a file of a model in every form holds."""
    with TemporaryDirectory() as folder:
        pol.save(every_form(), f"{folder}/model")
        header, _ = taken_apart(Path(folder, "model").read_bytes())
        state = safetensors_torch.load(Path(folder, "model").read_bytes())
    return state, json.loads(header["__metadata__"]["aliases"])


def written(path: Path, change: Callable[[State, dict[str, str]], object]) -> Path:
    """Write such a file, changed."""
    state, aliases = (dict(each) for each in sound())
    change(state, aliases)
    metadata = {"aliases": json.dumps(aliases)}
    contiguous = {name: value.contiguous() for name, value in state.items()}
    safetensors_torch.save_file(contiguous, path / "model", metadata)
    return path / "model"


def to(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[State, dict[str, str]], object]:
    return lambda state, _: state.update({key: change(state[key])})


def filled(value: float) -> Callable[[Tensor], Tensor]:
    """Set the first entry of a tensor to another value."""

    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


KEYS = list(every_form().state_dict())
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "with a dimension more": lambda t: t[None].clone(),
    "twice as long": lambda t: torch.stack([t, t]),
    "without entries": lambda t: t.new_zeros((0, *t.shape)),
    "with five entries": lambda t: t.new_ones(5),
}
DTYPES = (torch.int64, torch.uint8, torch.float32, torch.bool, torch.complex64)
VALUES: dict[str, list[float]] = {
    "0.mask": [0.5, NAN, 7.0, -1.0, INF, 1e-30],
    "0.beta": [-1.0, 0.0, NAN, INF, -INF, 1e300, 1e-300],
    "0.initial": [NAN, INF],
    "0.shared.alpha": [-0.1, 1.5, NAN, INF],
    "0.shared.stream": [0, -1, 2**31, 2**62],
    "original": [NAN, INF],
    "original0": [NAN, -INF],
    "original1": [NAN, INF],
    "bias": [NAN, -INF],
}


def kind(dtype: torch.dtype) -> tuple[bool, bool, bool]:
    return dtype.is_floating_point, dtype.is_complex, dtype == torch.bool


def cases() -> Iterator[tuple[str, Callable[[State, dict[str, str]], object], str]]:
    """Yield every key with every kind of fault, and what the message has to name."""
    for key, value in every_form().state_dict().items():
        plain_name = key.replace("parametrizations.", "").split(".")
        name = "shared" if ".shared." in key else ".".join(plain_name[:2])
        tied = key.endswith(("shared.alpha", "shared.stream")) and key.startswith(NORM_BIAS)
        if tied:
            continue  # the file has it under the weight's name
        if not key.endswith(("_extra_state", "num_batches_tracked")):
            yield f"{key} missing", lambda s, _, key=key: s.pop(key), name
        yield (
            f"{key} under another name",
            (lambda s, _, key=key: s.update({f"{key}x": s.pop(key)})),
            name,
        )
        for words, change in SHAPES.items():
            if key.endswith("num_batches_tracked") and words == "with a dimension more":
                continue  # as checkpoints of PyTorch 0.3 have it: load_state_dict takes it
            yield f"{key} {words}", to(key, change), name
        for dtype in DTYPES:
            as_mask = key.endswith("0.mask")
            if kind(dtype) != kind(value.dtype) and not as_mask and dtype != value.dtype:
                yield f"{key} as {dtype}", to(key, lambda t, dtype=dtype: t.to(dtype)), name
        for part, values in VALUES.items():
            if key.endswith(f".{part}"):
                for each in values:
                    yield f"{key} with {each}", to(key, filled(each)), name


def add(name: str, value: Tensor | None = None) -> Callable[[State, dict[str, str]], object]:
    return lambda state, _: state.update({name: torch.ones(4, 4) if value is None else value})


def instead(name: str) -> Callable[[State, dict[str, str]], object]:
    """Put all of the first weight under another name."""

    def change(state: State, _: dict[str, str]) -> None:
        for key in [key for key in state if key.startswith(FIRST)]:
            state[key.replace("0.", f"{name}.", 1)] = state.pop(key)

    return change


STRUCTURES: dict[str, tuple[Callable[[State, dict[str, str]], object], str]] = {
    # A name is a name: none of these is a pattern for one that exists.
    "a glob for a module": (instead("*"), "'*.weight', which is not in the model"),
    "a glob with a range": (instead("[0-9]"), "'[0-9].weight', which is not in the model"),
    "a glob for one letter": (instead("?"), "'?.weight', which is not in the model"),
    "a name with a glob after it": (instead("0*"), "'0*.weight', which is not in the model"),
    "a regular expression": (instead(".+"), "not in the model"),
    "no module": (instead(""), "not in the model"),
    "a folder up": (instead(".."), "not in the model"),
    "a name of a module alone": (add("0"), "'0', which is not in the model"),
    "a class attribute": (add("0.__class__"), "'0.__class__', which is not in the model"),
    "a name without letters": (add(""), "'', which is not in the model"),
    "a name of a million letters": (add("x" * 10**6), "which is not in the model"),
    "a mask of a bias": (add("0.parametrizations.bias.0.mask", torch.ones(4)), "0.bias"),
    "a mask and nothing else": (add("7.parametrizations.weight.0.mask"), "'7.weight'"),
    "a mask of a norm": (add(f"{NORM}0.mask", torch.ones(4)), "1.weight"),
    "an initial value of a masked weight": (add(f"{FIRST}0.initial"), "0.initial"),
    "a beta of a masked weight": (add(f"{FIRST}0.beta", torch.tensor(1.0)), "0.weight"),
    "a factor of a masked weight": (add(f"{FIRST}original0"), "original0"),
    "a value of a product": (add(f"{SECOND}original"), "original"),
    "a third factor": (add(f"{SECOND}original2"), "original2"),
    "a second mask": (add(f"{FIRST}1.mask"), "1.mask"),
    "a dense weight as well": (add("0.weight"), "'0.weight'"),
    "torch's mask as well": (add("0.weight_mask"), "0.weight_mask"),
    "a stored weight as torch has it as well": (add("0.weight_orig"), "0.weight_orig"),
    "parametrizations in parametrizations": (add(f"{FIRST}{FIRST}0.mask"), "not in the model"),
    "parametrizations alone": (add("parametrizations"), "not in the model"),
    "a mask without a weight": (add("parametrizations.0.mask"), "not in the model"),
    "factors whose product is infinite": (
        lambda s, _: s.update({f"{SECOND}original{i}": torch.full((4, 4), 1e30) for i in (0, 1)}),
        "product",
    ),
    "a stream of the norm's own in its bias": (
        lambda s, ties: (
            ties.pop(f"{NORM_BIAS}0.shared.stream"),
            s.update({f"{NORM_BIAS}0.shared.stream": torch.tensor([5, 6])}),
        ),
        "1.",
    ),
    "a value of the norm's own in its bias": (
        lambda s, ties: (
            ties.pop(f"{NORM_BIAS}0.shared.alpha"),
            s.update({f"{NORM_BIAS}0.shared.alpha": torch.tensor(0.25)}),
        ),
        "1.",
    ),
    "two names of one tensor in wrappers": (add("_orig_mod.0.bias", torch.ones(4)), "another key"),
    "no tensors": (lambda s, ties: (s.clear(), ties.clear()), "is missing"),
    "tied to nothing": (lambda _, ties: ties.update(x="nowhere"), "ties 'x' to 'nowhere'"),
    "tied to itself": (lambda _, ties: ties.update(x="x"), "ties 'x' to 'x'"),
    "tied in a circle": (lambda _, ties: ties.update(x="y", y="x"), "ties 'x' to 'y'"),
    "tied to a tied one": (lambda _, ties: ties.update(x=next(iter(ties))), "ties 'x'"),
    "tied to a number": (lambda _, ties: ties.update(x=1), "ties 'x' to 1"),
    "tied to none": (lambda _, ties: ties.update(x=None), "ties 'x' to None"),
    "tied to a list": (lambda _, ties: ties.update(x=["0.bias"]), "ties 'x'"),
    "tied to a glob": (lambda _, ties: ties.update(x="0.*"), "ties 'x' to '0.*'"),
    "there and tied": (lambda _, ties: ties.update({"0.bias": "3.bias"}), "and ties it"),
    "an unknown name tied": (lambda _, ties: ties.update(x="0.bias"), "'x', which is not in"),
}
CASES = {name: (change, part) for name, change, part in cases()} | STRUCTURES
ALIASES = [
    "",
    "{",
    "[]",
    "[1]",
    "3",
    "null",
    "NaN",
    '"0.bias"',
    '{"x": "0.bias", "x": "0.bias"}',
    *("[" * depth + "]" * depth for depth in (100, 900, 5_000, 100_000)),
    '{"x": ' * 100_000,
]
