"""`python -m benchmarks PAPER [options]`: run a paper's experiment, or report on results."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from benchmarks import report
from benchmarks.papers import fragility, zero_crossing


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, runs the command and gives the exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    # Papers are called after modules, options after command lines: accept both spellings.
    if args:
        args[0] = {"zero_crossing": "zero-crossing"}.get(args[0], args[0])
    options = tyro.extras.subcommand_cli_from_dict(
        {
            "fragility": fragility.FragilityOptions,
            "zero-crossing": zero_crossing.ZeroCrossingOptions,
            "report": report.ReportOptions,
        },
        prog="python -m benchmarks",
        description="Reproduce the experiments of the sign papers with polarity.",
        args=args,
    )
    try:
        if isinstance(options, fragility.FragilityOptions):
            return fragility.main(options)
        if isinstance(options, zero_crossing.ZeroCrossingOptions):
            return zero_crossing.main(options)
        return report.main(options)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
