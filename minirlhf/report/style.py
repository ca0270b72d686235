"""Colours, fonts and the few marks that all panels share.

The colours are Okabe and Ito's, which people with colour-blindness can tell apart. On the page each of them becomes a
CSS variable, so that one drawing serves light and dark.
"""

from textwrap import fill

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes

INK, FAINT, GRID, PAPER = "#1f2430", "#606a7e", "#e4e7ec", "#ffffff"
BLUE, ORANGE, GREEN, GREY, PURPLE = "#0072b2", "#d55e00", "#009e73", "#7a8190", "#8a5aa8"
SYSTEMS = {"reference": ("author", GREY), "sft": ("SFT", BLUE), "ppo": ("PPO", ORANGE)}


def name_systems(algorithm: str) -> dict[str, tuple[str, str]]:
    """SYSTEMS, in which the aligned policy is called by the algorithm that aligned it."""
    return {**SYSTEMS, "ppo": (algorithm, ORANGE)}


# What a colour is called in the page's style sheet.
VARIABLES = {INK: "ink", FAINT: "faint", GRID: "grid", PAPER: "paper", BLUE: "blue", ORANGE: "orange",
             GREEN: "green", GREY: "grey", PURPLE: "purple"}  # fmt: skip

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same pixels everywhere
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.labelcolor": FAINT,
    "axes.labelsize": 8.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "ytick.major.size": 0,
    "text.color": INK,
    "text.parse_math": False,  # a subreddit or a judge may have dollars in its name
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text: it can be read, searched and selected
    "path.simplify": True,
}


def label_axes(ax: Axes, x: str, y: str) -> None:
    """Name both axes, a long name (of a judge, say) on several lines; an empty one takes no room."""
    ax.set_xlabel(fill(x, 62))  # characters that fit the half of a page
    ax.set_ylabel(fill(y, 40))


def label_end(ax: Axes, x: list[float], y: list[float], text: str, color: str, shift: float = 0.0) -> None:
    """Write a line's name at its right end; `shift` in points moves it up."""
    ax.annotate(
        text, (x[-1], y[-1]), xytext=(5, shift), textcoords="offset points", color=color, va="center", fontsize=8.5,
        annotation_clip=False,
    )  # fmt: skip


def whisker(ax: Axes, row: dict, at: float, color: str, filled: bool = True, size: float = 6.5) -> None:
    """A value with its interval, lying across at height `at`."""
    options = {"color": color, "clip_on": False}  # at 100% a mark would be cut in half
    ax.plot([row["low"], row["high"]], [at, at], linewidth=2.2, zorder=2, **options)
    face = color if filled else PAPER
    mark = {"markersize": size, "markerfacecolor": face, "markeredgewidth": 1.6}
    ax.plot([row["value"]], [at], "o", zorder=3, **options, **mark)


def rows_on_y(ax: Axes, names: list[str], places: list[float] | None = None) -> None:
    """One row a name, the first on top, with names in the place of ticks and no lines between."""
    ax.set_yticks(places or range(len(names)), names, color=INK)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def smooth(values: list[float], window: int) -> list[float]:
    """The mean over a centred window, which narrows towards both ends.

    >>> smooth([0.0, 3.0, 6.0, 9.0], 3)
    [0.0, 3.0, 6.0, 9.0]
    """
    halves = [min(window // 2, i, len(values) - 1 - i) for i in range(len(values))]
    around = [values[i - half : i + half + 1] for i, half in enumerate(halves)]
    return [sum(part) / len(part) for part in around]
