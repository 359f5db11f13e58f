"""Laws for every public call: in inference mode, and under other default devices and dtypes."""

import inspect
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import polarity as pol
from tests.laws.public_calls import CALLS, Setting, described, network, sgd, tensors_of, train_step

# Values, reports and parametrizations, which other calls make, and what is not called on a model.
NOT_CALLS = {
    *("Delta", "Epsilon", "Phi", "ErrorBarrier", "FlipReport", "MaskedWeight", "NormInterp"),
    *("CompactReport", "SurvivorWeight", "Summary"),
    *("PruneReport", "SignInMW", "SignReport", "StepEnforcement", "scores.Score"),
    *("deploy.CompressReport", "deploy.LayerDecision", "deploy.SparseLinear"),
    *("dense_to_sparse.LayerUpdate", "dense_to_sparse.UpdateReport", "SoftThreshold"),
    *("dense_to_sparse.LayerThreshold", "dense_to_sparse.ThresholdReport", "StartReport"),
    # Bisects by the results of a function of the caller's, and makes no tensor.
    *("dense_to_sparse.find_decay", "dense_to_sparse.DecaySearch"),
    *("deploy.decompress", "deploy.restore", "deploy.time_in_turns"),
}


def public_names() -> Iterator[str]:
    for name in pol.__all__:
        value = getattr(pol, name)
        if isinstance(value, ModuleType):
            yield from (f"{name}.{each}" for each in value.__all__)
        else:
            yield name


def test_every_public_call_is_among_those_that_the_laws_try() -> None:
    tried = {name.split(" ")[0].rstrip(",") for name in CALLS}
    assert set(public_names()) - NOT_CALLS <= tried


@contextmanager
def default_device_meta() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def default_dtype(dtype: torch.dtype) -> Any:
    @contextmanager
    def mode() -> Iterator[None]:
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)

    return mode


MODES = {
    "inference mode": torch.inference_mode,
    "default device meta": default_device_meta,
    "default dtype bfloat16": default_dtype(torch.bfloat16),
    "default dtype float64": default_dtype(torch.float64),
}

# Another default dtype is as good as the other: by default one of them is tried.
EVERY_MODE = [
    pytest.param(mode, id=name, marks=pytest.mark.slow if "float64" in name else ())
    for name, mode in MODES.items()
]

# Functions of tensors alone return what PyTorch makes of these.
PURE = ("scores.magnitude", "scores.large", "scores.random")


# Calls that need what compact weights do not store, and say so.
NEED_DENSE_WEIGHTS = (
    "reinit_signs standard",
    "SignedMask in factors",
    "dense_to_sparse.RigL",
    "dense_to_sparse.SET",
    "dense_to_sparse.ACDC",
    "load_masks",
    "load_masks in factors",
    "SignedMask in factors",
    "SignTracker",
    "dense_to_sparse.threshold_weights",
    "dense_to_sparse.soft_mask",
    "dense_to_sparse.soft_density",
    "dense_to_sparse.weights_before_threshold",
    "dense_to_sparse.threshold_report",
    "dense_to_sparse.extract_soft_mask",
)


def after(name: str, mode: Any, *, compact: bool = False) -> tuple[list[Any], list[torch.Tensor]]:
    """Return all that a call in a mode leaves: results, models, and both after a training step."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), compact)
        torch.manual_seed(7)
        with mode():
            if compact and name in NEED_DENSE_WEIGHTS:
                with pytest.raises(ValueError, match=r"expand\(") as raised:
                    CALLS[name](setting)
                result = str(raised.value)
            else:
                result = CALLS[name](setting)
        left = [described(result), *map(described, setting.models())]
        left.append(described(torch.get_rng_state()))
        tensors = [*tensors_of(result), *tensors_of(setting.models())]
        for model in setting.models():
            torch.manual_seed(8)
            told = model is setting.model and not compact
            own = setting.optimizer if told else sgd(model)
            train_step(model.train(), own)
            left.append(described(model))
        tensors += tensors_of(list(setting.optimizer.state.values()))
    return left, tensors


@cache
def outside(name: str) -> list[Any]:
    return after(name, nullcontext)[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_on_compact_weights_gives_in_inference_mode_what_it_gives_elsewhere(
    name: str,
) -> None:
    left, tensors = after(name, torch.inference_mode, compact=True)
    assert left == after(name, nullcontext, compact=True)[0]
    assert name.startswith(PURE) or not any(each.is_inference() for each in tensors)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("mode", EVERY_MODE)
def test_a_call_gives_what_it_gives_elsewhere_and_training_goes_on(name: str, mode: Any) -> None:
    left, tensors = after(name, mode)
    assert left == outside(name)
    assert name.startswith(PURE) or not any(each.is_inference() for each in tensors)


ATTACHING = {
    "mask_weights": pol.mask_weights,
    "imp_prune": lambda model: pol.imp_prune(model, density=0.5),
    "sign_in": pol.sign_in,
    "load_masks": lambda model: pol.load_masks(model, {"0.weight": torch.ones(256, 300)}),
    "interpolate_norms": pol.interpolate_norms,
}


@pytest.mark.parametrize("attach", ATTACHING.values(), ids=ATTACHING.keys())
@pytest.mark.parametrize("inside", [True, False])
def test_a_model_that_was_made_in_inference_mode_is_refused_at_once(
    attach: Any, inside: bool
) -> None:
    with torch.inference_mode():
        model = network()
    before = described(model), repr(model)
    mode = torch.inference_mode() if inside else nullcontext()
    with mode, pytest.raises(ValueError, match=r"weight.* made under torch\.inference_mode\(\)"):
        attach(model)
    assert (described(model), repr(model)) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_of_another_dtype_is_pruned_under_another_default_device(
    dtype: torch.dtype,
) -> None:
    masks = []
    for mode in (nullcontext, default_device_meta):
        model = network().to(dtype)
        with mode():
            pol.imp_prune(model, density=0.3)
        masks.append(described(pol.masks(model)))
    assert masks[0] == masks[1]


@pytest.mark.parametrize("name", ["imp_prune", "load_masks", "reinitialize"])
def test_the_signature_and_documentation_are_those_of_the_function(name: str) -> None:
    call = getattr(pol, name)
    assert "model" in inspect.signature(call).parameters
    assert call.__doc__
    assert call.__name__ == name
