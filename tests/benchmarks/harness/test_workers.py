"""Work in processes: who sits on which cores, and what becomes of failures."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.harness import workers
from benchmarks.harness.workers import perform, plan, split

ROOT = Path(__file__).parents[3]
# Of the processes that the tests start; works with a bare checkout too.
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "src")])
pins = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores to pin to",
)


def where(item):
    """Long enough that every worker gets one item."""
    time.sleep(0.5)
    if item == "fail":
        raise RuntimeError("out of luck")
    torch.rand(300, 300) @ torch.rand(300, 300)
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    sets = {tuple(sorted(os.sched_getaffinity(task))) for task in tasks}
    denormal = float(torch.full((), 1e-39) * 0.5)
    return os.getpid(), sets, torch.get_num_threads(), denormal


@pytest.mark.parametrize("cores", [1, 2, 5, 8, 64])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shares_are_disjoint_even_and_everything(cores, parts):
    numbers = [3 * core + 1 for core in range(cores)]
    shares = split(numbers, parts)
    assert len(shares) == parts
    assert [core for share in shares for core in share] == numbers
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def allowed(monkeypatch, *cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cores), raising=False)
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda: len(cores))


def test_a_plan_pins_where_every_worker_gets_a_core(monkeypatch):
    allowed(monkeypatch, 4, 5, 6, 8, 9)
    assert plan(2).shares == ((4, 5, 6), (8, 9))
    # Results depend on the number of threads: it is the same for all workers.
    assert plan(2).threads == 2
    assert plan(5).shares == ((4,), (5,), (6,), (8,), (9,))
    assert plan(2, threads=1).threads == 1


def test_more_workers_than_cores_are_left_to_the_system(monkeypatch):
    allowed(monkeypatch, 4, 5)
    crowded = plan(3)
    # Nobody is pinned, so no core has two workers while another has one all the time.
    assert crowded.shares == ()
    assert crowded.allowed == (4, 5)
    assert crowded.threads == 1


def test_one_worker_is_this_process_and_stays_where_it_is(monkeypatch):
    allowed(monkeypatch, 0, 1, 2)
    assert plan(1).shares == ()
    assert plan(1).threads == 3


@pins
def test_two_workers_keep_to_disjoint_shares_with_all_their_threads():
    mine = os.sched_getaffinity(0)
    ends = list(perform(where, range(6), jobs=2, threads=1))
    assert sorted(end.item for end in ends) == list(range(6))
    assert all(end.failure is None for end in ends)
    by_worker = {}
    for pid, sets, threads, denormal in (end.value for end in ends):
        assert threads == 1
        assert denormal == 0
        assert len(sets) == 1
        by_worker.setdefault(pid, set()).update(sets)
    assert len(by_worker) == 2
    (first,), (second,) = by_worker.values()
    assert not set(first) & set(second)
    assert set(first) | set(second) <= mine
    assert os.sched_getaffinity(0) == mine


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_is_an_end_and_leaves_the_others_alone(jobs):
    ends = {end.item: end for end in perform(where, ["a", "fail", "b"], jobs=jobs, threads=1)}
    assert set(ends) == {"a", "fail", "b"}
    assert ends["a"].failure is None
    assert ends["b"].value is not None
    assert "out of luck" in ends["fail"].failure
    assert ends["fail"].value is None


def identity(item):
    return item


def test_it_works_where_the_system_cannot_pin(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    nobody = plan(2)
    assert nobody.shares == nobody.allowed == ()
    assert nobody.threads >= 1
    # What a worker would do there.
    workers._take_seat.cache_clear()
    workers._take_seat(nobody, "no such file")
    ends = perform(identity, range(3), jobs=2, threads=1)
    assert sorted(end.value for end in ends) == [0, 1, 2]


def test_one_job_puts_the_threads_back():
    before = torch.get_num_threads()
    ends = perform(lambda _: torch.get_num_threads(), [0], threads=before + 1)
    assert [end.value for end in ends] == [before + 1]
    assert torch.get_num_threads() == before


def test_a_seat_is_free_again_when_its_worker_has_died(tmp_path):
    seats = tmp_path / "seats"
    seats.touch()
    hold = (
        "import sys, pathlib; from benchmarks.harness import workers; "
        f"print(workers._free_seat(2, pathlib.Path({str(seats)!r})), flush=True); "
        "sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

    def start():
        return subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, **pipes)

    first, second = start(), start()
    taken = {int(first.stdout.readline()), int(second.stdout.readline())}
    assert taken == {0, 1}
    first.kill()
    first.wait()
    third = start()
    assert int(third.stdout.readline()) in taken
    for process in (second, third):
        process.communicate("")


@pins
def test_the_next_pool_makes_its_own_plan():
    mine = tuple(sorted(os.sched_getaffinity(0)))
    list(perform(where, range(2), jobs=2, threads=1))
    crowded = list(perform(where, range(len(mine) + 1), jobs=len(mine) + 1, threads=1))
    assert all(end.value[1] == {mine} for end in crowded)
    again = list(perform(where, range(4), jobs=2, threads=1))
    assert all(end.value[1] != {mine} for end in again)


def perish(item):
    os._exit(3)


def test_a_killed_worker_is_told():
    ends = list(perform(perish, range(2), jobs=2, threads=1))
    assert ends
    assert ends[-1].item is None
    assert "Worker" in ends[-1].failure


SWEEP = """
import os, pathlib, sys, time
from benchmarks.harness.workers import perform

def work(item):
    pathlib.Path(sys.argv[1], str(os.getpid())).touch()  # "I am at work", says the worker itself
    time.sleep(600)

list(perform(work, range(2), jobs=2, threads=1))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_stop_when_their_sweep_is_killed(tmp_path):
    script, told = tmp_path / "sweep.py", tmp_path / "told"
    script.write_text(SWEEP)
    told.mkdir()
    command = [sys.executable, str(script), str(told)]
    sweep = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": PATHS})
    try:
        wait_until(lambda: len(list(told.iterdir())) == 2)
    finally:
        sweep.kill()
        sweep.wait()
    workers_ = [path.name for path in told.iterdir()]
    wait_until(lambda: not any(Path("/proc", worker).exists() for worker in workers_))


def test_a_worker_that_gets_its_work_after_its_sweep_was_killed_does_nothing(tmp_path):
    """Its parent is another process by then, whichever that is."""
    late = (
        "import os, pathlib; from benchmarks.harness import workers; "
        f"touch = pathlib.Path({str(tmp_path / 'worked')!r}).touch; "
        "plan = workers.plan(1); "
        "workers._in_worker(lambda _: touch(), 0, plan, pathlib.Path('none'), os.getppid() + {})"
    )
    for offset, code, worked in ((1, 1, False), (0, 0, True)):
        command = [sys.executable, "-c", late.replace("{}", str(offset))]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": PATHS})
        assert ended.returncode == code
        assert (tmp_path / "worked").exists() is worked


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
