"""`python -m benchmarks PAPER [options]`: run a paper's experiment, or report on results.

`polarity-bench PAPER [options]` does the same where the package is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .harness.home import IN_CHECKOUT, PROGRAM
from .harness.results import remember_command

# Each word of the command line: the module whose `main` takes its options, and their class.
COMMANDS = {
    "fragility": (".papers.signs.command", "FragilityOptions"),
    "zero-crossing": (".papers.signs.command", "ZeroCrossingOptions"),
    "untrained": (".papers.signs.untrained.command", "UntrainedOptions"),
    "winning-sign": (".papers.winning_sign.command", "WinningSignOptions"),
    "sign-in": (".papers.sign_in.command", "SignInOptions"),
    "sign-in-theory": (".papers.sign_in_theory.command", "TheoryOptions"),
    "dense-to-sparse": (".papers.sign_in.dense_to_sparse.command", "DenseToSparseOptions"),
    "layerwise": (".papers.sign_in.layerwise.command", "LayerwiseOptions"),
    "survivors": (".survivors.command", "SurvivorOptions"),
    "zoo": (".zoo", "ZooOptions"),
    "throughput": (".throughput.command", "ThroughputOptions"),
    "report": (".report", "ReportOptions"),
    "pack": (".pack", "PackOptions"),
}
_DESCRIPTION = "Reproduce the experiments of the sign papers with polarity."
_TIMINGS = (
    "timings need a checkout of the repository: clone it and run `python -m benchmarks throughput`"
)
if not IN_CHECKOUT:
    # The suite is one of pytest's, and a wheel holds no tests.
    del COMMANDS["throughput"]
    _DESCRIPTION += f" Not among them: {_TIMINGS}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the command and return the exit code."""
    args = _spelled(list(sys.argv[1:] if arguments is None else arguments))
    if args[:1] == ["throughput"] and not IN_CHECKOUT:
        print(f"error: {_TIMINGS}", file=sys.stderr)
        return 1
    try:
        return _perform(args)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == __package__:
            raise
        print(f'error: {error}: pip install "torch-polarity[bench]"', file=sys.stderr)
        return 1


def _perform(args: list[str]) -> int:
    import tyro  # not before here: where it is not installed, `main` says how to install it

    # One command does not wait for what another one imports.
    wanted = args[:1] if args and args[0] in COMMANDS else list(COMMANDS)
    modules = {name: import_module(COMMANDS[name][0], __package__) for name in wanted}
    options: Any = tyro.extras.subcommand_cli_from_dict(
        {name: getattr(module, COMMANDS[name][1]) for name, module in modules.items()},
        prog=PROGRAM,
        description=_DESCRIPTION,
        args=args,
    )
    run = next(
        module.main
        for name, module in modules.items()
        if type(options) is getattr(module, COMMANDS[name][1])
    )
    remember_command(args)
    code: int = run(options)
    return code


def _spelled(args: list[str]) -> list[str]:
    """Accept a paper spelled as a module or as a command, and parts of a paper as its words.

    They are `sign_in theory`, `sign_in dense-to-sparse`, `sign_in layerwise` and `zero_crossing
    untrained`.
    """
    if args and args[0].replace("_", "-") in COMMANDS:
        args[0] = args[0].replace("_", "-")
    if args[:2] == ["sign-in", "theory"]:
        args[:2] = ["sign-in-theory"]
    if args[:1] == ["sign-in"] and args[1:2] in (["dense-to-sparse"], ["dense_to_sparse"]):
        args[:2] = ["dense-to-sparse"]
    if args[:2] == ["zero-crossing", "untrained"]:
        args[:2] = ["untrained"]
    if args[:2] == ["sign-in", "layerwise"]:
        args[:2] = ["layerwise"]
    return args


if __name__ == "__main__":
    sys.exit(main())
