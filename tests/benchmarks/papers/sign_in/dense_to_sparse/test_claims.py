"""Verdicts on the paper's claims, from synthetic runs whose truth is known."""

import pytest

from benchmarks.pages.paired import compare, pooled_spread, spread_to_reference
from benchmarks.pages.verdicts import FAILS, HOLDS, MISSING, PARTLY, UNTESTABLE
from benchmarks.papers.sign_in.dense_to_sparse.claims import (
    claims,
    table1_case,
    table5_case,
    table10_case,
)
from benchmarks.papers.sign_in.dense_to_sparse.config import METHODS, STARTS
from benchmarks.papers.sign_in.dense_to_sparse.summary import (
    TABLE1,
    comparisons,
    paper1,
    paper5,
    paper10,
    table5_densities,
    table10_arms,
)
from tests.benchmarks.papers.sign_in.dense_to_sparse.synthetic import record, search, sweep

SIGNS = ("sign10", "sign30", "sign_final")


def group_of(results):
    (group,) = comparisons(results)
    return group


def table1(levels, *, noise=0.1, seeds=3, method="acdc"):
    """Runs of a method's Table 1 at these accuracies, with a little noise that cancels."""
    return group_of(
        record(f"{method}/{start}" if start else method, seed=seed, accuracy=level + shake)
        for place, (start, level) in enumerate(levels.items())
        for seed in range(seeds)
        for shake in [noise * ((seed + place) % 3 - 1)]
    )


def levels(signs, magnitudes, random, baseline=60.0):
    starts = {**dict.fromkeys(SIGNS, signs), "mag10": magnitudes, "mag_final": magnitudes}
    return {"": baseline, **starts, "random": random}


def verdicts(group, method="acdc"):
    return {start: table1_case(group, method, start).verdict for start in STARTS}


def test_the_papers_numbers_are_read_from_the_transcript():
    assert tuple(TABLE1)[1:] == STARTS
    assert [paper1(method, "") for method in METHODS] == [74.68, 73.75, 73.65]
    assert [paper1(method, "sign10") for method in METHODS] == [73.97, 73.32, 71.7]
    assert [paper1(method, "mag_final") for method in METHODS] == [70.94, 72.4, 68.35]
    assert table5_densities() == [0.2, 0.1, 0.05]
    assert paper5("acdc+sign_in", 0.05) == (72.88, 0.13)
    assert paper10("snip", sign_in=True) == (54.27, None)
    assert paper10("str", sign_in=False) == (68.36, 0.17)


def test_signs_that_recover_the_baseline():
    found = verdicts(table1(levels(signs=60.0, magnitudes=52.0, random=52.0)))
    assert found == dict.fromkeys(STARTS, HOLDS)


def test_signs_that_recover_half_of_it_hold_partly():
    found = verdicts(table1(levels(signs=56.0, magnitudes=52.0, random=52.0)))
    assert [found[start] for start in SIGNS] == [PARTLY] * 3
    assert found["mag_final"] == found["random"] == HOLDS


def test_signs_of_epoch_10_may_miss_the_baseline_by_a_point():
    found = verdicts(table1(levels(signs=59.2, magnitudes=52.0, random=52.0)))
    assert [found[start] for start in SIGNS] == [HOLDS, PARTLY, PARTLY]


def test_signs_that_are_no_better_than_a_random_start():
    found = verdicts(table1(levels(signs=52.0, magnitudes=52.0, random=52.0)))
    assert [found[start] for start in SIGNS] == [FAILS] * 3
    # Magnitudes do nothing either, but signs do not do more: nothing is decided.
    assert found["mag_final"] == UNTESTABLE


def test_magnitudes_that_help():
    found = verdicts(table1(levels(signs=60.0, magnitudes=56.0, random=52.0)))
    assert found["mag10"] == found["mag_final"] == PARTLY
    found = verdicts(table1(levels(signs=60.0, magnitudes=60.0, random=52.0)))
    assert found["mag10"] == found["mag_final"] == FAILS


def test_where_a_random_start_is_as_good_there_is_nothing_to_recover():
    found = verdicts(table1(levels(signs=60.0, magnitudes=60.0, random=60.0)))
    assert [found[start] for start in SIGNS] == [UNTESTABLE] * 3
    assert found["random"] == FAILS


def test_noise_above_the_papers_effect_leaves_nothing_but_not_testable():
    group = table1(levels(signs=60.0, magnitudes=52.0, random=52.0), noise=4.0)
    for start in STARTS:
        case = table1_case(group, "acdc", start)
        assert case.gain.detectable > case.paper
        assert case.verdict == UNTESTABLE


def test_missing_runs_are_not_judged():
    all_but = levels(signs=60.0, magnitudes=52.0, random=52.0)
    del all_but["sign30"], all_but["random"]
    found = verdicts(table1(all_but))
    # Without a random start there is nothing to compare most rows with.
    assert set(found.values()) == {MISSING}
    assert verdicts(table1(all_but), "rigl") == dict.fromkeys(STARTS, MISSING)


