"""Tables and captions of the single neuron on the theory section's page."""

from __future__ import annotations

from ...pages.markdown import markdown
from ...pages.published import transcript
from .neuron import CASE_NAMES, CASES
from .page_formats import ENDS, METHODS, PLAIN, ends, percent, share
from .records import Record


def portrait(record: Record) -> str:
    settings = record["settings"]
    flows = list(dict.fromkeys(cell["flow"] for cell in record["cells"]))
    shares = {(cell["flow"], cell["case"]): share(cell) for cell in record["cells"]}
    table = markdown(
        ["flow (inner scalings of a and w)", *CASE_NAMES.values()],
        [[flow, *(shares[flow, case] for case in CASES)] for flow in flows],
    )
    return (
        "Arrows show directions only; Sign-In's are those of the exact flow of m·v, whose factors "
        "are √(4θ² + β²). Eq. (3) prints √(θ² + β), which is not the same but leads to the same "
        "cases.\n\n"
        f"Share of {settings['runs']} balanced initialisations per case (w ~ N(0, 1)) that end on "
        f"a·w = 1 within 1e-3; mean of relu(z)² = 1/2 in closed form; steps of "
        f"{settings['lr']:g}, T = {settings['lr'] * settings['steps']:g}.\n\n"
        f"{table}\n\n"
        "For a < 0, w > 0 the balanced start a = −w is on the stable manifold of the saddle at the "
        "origin for gradient flow and for equal scalings. Both derivatives are built from one "
        "number here, so a = −w holds to the last bit and these runs reach the origin. Where the "
        "two derivatives are summed separately their rounding differs and some runs leave "
        "the saddle: that is an artefact, not a recovery. With β₂ > β₁ the start lies on the wrong "
        "side of the manifold and w dies. With w < 0 every flow ends where a·w = 0. (In the proof "
        "of Theorem A.1 the region Γ₀ is printed as "
        "a < −w; the argument and the statement need a > −w.)"
    )


def table2(record: Record) -> str:
    settings = record["settings"]
    printed = transcript("sign_in_to_the_lottery")["table2_sign_recovery_percent_a_negative_d5"]
    rows = []
    for cell in record["cells"]:
        there = printed[f"lr{cell['lr']:g}"][cell["method"]]
        rows.append(
            [
                f"{cell['lr']:g}",
                str(cell["steps"]),
                PLAIN[cell["method"]],
                f"{there} %",
                *(percent(cell[key]) for key in ("loss", "signs", "sign_a")),
                str(cell["silenced"]),
            ]
        )
    head = ["η", "steps", "method", "paper", "loss < 1e-4", "a > 0 and w₁ > 0", "a > 0", "silenced"]
    return (
        f"d = {settings['dim']}, T = {settings['horizon']:g}, {settings['runs']} initialisations "
        f"w ~ N(0, I) with a = −‖w‖ (w₁ of either sign), n = {settings['samples']} shared samples, "
        f"β = {settings['beta']:g}. The paper does not say what a recovery is: three readings. "
        "“Silenced” are runs that end where every sample that activates the teacher leaves the "
        "student inactive; the teacher has no part in the gradient there.\n\n"
        f"{markdown(head, rows)}"
    )


def table8(record: Record) -> str:
    settings = record["settings"]
    printed = transcript("sign_in_to_the_lottery")["table8_success_fraction"]
    parts = [
        f"{settings['runs']} runs per cell, η = {settings['lr']:g}, success: loss < 1e-4. Every "
        "cell: paper / ours [95 % interval]; a cell that differs from the paper's is marked with "
        "an asterisk. Equal scalings are not in the paper's table."
    ]
    for samples in settings["samples"]:
        for steps in reversed(settings["steps"]):
            cells = {
                (cell["method"], cell["case"]): cell
                for cell in record["cells"]
                if (cell["samples"], cell["steps"]) == (samples, steps)
            }
            rows = [
                [name, *(_against(printed.get(method), cells[method, c], c) for c in CASES)]
                for method, name in METHODS.items()
            ]
            parts.append(f"### n = {samples}, {steps} steps")
            parts.append(markdown(["method", *CASE_NAMES.values()], rows))
    parts.append(_differences(record))
    return "\n\n".join(parts)


def _against(printed: dict[str, float] | None, cell: Record, case: str) -> str:
    found = cell["loss"]
    if printed is None:
        return f"– / {share(found)}"
    mark = "" if found["successes"] / found["runs"] == printed[case] else " *"
    return f"{printed[case]:g} / {share(found)}{mark}"


