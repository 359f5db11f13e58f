"""Tables and captions of the other parts of the theory section's page."""

from __future__ import annotations

from ...pages.markdown import markdown
from ...pages.section import commit
from .page_formats import METHODS, percent
from .records import Record


def obstruction(record: Record) -> str:
    settings = record["settings"]
    rows = [
        [
            row["formula"],
            row["start"],
            f"{row['crossed']['successes']} of {row['crossed']['runs']}",
            f"{row['greatest_w']:.1e}",
            f"{row['median_final_w']:.1e}",
            f"{row['least_final_loss']:.6f}",
        ]
        for row in record["rows"]
    ]
    head = ["θ = g(u), a and w alike", "start", "reached w > 0", "greatest w on the way"]
    head += ["median final w", "least final loss"]
    sizes = list(dict.fromkeys(row["lr"] for row in record["overshoot"]))
    names = list(dict.fromkeys(row["name"] for row in record["overshoot"]))
    crossed = {(row["name"], row["lr"]): row["crossed"] for row in record["overshoot"]}
    over = markdown(
        ["θ = g(u)", *(f"η = {size:g}" for size in sizes)],
        [[name, *(percent(crossed[name, size]) for size in sizes)] for name in names],
    )
    return (
        f"d = 1, {settings['runs']} starts with w < 0 each (the first is w = −1, which is "
        f"drawn), mean of relu(z)² = 1/2 in closed form, flow approximated with steps of "
        f"{settings['lr']:g} up to T = {settings['lr'] * settings['steps']:g}. The student that "
        "answers 0 has loss 0.25. For w < 0 the force on w is −a²·w/2 times a squared slope: it "
        "vanishes with w for every g. Balanced starts go to the origin as a and w shrink alike; "
        "where a is larger it outlasts w, which still goes no further than 0.\n\n"
        f"{markdown(head, rows)}\n\n"
        "The theorem is about the flow. A step of gradient descent that is too long can jump over "
        f"w = 0 (a > 0, w < 0, 200 steps); runs that reached w > 0:\n\n{over}"
    )


def students(record: Record) -> str:
    settings, picture = record["settings"], record["picture"]
    readings = {
        "mean": "c = 1/k, printed steps",
        "sum, printed steps": "c = 1, printed steps",
        "sum, small steps": "c = 1, small steps",
    }
    rows = [
        [
            readings[cell["reading"]],
            cell["setup"].replace("sign_in", "Sign-In"),
            f"{cell['lr']:g}",
            percent(cell["solved"]),
            percent(cell["nearly"]),
            "–" if cell["signs"] is None else percent(cell["signs"]),
            str(cell["diverged"]),
        ]
        for cell in record["cells"]
    ]
    head = ["output", "setup", "η", "loss < 1e-4 relative", "loss < 1e-2 relative"]
    head += ["signs of a as the teacher's", "diverged"]
    paired = markdown(
        ["output", "setup", "both", "only without Sign-In", "only with Sign-In", "neither"],
        [
            [
                readings[pair["reading"]],
                pair["setup"].replace("sign_in", "Sign-In"),
                *(str(pair[key]) for key in ("both", "only_plain", "only_sign_in", "neither")),
            ]
            for pair in record["pairs"]
        ],
    )
    chosen = (
        "It is the first seed whose four panels come out as the paper prints them (relative loss "
        "above 1e-2 with bad signs, below 1e-2 dense and below 1e-4 in the other two), one of "
        f"{picture['as_printed']} such seeds among {settings['students']}: the picture is chosen, "
        "the tables below are not. Seeds whose teacher has two vectors within 30 degrees of each "
        "other are passed over."
        if picture["as_printed"]
        else "No seed comes out as the paper prints all four panels; this is the first one."
    )
    return (
        f"Where the neurons of seed {picture['seed']} end (abs(aᵢ)·wᵢ) with c = 1/k and, with bad "
        f"signs, a balanced start; the final loss relative to that of answering 0. {chosen}\n\n"
        f"{settings['students']} teachers with k = 3, d = {settings['dim']}, ãᵢ = ±1 (one negative "
        f"at least), ‖w̃ᵢ‖ = 1; n = {settings['samples']} shared samples; students from N(0, 1/d), "
        "dense with k = 20 and aᵢ = −aᵢ₊₁₀; Sign-In with β = 2 for all weights, or 2 for a and 1 "
        f"for w; {record['cells'][0]['steps']} steps. “Balanced” replaces the drawn aᵢ by ‖wᵢ‖. "
        f"The output is c·Σ aᵢ·relu(wᵢᵀz).\n\n{markdown(head, rows)}\n\n"
        "Bad signs, the same starts with and without Sign-In, relative loss below 1e-2:\n\n"
        f"{paired}\n\n{_STUDENTS_VERDICT}"
    )


_STUDENTS_VERDICT = """\
Where this differs from the paper, at full scale. With c = 1 the printed step sizes are too long:
every dense student diverges at 2.15. With c = 1/k, the scaling of the paper that the initialisation
is taken from, they are stable; which of the two was run is not said. Good signs help as printed.
The paper adds that Sign-In “usually resolves the failure cases”; from the initialisation as printed
(independent a and w, one β) it changes next to nothing here. It resolves some of the failures from
a balanced start, and most clearly with a larger scaling for a than for w: the conditions of
Theorem 5.2, not those of the figure."""


def speed(record: Record) -> str:
    settings = record["settings"]
    rows = [
        [
            METHODS[row["method"]],
            f"{1e6 * row['seconds_per_single_step']:.0f} µs",
            f"{row['sequential_seconds']:.0f} s",
            f"{row['batched_seconds']:.1f} s",
            f"{row['ratio']:.0f}×",
        ]
        for row in record["rows"]
    ]
    head = ["method", "step of one autograd run", "one after the other", "batch", "ratio"]
    return (
        f"{settings['runs']} runs of {settings['steps']} steps, a quarter of each sign case, "
        f"d = {settings['dim']}, n = {settings['samples']}, one thread, CPU time. The sequential "
        f"time is extrapolated from {settings['probe_steps']} steps of one torch autograd run in "
        "the same process; the batch is timed whole, and what makes it fast beyond the batching is "
        "that the moments of the active samples are kept until one changes sides and that runs at "
        f"a fixed point leave.\n\n{markdown(head, rows)}"
    )


def provenance(records: dict[str, Record]) -> str:
    rows = [
        [part, record["started"][:16].replace("T", " "), f"{record['cpu_seconds']:.0f} s",
         commit(record["git_commit"], 12)]
        for part, record in records.items()
    ]  # fmt: skip
    first = next(iter(records.values()))
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    total = sum(record["cpu_seconds"] for record in records.values())
    return (
        f"{markdown(['part', 'started (UTC)', 'CPU time', 'commit'], rows)}\n\n"
        f"Together {total / 60:.0f} minutes of one thread. {versions}; {first['machine']['cpu']}, "
        f"{first['machine']['cores']} cores."
    )
