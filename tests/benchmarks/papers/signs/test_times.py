"""The sentence on how long a run on MNIST takes, next to the plan's estimate."""

from benchmarks.papers.signs.times import PLANNED, run_times

CONFIG = {"dataset": "mnist", "arch": "fc", "rounds": 10, "epochs": 10, "resolution": None}
DATA = {"train": 54_000, "held_out": 6000, "train_available": 60_000}
CPU = {"device": "cpu", "cpu": "abacus", "threads": 1}
GPU = {"device": "NVIDIA H100", "cpu": "abacus", "threads": 1}


def result(seconds, machine=CPU, command="python -m benchmarks fragility --jobs 2", **changes):
    return {
        "config": {**CONFIG, **changes}, "dataset": DATA, "seconds": seconds, "machine": machine,
        "command": command,
    }  # fmt: skip


def test_times_on_a_core_stand_next_to_the_plan():
    assert PLANNED == 210
    assert run_times([result(200.0), result(230.0), result(206.0)]) == [
        "**Time of a run:** 206 s in the median of 3 runs (200 to 230 s), at most 206 s of a core "
        "each, on one thread of abacus, up to 2 at once; planned were 210 s of one core (issue 16)."
    ]


def test_threads_count_as_cores():
    (said,) = run_times([result(100.0, {**CPU, "threads": 4}, "python -m benchmarks fragility")])
    assert "100 s, at most 400 s of a core each, on 4 threads of abacus, one at a time" in said


def test_a_gpu_is_named_and_its_time_shared_among_the_runs_at_once():
    graphs = {**result(60.0, GPU, "x --jobs=8"), "execution": {"graphs": True}}
    (said,) = run_times([graphs])
    assert "60 s, 7.5 s of the device for each, on NVIDIA H100, steps replayed as CUDA" in said
    assert "up to 8 at once" in said


def test_what_is_not_recorded_is_not_made_up():
    (said,) = run_times([result(60.0, GPU, None)])
    assert "60 s on NVIDIA H100, how many ran at once is not recorded" in said
    assert "of the device" not in said


def test_every_way_of_running_has_its_sentence():
    assert len(run_times([result(200.0), result(60.0, GPU), result(210.0)])) == 2


def test_runs_of_another_size_are_not_compared_with_the_plan():
    other = [
        result(1.0, epochs=3),
        result(1.0, dataset="digits"),
        result(1.0, resolution=14),
        {**result(1.0), "dataset": {**DATA, "train": 1000}},
    ]
    assert run_times(other) == []
