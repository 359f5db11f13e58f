"""The wheel: what it holds, and its command in an environment and a folder of its own.

It is built from the source distribution, as an index does where a wheel does not fit.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import polarity
from tests.packaging.texts import ROOT

pytest.importorskip("hatchling")
pytest.importorskip("tyro")

SMALLEST = (
    *("--dataset", "digits", "--rounds", "1", "--epochs", "1", "--train-size", "100"),
    *("--test-size", "50", "--strategies", "mask1", "--epsilon", "0", "0.5", "--no-plot"),
)


def call(*command, folder):
    """Run a command that must not see the checkout; return what it prints."""
    hidden = ("PYTHONPATH", "POLARITY_BENCHMARKS_COMMAND", "POLARITY_DATA")
    surroundings = {name: value for name, value in os.environ.items() if name not in hidden}
    surroundings |= {"COLUMNS": "120", "LOKY_MAX_CPU_COUNT": "1"}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=surroundings, capture_output=True, text=True
    )
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")

    def build(target, source):
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    build("sdist", ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    build("wheel", source)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of an environment with the wheel and, without copying them, our packages."""
    pytest.importorskip("pip")
    # Inside a repository of somebody else, as environments often are.
    folder = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    commit = ["git", *identity, "commit", "-q", "--allow-empty", "-m", "another project"]
    subprocess.run(commit, cwd=folder, check=True)
    scratch = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(scratch)], check=True)
    programs = scratch / ("Scripts" if os.name == "nt" else "bin")
    options = ("install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check")
    done = call(
        *(sys.executable, "-m", "pip", "--python", programs / "python", *options, wheel),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    # A line of a .pth file brings the packages of a folder. That folder's own .pth files, and with
    # them an editable installation of the checkout, stay unread.
    place = Path(call(programs / "python", "-c", _SITE, folder=folder).stdout.strip())
    (place / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


def names_below(folder, *left_out):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.relative_to(folder).parts[0] not in left_out
    }


def test_the_wheel_holds_the_library_and_the_experiments_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = f"torch_polarity-{polarity.__version__}.dist-info"
    expected = {f"polarity/{name}" for name in names_below(ROOT / "src" / "polarity")}
    experiments = names_below(ROOT / "benchmarks", "results", "throughput")
    expected |= {f"polarity_bench/{name}" for name in experiments}
    expected |= {
        f"{about}/{name}"
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }
    assert names - expected == set()
    assert expected - names == set()
    assert {"polarity/py.typed", "polarity_bench/pages/published_values.json"} <= names


def test_its_metadata_name_the_distribution_and_ask_for_three_packages(wheel):
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (each for each in packed.namelist() if each.endswith("/METADATA"))
        about = Parser().parsestr(packed.read(name).decode())
    assert about["Name"] == "torch-polarity"
    assert about["Version"] == polarity.__version__
    assert about["Description-Content-Type"] == "text/markdown"
    core = [each for each in about.get_all("Requires-Dist") if "extra ==" not in each]
    assert sorted(each.split(">")[0] for each in core) == ["numpy", "torch", "typing-extensions"]


def test_the_index_would_take_both_files(built):
    pytest.importorskip("twine")
    files = [*built.glob("*.whl"), *built.glob("*.tar.gz")]
    done = call(sys.executable, "-m", "twine", "check", "--strict", *files, folder=built)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_an_installed_package_is_not_that_of_the_checkout(installed, tmp_path):
    code = "import polarity, polarity_bench; print(polarity.__file__, polarity_bench.__file__)"
    paths = call(installed / "python", "-c", code, folder=tmp_path).stdout.split()
    assert len(paths) == 2
    assert [path for path in paths if not path.startswith(str(installed.parent))] == []
    code = "import benchmarks"
    assert "ModuleNotFoundError" in call(installed / "python", "-c", code, folder=tmp_path).stderr


def test_the_command_runs_and_resumes_an_experiment_in_any_folder(installed, tmp_path):
    sweep = (installed / "polarity-bench", "fragility", *SMALLEST, "--jobs", "2")
    done = call(*sweep, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| ε" in done.stdout
    assert "[2/2]" in done.stderr
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    assert len(runs) == 2
    for path in runs:
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["command"].startswith("polarity-bench fragility --dataset digits")
        # No commit holds an installed package, whatever repository is around it.
        assert result["git_commit"] is None
        assert result["versions"]["polarity"] == polarity.__version__
    again = call(*sweep, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    packed = call(
        sweep[0], "pack", "--results", "runs", "--out", "fragility.jsonl", folder=tmp_path
    )
    assert packed.returncode == 1
    assert "commit unknown" in packed.stderr
    report = call(sweep[0], "report", folder=tmp_path)
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "runs" / "report" / "fragility.md").read_text(encoding="utf-8")
    assert f"polarity {polarity.__version__}," in page
    assert "commit unknown" in page


def test_every_command_has_its_help_and_writes_nothing_into_the_package(installed, tmp_path):
    code = """
import sys
from polarity_bench.__main__ import COMMANDS, main
for name in [None, *COMMANDS]:
    print("##", name, flush=True)
    try:
        main([*filter(None, [name]), "--help"])
    except SystemExit as end:
        assert not end.code
"""
    done = call(installed / "python", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    whole, *each = done.stdout.split("## ")[1:]
    assert "timings need a checkout" in " ".join(whole.split())
    assert len(each) == 12
    assert [shown for shown in each if "usage: polarity-bench" not in shown] == []
    # No default folder is inside the environment.
    assert [shown.split()[0] for shown in each if str(installed.parent) in shown] == []
    assert "python -m benchmarks" not in "".join(each)
    assert list(tmp_path.iterdir()) == []


def test_timings_say_that_they_need_a_checkout(installed, tmp_path):
    done = call(installed / "polarity-bench", "throughput", "--quick", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: timings need a checkout")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["tyro", "joblib"])
def test_without_the_extra_the_command_says_which_to_install(installed, missing, tmp_path):
    code = f"""
import sys
sys.modules["{missing}"] = None  # importing it fails
from polarity_bench.__main__ import main
sys.exit(main(["fragility", *{SMALLEST}]))
"""
    done = call(installed / "python", "-c", code, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert 'pip install "torch-polarity[bench]"' in done.stderr
    assert done.stderr.count("\n") == 1
