"""What `import polarity` brings, and what it must not."""

import inspect
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

import polarity

EXTRAS = (
    "torchvision",
    "matplotlib",
    "sklearn",
    "safetensors",
    "tqdm",
    "pandas",
    "tyro",
    "joblib",
    "PIL",
    "lightning",
    "transformers",
    "accelerate",
    "benchmarks",
    "polarity_bench",
)


def run_python(code: str, folder, **surroundings: str) -> str:
    """Run code in a fresh interpreter far from the repository; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | surroundings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STATE = (
    "[torch.get_rng_state().tolist(), str(torch.get_default_dtype()), torch.get_num_threads(),"
    " torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()]"
)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What the import of polarity added to the modules of torch, and torch's state around it."""
    code = (
        f"import json, sys, torch; before, state = set(sys.modules), {STATE}; import polarity;"
        f"print(json.dumps([sorted(set(sys.modules) - before), state, {STATE}]))"
    )
    return json.loads(run_python(code, tmp_path_factory.mktemp("imported")))


def test_importing_polarity_imports_none_of_its_extras(imported):
    # torch itself takes tqdm where it finds it
    assert "polarity" in imported[0]
    assert set(imported[0]).isdisjoint(EXTRAS)


def test_importing_polarity_imports_no_compiler(imported):
    assert set(imported[0]).isdisjoint({"torch._dynamo", "torch._inductor", "sympy", "triton"})


def test_importing_polarity_takes_less_than_three_tenths_of_a_second_beyond_torch(tmp_path):
    # The first of them compiles polarity to bytecode; torch has been, when it was installed.
    code = (
        f"import sys, time, torch; sys.pycache_prefix = {str(tmp_path / 'compiled')!r};"
        "start = time.process_time(); import polarity; print(time.process_time() - start)"
    )
    # Seconds of the CPU, because others may use it too.
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}
    fastest = float("inf")
    for _ in range(6):
        fastest = min(fastest, float(run_python(code, tmp_path, **compiled)))
        if fastest < 0.3:
            break
    assert fastest < 0.3


def test_the_package_works_where_no_extra_is_installed(tmp_path):
    code = f"""
import sys
for name in {EXTRAS}:
    sys.modules[name] = None  # importing it fails
import torch
import polarity as pol
net = torch.nn.Linear(4, 4)
start = pol.RewindPoint.capture(net)
print(pol.imp_prune(net, 0.5).survivors, pol.reinit_signs(net, init=start).survivors)
for call in (pol.save, pol.load):
    try:
        call(net, "ticket.safetensors")
    except ImportError as error:
        print(error)
"""
    counts, *errors = run_python(code, tmp_path).splitlines()
    assert counts == "8 8"
    assert len(errors) == 2
    assert [error for error in errors if "pip install safetensors" not in error] == []
    assert list(tmp_path.iterdir()) == []


def test_importing_polarity_leaves_the_global_state_of_torch_alone(imported):
    _, before, after = imported
    assert before == after


def test_every_public_name_exists_once_and_in_order():
    assert [name for name in polarity.__all__ if not hasattr(polarity, name)] == []
    assert polarity.__all__ == sorted(set(polarity.__all__))
    assert polarity.__version__


@pytest.mark.parametrize("name", polarity.__all__)
def test_every_public_name_is_documented_with_an_example(name):
    thing = getattr(polarity, name)
    named = [thing]
    if isinstance(thing, ModuleType):
        named = [getattr(thing, each) for each in thing.__all__]
        named = [each for each in named if inspect.isfunction(each)]
        assert inspect.getdoc(thing)
    without = [each.__name__ for each in named if ">>>" not in (each.__doc__ or "")]
    assert without == []


def test_every_argument_of_a_public_function_is_documented():
    functions = [getattr(polarity, name) for name in polarity.__all__]
    missing = [
        f"{function.__name__}({parameter})"
        for function in functions
        if inspect.isfunction(function) and "Args:" in function.__doc__
        for parameter in inspect.signature(function).parameters
        if f"    {parameter}: " not in function.__doc__
    ]
    assert missing == []