def _differences(record: Record) -> str:
    """Return what differs from the printed table, cell by cell, and where those runs are."""
    printed = transcript("sign_in_to_the_lottery")["table8_success_fraction"]
    lines = []
    for cell in record["cells"]:
        if cell["method"] not in printed:
            continue
        expected, found = printed[cell["method"]][cell["case"]], cell["loss"]
        if found["successes"] == expected * found["runs"]:
            continue
        other = found["runs"] - found["successes"]
        told = (
            f"{other} of {found['runs']} not at the solution; median loss of the cell "
            f"{cell['median_loss']:.1e}, {cell['silenced']} silenced"
            if expected
            else f"{found['successes']} of {found['runs']} solved it"
        )
        lines.append(
            f"- {METHODS[cell['method']]}, {CASE_NAMES[cell['case']]}, n = {cell['samples']}, "
            f"{cell['steps']} steps: {told}."
        )
    if not lines:
        return "Every cell is the paper's."
    listed = "\n".join(lines)
    return f"Where cells differ from the printed table:\n\n{listed}\n\n{_WHY}"


_WHY = """\
Two mechanisms, both artefacts of finite numbers. The missing Sign-In runs pass close to the saddle
at the origin and leave it slowly, so fewer steps are not enough for the closest ones: most of them
are late, not lost. Gradient descent recovers a few runs with a < 0 when there are few samples,
because its steps are finite: they break the balance a² = ‖w‖² that keeps a from crossing 0 in the
flow. The next section repeats those runs with shorter steps."""


def figure7(record: Record) -> str:
    settings = record["settings"]
    return (
        f"{settings['runs']} runs per case, n = {settings['samples']}, η = {settings['lr']:g}, "
        f"{settings['steps'][-1]} steps; balanced, w ~ N(0, I). Open circles are starts, dots "
        "recovered runs, crosses the others. Without Sign-In, runs with a < 0 go to the saddle at "
        "the origin; with it they pass it on the side of a > 0."
    )


def dependence(record: Record) -> str:
    settings = record["settings"]
    data_sets = len(settings["data_seeds"])
    parts = [
        f"The problem of Table 2 (a < 0, d = {settings['dim']}, η = {settings['lr']:g}) with one "
        f"quantity varied and the others at n = {settings['samples']}, σ = 1, β = 1; "
        f"{data_sets * settings['runs']} runs per point, half on each of {data_sets} data sets. "
        "Bars are 95 % intervals."
    ]
    for kind, symbol in (("scale", "σ"), ("samples", "n"), ("beta", "β")):
        rows = []
        for cell in record["cells"]:
            if cell["kind"] != kind:
                continue
            loss = cell["loss"]
            rows.append(
                [
                    f"{cell['value']:g}",
                    PLAIN[cell["method"]],
                    str(cell["steps"]),
                    percent(loss),
                    percent(cell["signs"]),
                    percent(cell["sign_a"]),
                    " + ".join(map(str, loss["by_data_set"])),
                    str(cell["silenced"]),
                    str(cell["diverged"]),
                ]
            )
        head = [symbol, "method", "steps", "loss < 1e-4", "a > 0 and w₁ > 0", "a > 0"]
        head += ["per data set", "silenced", "diverged"]
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def failure(record: Record) -> str:
    settings = record["settings"]
    rows = [
        [
            {"padded": "2 of d", "full": "all d"}[cell["reading"]],
            str(cell["dim"]),
            PLAIN[cell["method"]],
            str(cell["steps"]),
            *ends(cell),
        ]
        for cell in record["cells"]
    ]
    head = ["teacher's inputs", "d", "method", "steps", *ENDS]
    return (
        f"Teacher ã = 1 with w̃ ~ N(0, I), one for each of {settings['runs']} runs; student "
        f"w ~ N(0, I), a = −‖w‖; n = {settings['samples']}, η = {settings['lr']:g}, β = 1. The "
        "paper trains d = 2 and calls more overparameterisation necessary without saying of what "
        "kind. Left: the teacher keeps two inputs and the student gets others that it ignores. "
        f"Right: the teacher uses all d.\n\n{markdown(head, rows)}"
    )


def step_size(record: Record) -> str:
    settings = record["settings"]
    rows = [
        [
            str(cell["samples"]),
            f"{cell['scale']:g}",
            PLAIN[cell["method"]],
            f"{cell['lr']:g}",
            f"{cell['lr'] * cell['steps']:g}",
            *ends(cell),
        ]
        for cell in record["cells"]
    ]
    head = ["n", "σ", "method", "η", "T", *ENDS]
    return (
        f"{_SCALE}\n\nThe same {settings['runs']} starts (a < 0, w₁ > 0, d = {settings['dim']}) "
        "and the same time with steps of different length, where gradient descent recovers runs:"
        f"\n\n{markdown(head, rows)}"
    )


_SCALE = """\
Scale. Where θ² ≪ β the factors √(4θ² + β²) of all weights are β: Sign-In is gradient flow at
another speed and a cannot overtake w. The longer such runs train, the more of them are silenced, so
more steps do not help."""
