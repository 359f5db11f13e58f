"""What the experiments' command lines have in common: options, refusals and closing lines.

Nothing here imports torch before a run, so `--help` answers at once.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .committed import found_result, repeat_committed
from .instructions import limit_to_avx2
from .results import Result, Settings
from .settings import same_named

if TYPE_CHECKING:
    from ..pages.section import Section
    from .place import Place
    from .sweep import Outcome


@dataclass(frozen=True)
class RunOptions:
    """Where runs take place, and what is shown of them."""

    # Where to compute; auto takes a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"

    # Run forward passes in bfloat16. The papers do not say; off.
    bf16: bool = False

    # Train through torch.compile; on a GPU, forward and backward are then captured as CUDA graphs,
    # which is meant for small networks. Compiling takes a while for every network. It changes the
    # last bits of a result, nothing else.
    compile: bool = False

    # Folder with MNIST/raw, cifar10, cifar100, …. Default: $POLARITY_DATA, else ./data.
    data_root: Path | None = None

    # Let torchvision fetch data that is missing.
    download: bool = False

    # Folder of result files, saved states and plots. Finished runs found there are skipped;
    # interrupted ones go on at their last round, or begin again where they have no rounds.
    out: Path = Path("runs")

    # Perform runs again whose results are committed in benchmarks/results, to compare them; without
    # it they are skipped, as those found in --out are.
    repeat: bool = False

    # Processes that work at once, each on its own share of the cores; on a cluster, runs at once.
    jobs: int = 1

    # Who performs the runs: processes of this machine (loky), or workers of a Dask or Ray cluster,
    # which need the same versions and read --data-root themselves. Results come back to --out: see
    # docs/sweeps.md. Ray is untested.
    backend: Literal["loky", "dask", "ray"] = "loky"

    # Address of the cluster: tcp://HOST:8786 for Dask; ray://HOST:10001 or auto for Ray.
    scheduler: str | None = None

    # Threads of one run. Default: 1 where layers are too small to share (fc, resnet8 to resnet32,
    # all of winning_sign) and on a cluster, else the cores divided by the jobs. It changes the last
    # bits of a result, nothing else.
    threads: int | None = None

    # Compute with AVX2's instructions alone, so that processors with and without AVX-512 give the
    # same bits.
    avx2: bool = False

    # Show no progress.
    quiet: bool = False

    # Draw the figures into the out folder.
    plot: bool = True

    def place(self, **more: Any) -> Place:
        """Return the place of the runs; `more` are fields that one experiment alone has."""
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .place import Place

        return Place(**same_named(self, Place), **more)

    def chosen_device(self) -> str:
        """Return the device that `--device` stands for on this machine.

        Raises:
            ValueError: a GPU was asked for and there is none.
        """
        import torch

        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise ValueError("--device cuda, but torch sees no GPU")
        return "cuda" if available and self.device != "cpu" else "cpu"


def too_small(options: object, names: Sequence[str]) -> list[str]:
    """Name the options that are given and less than 1 where they count something."""
    given = {name: getattr(options, name) for name in names}
    return [
        f"--{name.replace('_', '-')} must be at least 1, not {value}"
        for name, values in given.items()
        for value in (values if isinstance(values, tuple) else (values,))
        if value is not None and value < 1
    ]


def no_graphs(where: RunOptions, graphs: bool) -> list[str]:
    """Say why training steps cannot be captured as CUDA graphs, if that is asked for."""
    if not graphs:
        return []
    if where.compile:
        return ["--graphs captures the whole step, --compile its passes: give one of the two"]
    return [] if where.chosen_device() == "cuda" else ["--graphs needs a GPU"]


def conduct(
    where: RunOptions,
    problems: Sequence[str],
    sweep: Callable[[], tuple[Sequence[Settings], Sequence[Outcome]]],
    describe: Callable[[Sequence[Result], Path | None], Section],
) -> int:
    """Refuse what cannot work, perform a sweep, and print its tables, plots and failures.

    Args:
        where: where its runs take place, and with which instructions.
        problems: what is wrong with the options, one clause each.
        sweep: performs the runs; gives all that were asked for, and how those performed now ended.
        describe: makes tables of results, and figures where it gets a folder.

    Returns:
        0, or 1 where a run failed or the settings, the data or the folder were refused.
    """
    problems = [*problems, *too_small(where, ("jobs", "threads")), *no_cluster(where)]
    problems += unwritable("--out", where.out)
    if problems:
        return refuse("; ".join(problems))
    repeat_committed(where.repeat)
    try:
        if where.avx2:
            limit_to_avx2()
        configs, outcomes = sweep()
        found = [found_result(where.out, config) for config in configs]
        results = [result for result in found if result is not None]
    except (ValueError, FileNotFoundError) as error:
        return refuse(str(error))
    if results:
        section = describe(results, where.out if where.plot else None)
        print(section.text)
        for plot in section.plots:
            print(f"plot: {plot}")
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failed:
        print(f"\nFAILED {outcome.run_id}\n{outcome.failure}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(outcomes)} runs failed", file=sys.stderr)
    return 1 if failed else 0


def no_cluster(where: RunOptions) -> list[str]:
    """Name what is missing of the cluster that is asked for."""
    if where.repeat and where.backend != "loky":
        return ["--repeat is for --backend loky: workers of a cluster know committed results too"]
    if where.backend == "loky":
        return ["--scheduler is for --backend dask and ray"] if where.scheduler else []
    problems = []
    if where.scheduler is None:
        problems.append(f"--backend {where.backend} needs the address of its --scheduler")
    package = {"dask": "distributed", "ray": "ray"}[where.backend]
    if find_spec(package) is None:
        extra = f'pip install "torch-polarity[bench,{where.backend}]"'
        problems.append(f"--backend {where.backend} needs {package}: {extra}")
    return problems


def refuse(reason: str) -> int:
    """Tell in one line why nothing is done, and give the exit code."""
    print(f"error: {reason}", file=sys.stderr)
    return 1


def unwritable(option: str, out: Path) -> list[str]:
    """Try to write to a folder, before hours are spent on what goes there, and leave no trace."""
    missing = [each for each in (out, *out.absolute().parents) if not each.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir()
            made.append(folder)
        below = [out / name for name in ("checkpoints", "states") if (out / name).exists()]
        for folder in (out, *below):
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp"):
                pass
    except OSError as error:
        return [f"{option} {out}: not a folder that can be written to ({error})"]
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
    return []
