"""What ``progress=`` shows of each long call, and that nothing else depends on it."""

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import polarity as pol
from polarity._progress import counting, watching
from tests.helpers import sparse_wins
from tests.laws.refusals import fingerprint
from tests.models import seeded

BATCHES = [(torch.ones(4, 6) * scale, torch.zeros(4, 3)) for scale in (1.0, 2.0, 3.0)]


class Watched:
    """Wraps an iterable as tqdm does, and remembers what it was given and how it ended."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.given: Iterable[Any] = ()
        self.ended = 0

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        self.given = items
        try:
            for item in items:
                self.items.append(item)
                yield item
        finally:
            self.ended += 1


def network() -> nn.Sequential:
    layers = [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)]
    return seeded(nn.Sequential(*layers))


def pruned() -> nn.Module:
    model = network()
    pol.imp_prune(model, density=0.2)
    return model


def error(model: nn.Module) -> float:
    return float(mse_loss(model(BATCHES[0][0]), BATCHES[0][1]))


def trained(model: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * seed)


def synflow(progress: Any) -> Any:
    return pol.scores.synflow(pruned(), torch.ones(1, 6), density=0.1, steps=4, progress=progress)


def sharpness(progress: Any) -> Any:
    return pol.sharpness(pruned(), mse_loss, BATCHES, progress=progress)


def error_barrier(progress: Any) -> Any:
    a, b = network(), seeded(network(), 3)
    path = pol.error_barrier(a, a, b, error, points=3, batches=BATCHES, progress=progress)
    return path.curve


def sgd_noise_stability(progress: Any) -> Any:
    return pol.sgd_noise_stability(
        network(), trained, error, points=4, bn="keep", progress=progress
    ).curve


def init_noise_stability(progress: Any) -> Any:
    return pol.init_noise_stability(
        lambda seed: seeded(network(), seed), trained, error, points=2, bn="keep", progress=progress
    ).curve


def recalibrate_batch_norm(progress: Any) -> Any:
    model = network()
    assert pol.recalibrate_batch_norm(model, BATCHES, progress=progress) == ("1",)
    return dict(model.state_dict())


def compress(progress: Any) -> Any:
    model = pol.merge(pruned())
    report = pol.deploy.compress(model, BATCHES[0][0], measure=sparse_wins, progress=progress)
    return report.to_dict(), dict(model.state_dict())


def compact(progress: Any) -> Any:
    model = pruned()
    report = pol.compact(model, BATCHES[0][0], measure=sparse_wins, progress=progress)
    return report.to_dict(), dict(model.state_dict())


def find_decay(progress: Any) -> Any:
    def run(decay: float) -> float:
        return 1 / (1 + 1000 * decay)

    return pol.dense_to_sparse.find_decay(
        run, density=0.5, tolerance=0.05, progress=progress
    ).to_dict()


# Each call, how long what it wraps is (None: not known beforehand), and how much of it is done.
CALLS: dict[str, tuple[Callable[[Any], Any], int | None, int]] = {
    "scores.synflow": (synflow, 4, 4),
    "sharpness": (sharpness, None, 0),
    "error_barrier": (error_barrier, 3, 3),
    "sgd_noise_stability": (sgd_noise_stability, 4, 4),
    "init_noise_stability": (init_noise_stability, 2, 2),
    "recalibrate_batch_norm": (recalibrate_batch_norm, 3, 3),
    "deploy.compress": (compress, 2, 2),
    "compact": (compact, 2, 2),
    "dense_to_sparse.find_decay": (find_decay, 6, 4),
}
EVERY = pytest.mark.parametrize("name", CALLS)


def described(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {key: described(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [described(each) for each in thing]
    return fingerprint(thing) if isinstance(thing, Tensor) else repr(thing)


@EVERY
def test_a_function_sees_every_step_and_neither_result_nor_random_state_changes(name: str) -> None:
    call, length, done = CALLS[name]
    left = []
    watched = Watched()
    for progress in (False, watched):
        torch.manual_seed(5)
        left.append((described(call(progress)), torch.get_rng_state().tolist()))
    assert left[0] == left[1]
    assert watched.ended == 1
    if length is None:
        assert len(watched.items) > 2
    else:
        assert len(watched.given) == length  # type: ignore[arg-type]
        assert len(watched.items) == done


@EVERY
def test_true_takes_the_bar_of_tqdm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, module = Watched(), ModuleType("tqdm")
    module.tqdm = watched  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm", module)
    CALLS[name][0](True)
    assert watched.ended == 1
    assert watched.items


@EVERY
def test_without_tqdm_true_says_what_to_install_and_nothing_has_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"progress=True needs tqdm.*pip install tqdm"):
        CALLS[name][0](True)
    CALLS[name][0](False)


@EVERY
def test_what_is_no_iterable_is_refused_by_name(name: str) -> None:
    with pytest.raises(TypeError, match="progress returned a NoneType, expected an iterable"):
        CALLS[name][0](lambda items: None)


def test_tqdm_itself_draws_a_bar_and_closes_it(capfd: pytest.CaptureFixture[str]) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    for progress in (True, np.True_, tqdm):
        error_barrier(progress)
        assert "3/3" in capfd.readouterr().err
    sharpness(True)
    shown = capfd.readouterr().err
    assert "it" in shown
    assert shown.endswith("\n")
    assert not list(tqdm._instances)


def test_an_error_of_the_wrapper_surfaces_and_the_model_is_as_it_was() -> None:
    def broken(items: Iterable[Any]) -> Iterator[Any]:
        yield from islice(items, 1)
        raise KeyboardInterrupt

    model = network()
    before = fingerprint(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        pol.recalibrate_batch_norm(model, BATCHES, progress=broken)
    assert fingerprint(model.state_dict()) == before
    model = pruned()
    before = fingerprint(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        pol.compact(model, BATCHES[0][0], measure=sparse_wins, progress=broken)
    assert fingerprint(model.state_dict()) == before
    plain = pol.merge(pruned())
    before = fingerprint(plain.state_dict())
    with pytest.raises(KeyboardInterrupt):
        pol.deploy.compress(plain, BATCHES[0][0], measure=sparse_wins, progress=broken)
    assert fingerprint(plain.state_dict()) == before


def test_a_count_ends_with_the_block_whatever_wraps_it() -> None:
    watched = Watched()
    with counting(watched) as count_one:
        count_one()
        count_one()
        assert watched.ended == 0
    assert (watched.items, watched.ended) == ([0, 1], 1)
    with counting(watching(lambda items: map(int, items))) as count_one:
        count_one()
    with counting(watching(False)) as count_one:
        count_one()


@pytest.mark.parametrize("progress", [None, 1, "yes", [], 0.5], ids=repr)
def test_anything_else_is_refused(progress: Any) -> None:
    with pytest.raises(TypeError, match=r"progress.*expected True, False, or a function"):
        watching(progress)
