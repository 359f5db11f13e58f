"""`python -m benchmarks PAPER [options]`: run a paper's experiment, or report on results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from benchmarks import report, zoo
from benchmarks.papers import fragility, sign_in, winning_sign, zero_crossing

# What each word on the command line takes, and who does it.
COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "fragility": (fragility.FragilityOptions, fragility.main),
    "zero-crossing": (zero_crossing.ZeroCrossingOptions, zero_crossing.main),
    "winning-sign": (winning_sign.WinningSignOptions, winning_sign.main),
    "sign-in": (sign_in.SignInOptions, sign_in.main),
    "zoo": (zoo.ZooOptions, zoo.main),
    "report": (report.ReportOptions, report.main),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, runs the command and gives the exit code."""
    args = _spelled(list(sys.argv[1:] if arguments is None else arguments))
    options: Any = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in COMMANDS.items()},
        prog="python -m benchmarks",
        description="Reproduce the experiments of the sign papers with polarity.",
        args=args,
    )
    run = next(run for kind, run in COMMANDS.values() if type(options) is kind)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 130


def _spelled(args: list[str]) -> list[str]:
    """Papers are called after modules, options after command lines: both spellings are accepted.

    The theory section may be asked for as a part of its paper: `sign_in theory`.
    """
    if args and args[0].replace("_", "-") in COMMANDS:
        args[0] = args[0].replace("_", "-")
    if args[:2] == ["sign-in", "theory"] and "sign-in-theory" in COMMANDS:
        args[:2] = ["sign-in-theory"]
    return args


if __name__ == "__main__":
    sys.exit(main())
