"""The theory section's settings: the paper's, and our choices where it leaves them open.

The scale of every part is in its result file.
"""

from __future__ import annotations

from typing import Literal, get_args

Part = Literal[
    "portrait",
    "table2",
    "table8",
    "dependence",
    "step_size",
    "students",
    "figure7",
    "failure",
    "obstruction",
    "equation4",
    "speed",
]
PARTS: tuple[Part, ...] = get_args(Part)
# Inputs of the overparameterised student.
DIM = 5
# Samples z ~ N(0, I) that all runs of a table share. The paper does not say how many.
SAMPLES = 256
LR = 0.01
STEPS = 200_000
# Initialisations per case.
RUNS = 100
# A training that ends below this loss has recovered the teacher. Ours: the paper does not say.
LOSS_SOLVED = 1e-4
