"""`python -m benchmarks.theory`: the same as `python -m benchmarks sign_in theory`."""

import sys

import tyro

from benchmarks.theory.command import TheoryOptions, main

if __name__ == "__main__":
    sys.exit(main(tyro.cli(TheoryOptions)))
