"""The experiments by the name of their package in a wheel, for editable installations.

In a checkout they are the folder `benchmarks`. A wheel holds that folder as `polarity_bench`, in
place of this file, so that the command `polarity-bench` works in both.
"""

from pathlib import Path

# A module with a path is a package: its submodules are those of the folder.
__path__ = [str(Path(__file__).parents[1] / "benchmarks")]
