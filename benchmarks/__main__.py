"""`python -m benchmarks PAPER [options]`: run a paper's experiment, or report on results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tyro

from benchmarks.harness.results import remember_command

# Each word of the command line: the module whose `main` takes its options, and their class.
COMMANDS = {
    "fragility": ("benchmarks.papers.signs.command", "FragilityOptions"),
    "zero-crossing": ("benchmarks.papers.signs.command", "ZeroCrossingOptions"),
    "winning-sign": ("benchmarks.papers.winning_sign.command", "WinningSignOptions"),
    "sign-in": ("benchmarks.papers.sign_in.command", "SignInOptions"),
    "sign-in-theory": ("benchmarks.papers.sign_in_theory.command", "TheoryOptions"),
    "dense-to-sparse": (
        "benchmarks.papers.sign_in.dense_to_sparse.command",
        "DenseToSparseOptions",
    ),
    "survivors": ("benchmarks.survivors.command", "SurvivorOptions"),
    "zoo": ("benchmarks.zoo", "ZooOptions"),
    "throughput": ("benchmarks.throughput.command", "ThroughputOptions"),
    "report": ("benchmarks.report", "ReportOptions"),
    "pack": ("benchmarks.pack", "PackOptions"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the command and return the exit code."""
    args = _spelled(list(sys.argv[1:] if arguments is None else arguments))
    # One command does not wait for what another one imports.
    wanted = args[:1] if args and args[0] in COMMANDS else list(COMMANDS)
    modules = {name: import_module(COMMANDS[name][0]) for name in wanted}
    options: Any = tyro.extras.subcommand_cli_from_dict(
        {name: getattr(module, COMMANDS[name][1]) for name, module in modules.items()},
        prog="python -m benchmarks",
        description="Reproduce the experiments of the sign papers with polarity.",
        args=args,
    )
    run = next(
        module.main
        for name, module in modules.items()
        if type(options) is getattr(module, COMMANDS[name][1])
    )
    remember_command(args)
    try:
        code: int = run(options)
        return code
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 130


def _spelled(args: list[str]) -> list[str]:
    """Accept a paper spelled as a module or as a command, and parts of a paper as its words.

    They are `sign_in theory` and `sign_in dense-to-sparse`.
    """
    if args and args[0].replace("_", "-") in COMMANDS:
        args[0] = args[0].replace("_", "-")
    if args[:2] == ["sign-in", "theory"]:
        args[:2] = ["sign-in-theory"]
    if args[:1] == ["sign-in"] and args[1:2] in (["dense-to-sparse"], ["dense_to_sparse"]):
        args[:2] = ["dense-to-sparse"]
    return args


if __name__ == "__main__":
    sys.exit(main())
