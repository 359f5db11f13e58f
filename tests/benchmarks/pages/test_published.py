"""What the papers print, as transcribed."""

from benchmarks.pages.published import Best, best_over_grid, epochs_per_round, transcript


def test_published_numbers_belong_to_what_they_were_measured_on():
    assert best_over_grid("fragility", "mnist", "fc", "epsilon")["standard"] == Best(97.8)
    conv4 = best_over_grid("zero_crossing", "cifar10", "conv4", "phi")
    assert conv4["gradual"] == Best(65.0, -0.001)
    assert best_over_grid("fragility", "cifar100", "vgg16_bn", "delta")["mask0"] == Best(43.5)
    assert best_over_grid("fragility", "mnist", "fc", "delta") == {}
    assert best_over_grid("fragility", "digits", "fc", "epsilon") == {}
    assert epochs_per_round("fragility", "digits") is None


def test_every_printed_cell_of_the_four_papers_is_transcribed():
    def cells(entry):
        if not isinstance(entry, dict):
            return 1
        return sum(cells(each) for key, each in entry.items() if not key.startswith("_"))

    counts = {
        paper: sum(
            cells(table) for name, table in transcript(paper).items() if name.startswith("table")
        )
        for paper in (
            "fragility_of_polarity",
            "beyond_zero_crossing",
            "find_a_winning_sign",
            "sign_in_to_the_lottery",
        )
    }
    assert list(counts.values()) == [24, 24, 51, 142]
