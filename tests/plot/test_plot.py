"""What holds for every figure: nothing of pyplot, no settings changed, any axes, one extra."""

import inspect
import subprocess
import sys
from collections.abc import Callable

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import polarity as pol
from polarity import plot
from polarity.analysis import FlipReport, FlipSeries, LayerFlips
from polarity.signs.report import LayerSigns, SignReport

SERIES = FlipSeries(tuple(FlipReport((LayerFlips("w", n, 10, 10),)) for n in (4, 1, 2)))
SIGNS = SignReport((LayerSigns("w", 30, 0.1, 0.4, 1.0, 1.0, 0),), "mask1")
FIGURES: dict[str, Callable[[Axes | None], Axes]] = {
    "flips": lambda ax: plot.flips(SERIES, ax=ax),
    "flips by label": lambda ax: plot.flips({"one": SERIES, "other": [SERIES, SERIES]}, ax=ax),
    "flip_stages": lambda ax: plot.flip_stages({"ours": {"warm-up → end": SERIES.steps[0]}}, ax=ax),
    "layer_flips": lambda ax: plot.layer_flips(SERIES.steps[0], ax=ax),
    "densities": lambda ax: plot.densities({"0.weight": 0.5, "1.weight": 0.1}, ax=ax),
    "sign_balance": lambda ax: plot.sign_balance(SIGNS, ax=ax),
    "barriers": lambda ax: plot.barriers(pol.ErrorBarrier((0.0, 0.5, 1.0), (1, 3, 2)), ax=ax),
    "accuracy": lambda ax: plot.accuracy({"a": {0.5: [91.0, 92.0], 0.1: 89.0}}, ax=ax),
    "accuracy at one": lambda ax: plot.accuracy({"a": {0.1: 1.0}, "b": {0.1: 2.0}}, ax=ax),
}
EVERY = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())


def run_python(code: str, folder) -> str:
    """Run code in a fresh interpreter far from the repository; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@EVERY
def test_without_ax_a_figure_is_made_that_can_be_written(draw, tmp_path):
    axes = draw(None)
    assert axes.figure.axes == [axes]
    axes.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 2000


@EVERY
def test_two_calls_give_the_same_picture(draw, tmp_path):
    for name in ("one.png", "two.png"):
        draw(None).figure.savefig(tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@EVERY
def test_given_axes_are_drawn_in_and_returned_without_a_legend(draw):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(right) is right
    assert right.has_data()
    assert not left.has_data()
    assert figure.legends == []
    assert right.get_legend() is None
    assert right.get_xlabel() or right.get_xticks().size
    assert right.get_ylabel()


@EVERY
def test_settings_of_matplotlib_are_as_before(draw):
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = dict(matplotlib.rcParams)
        draw(None)
        assert dict(matplotlib.rcParams) == before


@EVERY
def test_an_ax_of_another_type_is_an_error(draw):
    with pytest.raises(TypeError, match="ax is a Figure, expected a matplotlib Axes, or None"):
        draw(Figure())


def test_nothing_of_pyplot_is_used(tmp_path):
    code = (
        "import sys; from polarity import plot;"
        "axes = plot.accuracy({'a': {0.5: [91.0, 92.0], 0.1: 89.0}}, dense=93.0);"
        "axes.figure.savefig('figure.png'); print('matplotlib.pyplot' in sys.modules)"
    )
    assert run_python(code, tmp_path) == "False"


def test_importing_polarity_does_not_import_it(tmp_path):
    code = "import sys, polarity; print('polarity.plot' in sys.modules, hasattr(polarity, 'plot'))"
    assert run_python(code, tmp_path) == "False False"


@pytest.mark.parametrize("line", ["import polarity.plot", "from polarity import plot"])
def test_without_matplotlib_the_import_says_what_to_install(line, tmp_path):
    code = f"""
import sys
sys.modules["matplotlib"] = None  # importing it fails
try:
    {line}
except ImportError as error:
    print(error)
"""
    told = run_python(code, tmp_path)
    assert told.startswith("polarity.plot needs matplotlib (")
    assert told.endswith('): pip install "torch-polarity[plot]"')


def test_every_public_name_exists_once():
    assert [name for name in plot.__all__ if not hasattr(plot, name)] == []
    assert len(plot.__all__) == len(set(plot.__all__))


def test_every_public_function_has_an_example_and_documents_its_arguments():
    functions = [getattr(plot, name) for name in plot.__all__]
    functions = [each for each in functions if inspect.isfunction(each)]
    assert [each.__name__ for each in functions if ">>>" not in (each.__doc__ or "")] == []
    missing = [
        f"{each.__name__}({name})"
        for each in functions
        for name in inspect.signature(each).parameters
        if f"    {name}: " not in each.__doc__ and f"    **{name}: " not in each.__doc__
    ]
    assert missing == []