def test_differences_are_paired_by_seed_with_the_spread_of_their_kind():
    group = group_of(sweep(range(5)))
    runs = {start: group.accuracy(f"rigl/{start}") for start in STARTS}
    baseline = group.accuracy("rigl")
    between = pooled_spread([list(runs.values())])
    to_baseline = spread_to_reference(runs.values(), baseline)
    case = table1_case(group, "rigl", "sign_final")
    assert case.gain == compare(runs["sign_final"], runs["random"], between)
    assert case.rest == compare(runs["sign_final"], baseline, to_baseline)
    assert case.paper == pytest.approx(73.74 - 71.89)
    case = table1_case(group, "rigl", "mag10")
    assert case.gain == compare(runs["sign10"], runs["mag10"], between)
    assert case.rest == compare(runs["random"], runs["mag10"], between)
    case = table1_case(group, "rigl", "random")
    assert case.gain == compare(baseline, runs["random"], to_baseline)


def pairs(arm, gain, *, density=0.1, seeds=4, noise=0.01):
    plain, with_sign_in = arm
    for seed in range(seeds):
        shake = noise * (seed % 2)
        yield record(plain, density, seed, accuracy=50.0 + seed)
        yield record(with_sign_in, density, seed, accuracy=50.0 + seed + gain + shake)


def test_table_5_cannot_be_judged_where_the_paper_prints_no_gain():
    arms = ("acdc", "acdc+sign_in")
    group = group_of(
        run for density in (0.2, 0.1, 0.05) for run in pairs(arms, 0.5, density=density)
    )
    found = {density: table5_case(group, density) for density in table5_densities()}
    assert [case.verdict for case in found.values()] == [HOLDS, UNTESTABLE, HOLDS]
    assert [round(case.paper, 2) for case in found.values()] == [0.07, -0.01, 0.29]


def test_table_10_is_judged_in_the_direction_that_the_paper_prints():
    group = group_of([*pairs(table10_arms("random"), 0.5), *pairs(table10_arms("str"), 0.5)])
    assert table10_arms("str") == ("str/random", "str/random+sign_in")
    assert table10_arms("random") == ("random", "random+sign_in")
    case = table10_case(group, "random")
    assert (case.verdict, case.gain.mean) == (HOLDS, pytest.approx(0.505))
    case = table10_case(group, "str")
    assert (case.verdict, case.gain.mean) == (FAILS, pytest.approx(-0.505))
    assert table10_case(group, "snip").verdict == MISSING


def by_text(results):
    return {claim.text: claim for claim in claims(group_of(results))}


def claim_with(found, words):
    (claim,) = (claim for text, claim in found.items() if words in text)
    return claim


def test_flips_and_sharpness_are_judged_by_the_interval():
    found = by_text(sweep(range(3)))
    early = claim_with(found, "before the end of the warm-up")
    assert [case.verdict for case in early.cases] == [HOLDS] * 3
    assert early.cases[0].gain.mean == pytest.approx(30, abs=4)
    assert claim_with(found, "more stable").verdict == HOLDS
    assert claim_with(found, "flatter minima").verdict == HOLDS
    assert {case.paper for case in early.cases} == {None}


def test_the_later_half_of_the_layers_decides_figure_8():
    def runs(arm, late):
        for seed in range(3):
            run = record(arm, seed=seed)
            for place, layer in enumerate(run["layers"]):
                # The first half must not count.
                layer["warmup_to_end"] = late + seed / 100 if place >= 2 else 0.9 - late
            yield run

    def verdict(plain, with_sign_in):
        found = by_text([*runs("acdc", plain), *runs("acdc+sign_in", with_sign_in)])
        return claim_with(found, "later layers").verdict

    assert verdict(0.1, 0.2) == HOLDS
    assert verdict(0.2, 0.1) == FAILS


def test_a_part_of_the_sweep_is_judged_as_far_as_it_goes():
    found = claims(group_of(sweep((0,), [("acdc", 0.1), ("acdc/random", 0.1), ("random", 0.1)])))
    by_verdict = {claim.text: claim.verdict for claim in found}
    assert by_verdict["The mask with a random start does not"] == UNTESTABLE
    assert by_verdict["AC/DC improves with Sign-In"] == MISSING
    assert all(
        case.gain is None or case.gain.low is None for claim in found for case in claim.cases
    )
    nothing = claims(group_of([search()]))
    assert {claim.verdict for claim in nothing} == {MISSING}


def test_a_run_that_diverged_has_no_sharpness_and_is_left_out():
    results = sweep(range(3))
    for result in results:
        if result["config"]["arm"] == "acdc" and result["config"]["seed"] == 1:
            result["final"]["sharpness"] = None
    case = claim_with(by_text(results), "flatter minima").cases[0]
    assert (case.name, case.gain.count) == ("AC/DC", 2)
