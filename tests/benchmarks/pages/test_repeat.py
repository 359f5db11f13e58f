"""The sentence on results that today's code cannot compute again."""

import polarity as pol
from benchmarks.pages.repeat import unrepeatable

TODAY = str(pol.__draws_version__)
BEGIN = "**Today's code cannot repeat "


def result(draws=TODAY, commit="0123"):
    versions = {"torch": "9"} if draws is None else {"torch": "9", "draws": draws}
    return {"versions": versions, "git_commit": commit}


def test_nothing_is_said_of_what_can_be_repeated():
    assert unrepeatable([result(), result(commit="4567")]) == []


def test_results_of_uncommitted_code_are_counted():
    (said,) = unrepeatable([result(), result(commit="0123-dirty"), result(commit=None)])
    assert said == BEGIN + "2 of these 3 results:** 2 are of code that no commit holds."
    (said,) = unrepeatable([result(commit="0123-dirty")])
    assert said == BEGIN + "this result:** 1 is of code that no commit holds."


def test_results_of_other_draws_are_counted_and_none_stated_is_the_first_version():
    (said,) = unrepeatable([result(draws="1"), result(draws=None)])
    reason = f"2 are of version 1 of the random draws, and today's is {TODAY}."
    assert said == f"{BEGIN}these 2 results:** {reason}"


def test_a_result_with_both_faults_counts_once():
    (said,) = unrepeatable([result(draws=None, commit="0-dirty"), result(commit="0-dirty")])
    assert said.startswith(BEGIN + "these 2 results:** 2 are of code")
    assert f"; 1 is of version 1 of the random draws, and today's is {TODAY}." in said
    (said,) = unrepeatable([result(draws=None, commit="0-dirty"), result()])
    assert said.startswith(BEGIN + "1 of these 2 results:**")
