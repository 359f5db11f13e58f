"""Survivors only: what a round of iterative magnitude pruning costs, and what it finds.

Claim. A mask makes a training step slower, however little is left, and `pol.compact` makes it
cheaper with every round: only the survivors are stored, multiplied and updated. What is found is
the same, because the numbers are the same up to the order of sums.

Method. Three networks are trained side by side in one process with one thread: a dense one, one
pruned with masks, and one that `pol.compact` is called on after each pruning. It measures each
layer, forward and backward with the real batch, and stores as survivors those that gain by a tenth;
the others stay masked. Batches and initial values are the same for all three, the epochs of a round
are trained in turns, and the seconds are those of training alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..harness.results import Result
from ..pages.estimates import Estimate, cell, estimate, same_settings, shared_settings
from ..pages.markdown import markdown
from ..pages.repeat import unrepeatable
from ..pages.section import (
    Section,
    distinct,
    figure_stem,
    images,
    provenance,
    runs_and_seeds,
    spread_text,
    write_paper,
)
from .config import EXPERIMENT

VARIED = ("seed",)
FORMS = ("dense", "masks", "survivors")
_SETTINGS = ("rounds", "prune_base", "epochs", "optimizer", "lr", "batch_size", "init", "device")


def write_pages(folder: Path, out: Path) -> list[Path]:
    """Write `survivors.md` and its figures where there are results."""
    return write_paper(folder, out, EXPERIMENT, __doc__, describe)


def describe(results: Sequence[Result], plots: Path | None, *, details: bool = False) -> Section:
    """Make the table and the figure of each group of runs that differ in their seeds alone.

    Args:
        results: results of this experiment.
        plots: folder to draw into; None draws nothing.
        details: show figures and provenance too: for files, not for terminals.
    """
    parts: list[str] = []
    drawn: list[Path] = []
    for group in same_settings(results, VARIED):
        config = group[0]["config"]
        parts.append(f"## {config['dataset']}, {config['arch']}")
        parts += [_scale(group), *unrepeatable(group)]
        if details:
            settings = "; ".join(f"{key.replace('_', ' ')} {config[key]}" for key in _SETTINGS)
            parts.append("\n".join([f"- Settings: {settings}", *provenance(group)]))
        if plots is not None:
            figure = _draw(group, plots)
            drawn.append(figure)
            if details:
                parts.append(f"![{figure.stem}]({figure.name})")
        parts.append(_summary(group))
        parts.append(_table(group))
    return Section("\n\n".join(parts), drawn)


def over_seeds(group: Sequence[Result], form: str, value: str) -> list[Estimate]:
    """Return the mean and spread of something over the seeds, round by round."""
    return _rounds(group, lambda record: record[form][value])


def seconds_over_dense(group: Sequence[Result], form: str) -> list[Estimate]:
    """Return how long each round's training took, over the dense one of the same round."""
    return _rounds(group, lambda record: record[form]["seconds"] / record["dense"]["seconds"])


def _rounds(group: Sequence[Result], read: Callable[[Result], float]) -> list[Estimate]:
    found = (
        estimate(read(record) for record in records)
        for records in zip(*(result["rounds"] for result in group), strict=True)
    )
    return [each for each in found if each is not None]


def _scale(group: Sequence[Result]) -> str:
    captions = " / ".join(distinct(result["caption"] for result in group))
    return f"{runs_and_seeds(group)}; {captions}. ± is the standard deviation over seeds."


def _summary(group: Sequence[Result]) -> str:
    """Say in one sentence from where on survivors pay, and what they cost at the end."""
    densities = over_seeds(group, "survivors", "density")
    ratios = {form: seconds_over_dense(group, form) for form in FORMS}
    ours, masked = ratios["survivors"], ratios["masks"]
    slower = [at for at, each in enumerate(ours) if each.mean >= 1]
    first = slower[-1] + 1 if slower else 0
    total = {
        form: sum(record[form]["seconds"] for result in group for record in result["rounds"])
        for form in FORMS
    }
    deciding = sum(
        record["survivors"]["deciding_seconds"] for result in group for record in result["rounds"]
    )
    where = (
        f"From density {densities[first].mean:.3f} (round {first}) on a round of survivors is "
        "faster than a dense one. "
        if first < len(ours)
        else "A round of survivors is not faster than a dense one here. "
    )
    return (
        f"{where}At density {densities[-1].mean:.3f} it takes {ours[-1].mean:.2f} of it, and a "
        f"round with masks {masked[-1].mean:.2f}. All rounds together take "
        f"{total['survivors'] / total['dense']:.2f} of the dense network's time with survivors and "
        f"{total['masks'] / total['dense']:.2f} with masks; deciding which layers gain takes "
        f"another {deciding / total['dense']:.2f}."
    )


def _table(group: Sequence[Result]) -> str:
    densities = over_seeds(group, "survivors", "density")
    columns = [
        *(over_seeds(group, form, "seconds") for form in FORMS),
        *(over_seeds(group, form, "test_accuracy") for form in FORMS),
    ]
    shared = _rounds(group, lambda record: 100 * record["same_masks"])
    head = (
        *("round", "density", "compact layers"),
        *(f"{form}, s" for form in FORMS),
        *(f"{form}, accuracy %" for form in FORMS),
        "survivors in common %",
    )
    rows = [
        (
            str(at),
            f"{densities[at].mean:.4f}",
            _layers(group, at),
            *(cell(column[at]) for column in columns),
            f"{shared[at].mean:.2f}",
        )
        for at in range(len(densities))
    ]
    return markdown(head, rows)


def _layers(group: Sequence[Result], at: int) -> str:
    """Count the layers that were compact in a round, seed by seed where they differ."""
    counts = (
        sum(layer["compact"] for layer in result["rounds"][at]["survivors"]["layers"])
        for result in group
    )
    return " / ".join(distinct(map(str, counts)))


def _draw(group: Sequence[Result], folder: Path) -> Path:
    # matplotlib is slow to import and only needed here.
    from .plots import plot_rounds

    config = group[0]["config"]
    stem = figure_stem(
        (EXPERIMENT, config["dataset"], config["arch"]),
        repr(sorted(shared_settings(config, VARIED).items())),
    )
    folder.mkdir(parents=True, exist_ok=True)
    series = {
        form: (over_seeds(group, form, "seconds"), over_seeds(group, form, "test_accuracy"))
        for form in FORMS
    }
    densities = [each.mean for each in over_seeds(group, "survivors", "density")]
    scale = (
        f"{images(group[0]['dataset'])}, {config['arch']}, {config['epochs']} epochs per round; "
        f"{spread_text(len(group))}"
    )
    return plot_rounds(series, densities, folder / f"{stem}.png", scale)
