"""Which results today's code cannot compute again, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import polarity as pol

from ..harness.results import Result

# Results that state no version are older than the statement: their draws are the first version's.
_FIRST = "1"


def unrepeatable(results: Sequence[Result]) -> list[str]:
    """Say that today's code cannot repeat some results, and why; nothing where it can repeat all.

    A result cannot be repeated if the code that computed it is in no commit, or if random signs,
    masks and scores of its seeds were drawn by another version of the rule than today's.
    """
    uncommitted = [result for result in results if _is_uncommitted(result)]
    others = [result for result in results if _is_of_other_draws(result)]
    found = sum(_is_uncommitted(result) or _is_of_other_draws(result) for result in results)
    if not found:
        return []
    reasons = []
    if uncommitted:
        reasons.append(f"{_are(len(uncommitted))} of code that no commit holds")
    if others:
        versions = " and ".join(sorted({_draws(result) for result in others}))
        today = pol.__draws_version__
        reasons.append(
            f"{_are(len(others))} of version {versions} of the random draws, and today's is {today}"
        )
    every = "this result" if len(results) == 1 else f"these {len(results)} results"
    which = every if found == len(results) else f"{found} of {every}"
    return [f"**Today's code cannot repeat {which}:** {'; '.join(reasons)}."]


def _is_uncommitted(result: Result) -> bool:
    commit = result.get("git_commit")
    return not commit or str(commit).endswith("-dirty")


def _is_of_other_draws(result: Result) -> bool:
    return _draws(result) != str(pol.__draws_version__)


def _draws(result: Result) -> str:
    return str(result["versions"].get("draws", _FIRST))


def _are(count: int) -> str:
    return f"{count} {'is' if count == 1 else 'are'}"
