"""How counts and names appear on the theory section's page."""

from __future__ import annotations

from .records import Record

METHODS = {
    "sparse": "Sparse, d = 1",
    "overparam": "Overparam, d = 5",
    "sign_in": "Sign-In, d = 1, β₁ = 2, β₂ = 1",
    "overparam+sign_in": "Overparam + Sign-In, d = 5, β = 1",
    "sign_in, equal scalings": "Sign-In, d = 1, β₁ = β₂ = 1",
}
PLAIN = {"gf": "gradient descent", "sign_in": "Sign-In"}


# What `ends` gives of a cell.
ENDS = ("loss < 1e-4", "a > 0", "silenced", "diverged")


def ends(cell: Record) -> list[str]:
    """Return where the runs of a cell ended: two criteria of success, two ways to fail."""
    counts = (percent(cell["loss"]), percent(cell["sign_a"]))
    return [*counts, str(cell["silenced"]), str(cell["diverged"])]


def share(found: Record) -> str:
    """Return a count as a fraction with its interval."""
    low, high = found["interval"]
    return f"{found['successes'] / found['runs']:.2f} [{low:.2f}, {high:.2f}]"


def percent(found: Record) -> str:
    """Return a count in percent with its interval."""
    low, high = found["interval"]
    return f"{100 * found['successes'] / found['runs']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
