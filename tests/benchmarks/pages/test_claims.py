"""How claims, their verdicts and their reasons are told."""

import pytest

from benchmarks.pages.captions import NOT_GIVEN, Row, caption, departures, joined, part
from benchmarks.pages.claims import (
    Case,
    Claim,
    case_table,
    claim_table,
    closest,
    deciding,
    reasoned,
    tally,
)
from benchmarks.pages.paired import Compared
from benchmarks.pages.stated import Judged, Stated, stated_table
from benchmarks.pages.verdicts import FAILS, HOLDS, MISSING, UNTESTABLE


def case(name, mean, verdict, half=1.0, effect=2.0, why=""):
    return Case(name, verdict, Compared(mean, 3, half, effect), None, why=why)


def claim(*cases, text="it helps"):
    return Claim("Table 1", text, "with − without (points)", cases)


CLEAR, NARROW = case("a", 5.0, HOLDS), case("b", 1.5, HOLDS)
FAR, NEAR = case("c", -9.0, FAILS), case("d", -1.1, FAILS)
NOT_RUN = Case("e", MISSING, None, None)


def test_those_cases_are_told_that_came_nearest_to_another_verdict():
    assert closest(claim(CLEAR, NARROW)) == [NARROW]
    assert closest(claim(CLEAR, NARROW, FAR, NEAR)) == [NARROW, NEAR]
    assert closest(claim(NOT_RUN)) == []
    blind = [case("f", 0.0, UNTESTABLE, effect=3.0), case("g", 0.0, UNTESTABLE, effect=2.0)]
    assert closest(claim(*blind)) == [blind[1]]


def test_more_cases_than_are_told_are_counted():
    counts, cases = deciding(claim(CLEAR, NARROW, FAR, NOT_RUN), 2)
    assert counts == "2 holds, 1 does not hold, 1 not run; "
    assert list(cases) == [NARROW, FAR]
    assert deciding(claim(CLEAR, NOT_RUN), 2) == ("", [CLEAR])


def test_one_reason_for_everything_is_told_once():
    blind = case("a", 0.1, UNTESTABLE, why="too short")
    one, two = claim(blind), claim(blind, text="it helps more")
    assert reasoned(one) == f"{UNTESTABLE}: too short"
    assert tally([one, two]).endswith("Of all that were run, for one reason: too short.")
    assert "too short" not in claim_table([one, two])
    assert "too short" in claim_table([one, claim(CLEAR)])
    assert f"{UNTESTABLE}: too short" in case_table([one])


def test_a_claim_is_decided_by_the_runs_nearest_to_the_papers():
    def judged(claim, *departs, runs=3):
        return Judged(claim, f"{len(departs)} departures", departs, "page.md", runs)

    near, far = judged(claim(CLEAR)), judged(claim(FAR), "epochs", runs=9)
    missing = judged(claim(NOT_RUN))
    assert Stated("s", "t", "p", (far, near)).verdict == HOLDS
    assert Stated("s", "t", "p", (missing, far)).verdict == FAILS
    assert Stated("s", "t", "p", (missing,)).verdict == MISSING
    larger = judged(claim(FAR), runs=5)
    assert Stated("s", "t", "p", (near, larger)).leading is larger


def test_the_table_says_what_decides_and_what_could_have_been_seen():
    near = Judged(claim(CLEAR), "MNIST", (), "page.md", 3)
    rows = [Stated("Table 1", "it helps", place) for place in ("A", "B")]
    table = stated_table([Stated("Table 1", "it helps", "MNIST", (near,)), *rows]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert cells[0] == [
        *("Table 1: it helps", "MNIST", "**holds**"),
        "with − without (points): a +5.00 [+4.00, +6.00]",
        *("2.00", "paper's scale: [MNIST](page.md)"),
    ]
    # Places where nothing was run share a row, and the claim is not repeated.
    assert cells[1] == ["", "A; B", "**not run**", "—", "—", "—"]


def test_reasons_stand_below_the_table_once():
    blind = case("a", 0.1, UNTESTABLE, why="too short")
    one_seed = Case("b", UNTESTABLE, Compared(0.5, 1), None)
    judged = [Judged(claim(each), "MNIST", (), "page.md", 3) for each in (blind, blind, one_seed)]
    text = stated_table([Stated("s", f"t{k}", "p", (each,)) for k, each in enumerate(judged)])
    table, notes = text.split("\n\n")
    assert [line.split("|")[3].strip() for line in table.splitlines()[2:]] == [
        f"**{UNTESTABLE}** ({number})" for number in (1, 1, 2)
    ]
    assert notes.splitlines() == [
        "- (1) too short.",
        "- (2) a single seed has no spread, and an interval needs one.",
    ]


ROWS = [Row("epochs", "3", "150"), Row("lr", "0.2", "0.2"), Row("device", "cpu", NOT_GIVEN)]


def test_a_caption_is_made_of_departures_and_choices():
    assert departures(ROWS) == ["epochs 3, the paper's 150"]
    assert caption(ROWS) == "epochs 3, the paper's 150; not given by the paper: device cpu"
    assert caption(ROWS[1:], ["digits"]).startswith("digits; not given")
    assert caption(ROWS[1:]).startswith("as the paper gives it; ")


@pytest.mark.parametrize(("used", "text"), [(10, "all"), (3, "3 of 10, drawn at random")])
def test_a_part_of_the_images_is_named(used, text):
    assert part(used, 10) == text


def test_settings_of_several_methods_are_joined_by_who_has_them():
    other = [Row("epochs", "3", "150"), Row("lr", "0.1", "0.2"), Row("beta", "1", "1")]
    rows = {row.name: row for row in joined({"plain": ROWS, "factors": other})}
    assert rows["epochs"] == ROWS[0]
    assert rows["lr"].ours == "0.2 (plain); 0.1 (factors)"
    assert rows["lr"].departs
    assert rows["beta"] == Row("beta", "1 (factors)", "1 (factors)")
