"""How every figure looks: fonts, grid, colours by role, and where the legend stands."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from polarity._checks import check_choice, check_integer, check_mapping, check_type

__all__ = ["PALETTE", "Look", "canvas", "legend", "looks", "style"]

Look: TypeAlias = Mapping[str, Any]

# Okabe and Ito's palette, told apart by colour-blind readers; marks serve those who print in grey.
PALETTE: Mapping[str, str] = {
    "blue": "#0072B2",
    "red": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
    "black": "#333333",
}
# Untyped, because matplotlib's stubs list other names in every version.
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "figure.titlesize": 9.5,
    "figure.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.fontsize": 8,
    "legend.title_fontsize": 9.5,
    "legend.frameon": False,
}
# One look for each role, in every figure. Roles that meet in a figure differ in colour and mark.
_ROLES = {
    "dense": ("grey", "s", "--"),
    "gradual": ("green", "D", "-"),
    "mask0": ("blue", "s", "-"),
    "mask1": ("red", "o", "-"),
    "standard": ("grey", "^", "-"),
    "rewind": ("orange", "v", "-"),
    "acdc": ("green", "o", "-"),
    "rigl": ("blue", "s", "-"),
    "str": ("red", "^", "-"),
    "random": ("grey", "v", "--"),
    "snip": ("orange", "D", ":"),
    "grasp": ("purple", "X", ":"),
    "synflow": ("sky", "P", ":"),
    "masks": ("red", "^", "-"),
    "survivors": ("blue", "o", "-"),
    "initialisationend": ("blue", "o", "-"),
    "initialisationwarmup": ("red", "^", "-"),
    "warmupend": ("green", "s", "-"),
}
_MARKS = "os^DvPX*"


def style() -> AbstractContextManager[None]:
    """Return a context in which figures are made in the library's style.

    A figure that a function of this module makes has the style without it. Use it around a figure
    of your own; outside, matplotlib's settings are as before.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> with plot.style():
        ...     left, right = Figure(layout="constrained").subplots(1, 2)
        >>> left.spines.top.get_visible()
        False
    """
    return matplotlib.rc_context(_STYLE)


def looks(labels: Sequence[str], given: Mapping[str, Look] | None = None) -> dict[str, Look]:
    """Return the colour, mark and line of each label of a figure.

    A label that names a role (``"dense"``, ``"mask1"``, ``"AC/DC"``, ``"SNIP"``) looks the same in
    every figure. Case and punctuation do not count. Other labels take the colours that are left.

    Args:
        labels: what the legend will say, in order.
        given: arguments of matplotlib's ``plot`` by label, which come before the defaults.

    Returns:
        Arguments of ``plot`` by label, the label among them.

    Example:
        >>> from polarity import plot
        >>> found = plot.looks(["dense", "ours"], {"ours": {"marker": "*"}})
        >>> found["ours"]["color"] == plot.PALETTE["blue"], found["ours"]["marker"]
        (True, '*')
    """
    check_type("labels", labels, Sequence, "a sequence of labels")
    # Without matplotlib's short names: "ls" and "linestyle" together are an error.
    own = {
        label: normalize_kwargs(dict(given[label]), Line2D)
        for label in labels
        if given and label in given
    }
    roles = {label: _ROLES.get("".join(filter(str.isalnum, label)).lower()) for label in labels}
    taken = {role[0] for role in roles.values() if role}
    taken |= {
        name for name, code in PALETTE.items() for look in own.values() if code in look.values()
    }
    free = [name for name in PALETTE if name not in taken] or list(PALETTE)
    found: dict[str, Look] = {}
    place = 0
    for label in labels:
        role = roles[label]
        if role is None:
            role = (free[place % len(free)], _MARKS[place % len(_MARKS)], "-")
            place += 1
        color, marker, line = role
        default = {"color": PALETTE[color], "marker": marker, "linestyle": line, "label": label}
        found[label] = {**default, **own.get(label, {})}
    return found


def legend(
    figure: Figure, *, where: str = "above", columns: int | None = None, **text: Any
) -> None:
    """Explain what is drawn in a figure outside of its panels, where it hides nothing.

    A label that several panels have appears once. The figure gets a constrained layout, which makes
    room for the legend, if it has no layout.

    Args:
        figure: the figure, as ``ax.figure``.
        where: ``"above"``, ``"below"`` or ``"right"`` of the panels.
        columns: entries in a row; by default all, at most 4, and 1 at the right.
        **text: arguments of ``Figure.legend``, such as ``title``.

    Raises:
        ValueError: if ``where`` is something else.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from polarity import plot
        >>> figure = Figure()
        >>> for axes in figure.subplots(1, 2):
        ...     _ = axes.plot([1, 2], label="ours")
        >>> plot.legend(figure)
        >>> [entry.get_text() for entry in figure.legends[0].get_texts()]
        ['ours']
    """
    check_type("figure", figure, Figure, "a matplotlib Figure: ax.figure, for instance")
    places = {"above": "upper center", "below": "lower center", "right": "right center"}
    check_choice("where", where, tuple(places))
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    if columns is None:
        columns = 1 if where == "right" else min(4, len(handles))
    check_integer("columns", columns, at_least=1)
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    text = {"loc": f"outside {places[where]}", "ncols": columns, **text}
    figure.legend(list(handles.values()), list(handles), **text)


@contextmanager
def canvas(ax: Axes | None, size: tuple[float, float]) -> Iterator[Axes]:
    """Draw into ``ax`` as it is, or into a new figure in the library's style with its legend."""
    if ax is not None:
        check_type("ax", ax, Axes, "a matplotlib Axes, or None for a new figure")
        yield ax
        return
    with style():
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots()
        legend(figure)


def check_looks(given: Mapping[str, Look] | None) -> None:
    """Raise unless looks are a mapping of mappings, or None."""
    if given is None:
        return
    check_mapping("looks", given, "{label: arguments of plot}")
    for label, look in given.items():
        check_mapping(
            f"looks[{label!r}]", look, "arguments of plot: {'color': 'red'}, for instance"
        )
