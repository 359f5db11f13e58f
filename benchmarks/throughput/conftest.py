"""Options of the suite, and the fixture that times two things in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles
from typing import Any

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("throughput")
    group.addoption("--quick", action="store_true", help="smallest sizes only, few rounds")
    group.addoption("--device", default="cpu", help="cpu or cuda")
    group.addoption("--threads", type=int, default=1, help="threads of one operation")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        for item in items:
            if item.get_closest_marker("large"):
                item.add_marker(pytest.mark.skip(reason="left out of --quick"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "large: takes long or much memory; left out of --quick")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of the run, skipping where it is not there."""
    wanted = torch.device(request.config.getoption("--device"))
    if wanted.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return wanted


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--threads"))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether only a sign of life is wanted."""
    return bool(request.config.getoption("--quick"))


Timer = Callable[..., Any]


@pytest.fixture
def in_turns(benchmark: Any, device: torch.device, quick: bool) -> Timer:
    """Times `contender` and `reference` in turns and notes the median ratio of the rounds.

    The reference runs, timed by us, in the setup of each round of the contender, so that both meet
    the same neighbours on the machine. One thread on a CPU is timed by the time that the processor
    spent on it, which other processes do not add to; with `waits`, for work that other processes
    share, and everywhere else, by the time that passed. `prepare_contender` and
    `prepare_reference` run untimed before each call and may return the argument that is handed
    over.
    """

    def measure(
        contender: Callable[..., Any],
        reference: Callable[..., Any],
        *,
        what: str,
        against: str,
        rounds: int = 15,
        prepare_contender: Callable[[], Any] | None = None,
        prepare_reference: Callable[[], Any] | None = None,
        target: float | None = None,
        waits: bool = False,
        **extra: Any,
    ) -> Any:
        rounds = 2 if quick else rounds
        alone = device.type == "cpu" and torch.get_num_threads() == 1 and not waits
        clock = time.process_time if alone else time.perf_counter
        times: dict[bool, list[float]] = {True: [], False: []}

        def timed(ours: bool, function: Callable[..., Any], *arguments: Any) -> Any:
            start = clock()
            result = function(*arguments)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[ours].append(clock() - start)
            return result

        def prepared(prepare: Callable[[], Any] | None) -> tuple[Any, ...]:
            argument = None if prepare is None else prepare()
            return () if argument is None else (argument,)

        def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
            timed(False, reference, *prepared(prepare_reference))
            return (True, contender, *prepared(prepare_contender)), {}

        result = benchmark.pedantic(timed, setup=setup, rounds=rounds, warmup_rounds=1)
        if benchmark.stats is None:  # --benchmark-disable
            return result
        pairs = zip(times[True][-rounds:], times[False][-rounds:], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        benchmark.extra_info.update(
            what=what,
            against=against,
            ratio=median(ratios),
            ratio_quartiles=[low, high],
            target=target,
            clock="processor time" if alone else "time",
            device=str(device),
            threads=torch.get_num_threads(),
            load=os.getloadavg()[0],
            **extra,
        )
        return result

    return measure
