"""Panels of what happened while the models trained. Each function draws on the axes it is given."""

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from minirlhf.report.inputs import Inputs
from minirlhf.report.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    label_axes,
    label_end,
    rows_on_y,
    smooth,
    whisker,
)

SMOOTHED = 40  # points of a curve beyond which a running mean is drawn over it
# The faults that the reward model is probed with, as they are called in a sentence.
PROBES = {
    "wrong": "wrong facts",
    "misread": "misread facts",
    "missing": "missing facts",
    "filler": "filler",
    "repeated": "repetition",
    "ungrammatical": "shuffled words",
    "cut": "a missing end",
}


def curve(ax: Axes, x: list[float], y: list[float], color: str) -> None:
    """A line; a long and noisy one is drawn faintly under its running mean."""
    if len(x) > SMOOTHED:
        ax.plot(x, y, color=color, alpha=0.28, linewidth=1)
        y = smooth(y, len(x) // 12 | 1)
    ax.plot(x, y, color=color)


def losses(inputs: Inputs, ax: Axes, table: str, unit: str) -> None:
    """Training and validation loss of a stage that TRL trains."""
    for name, text, color, shift in (
        ("train_loss", "training", GREY, -5),
        ("eval_loss", "held out", BLUE, 5),
    ):
        x, y = inputs.column(table, name)
        if x:
            ax.plot(x, y, color=color, marker="o" if name == "eval_loss" else None, markersize=4)
            label_end(ax, x, y, text, color, shift)
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    label_axes(ax, "optimizer step", unit)


def sft_loss(inputs: Inputs, ax: Axes) -> None:
    """Loss of supervised fine-tuning, on summary tokens."""
    losses(inputs, ax, "sft", "nats a summary token")


def reward_loss(inputs: Inputs, ax: Axes) -> None:
    """Loss of the reward model; ln 2 is what guessing costs."""
    losses(inputs, ax, "reward", "nats a comparison")
    ax.axhline(0.6931, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    ax.text(0.98, 0.70, "guessing", transform=ax.get_yaxis_transform(), color=FAINT, fontsize=8, ha="right")
    ax.set_ylim(0, max(0.8, ax.get_ylim()[1]))


def calibration(inputs: Inputs, ax: Axes) -> None:
    """How often annotators agreed where the reward model was so sure; on the diagonal where it is honest."""
    rows = inputs.plots["calibration"]
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    largest = max(row["count"] for row in rows)
    x, y = ([row[name] for row in rows] for name in ("predicted", "observed"))
    ax.plot(x, y, color=PURPLE, linewidth=1.2, alpha=0.5)
    ax.scatter(x, y, s=[12 + 90 * row["count"] / largest for row in rows], color=PURPLE, zorder=3, linewidths=0)
    ax.text(0.97, 0.06, "area: number of comparisons", transform=ax.transAxes, ha="right", color=FAINT, fontsize=8)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(ax, "reward model: chance to be preferred", "annotators: preferred")


def _shares(ax: Axes, rows: list[dict], color: str) -> None:
    """Shares with standing intervals against the margin, above the line of guessing."""
    x = [row["margin"] for row in rows]
    ax.vlines(x, [row["low"] for row in rows], [row["high"] for row in rows], color=color, alpha=0.45, linewidth=2.2)
    ax.plot(x, [row["value"] for row in rows], color=color, marker="o", markersize=4.8, linewidth=1.4)


def _from_guessing_to_certain(ax: Axes) -> None:
    ax.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    ax.text(0.98, 0.51, "guessing", transform=ax.get_yaxis_transform(), color=FAINT, fontsize=8, ha="right")
    ax.set_xlim(left=0)
    ax.set_ylim(min(0.45, ax.get_ylim()[0]), 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def reward_margins(inputs: Inputs, ax: Axes) -> None:
    """Accuracy where the reward model's two scores are close, and where they are far apart."""
    _shares(ax, inputs.plots["reward_margins"], PURPLE)
    _from_guessing_to_certain(ax)
    label_axes(ax, "distance of the two scores", "annotators agree")


def gold_margins(inputs: Inputs, ax: Axes) -> None:
    """How often the reward model, and the annotators it learnt from, order two summaries as the gold judge does."""
    table = inputs.plots["gold_margins"]
    series = {who: [row for row in table if row["who"] == who] for who in ("annotators", "model")}
    last = max(row["margin"] for row in table)
    nudge = last / 100  # so that no interval hides another
    highest = max(series, key=lambda who: series[who][-1]["value"])
    for who, text, color, side in (("annotators", "annotators", GREY, -1), ("model", "reward model", PURPLE, 1)):
        rows = [row | {"margin": row["margin"] + side * nudge} for row in series[who]]
        _shares(ax, rows, color)
        label_end(ax, [last + nudge], [rows[-1]["value"]], text, color, 6 if who == highest else -6)
    _from_guessing_to_certain(ax)
    label_axes(ax, "distance of the two gold scores", "in gold's order")


def reward_probes(inputs: Inputs, ax: Axes) -> None:
    """How often the reward model scores a clean summary above the same with one fault."""
    rows = inputs.plots["reward_probes"]
    for at, row in enumerate(rows):
        color = ORANGE if is_blind(row) else PURPLE
        whisker(ax, row, at, color)
        ax.annotate(f"{row['value']:.0%}", (row["high"], at), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=8, color=color)  # fmt: skip
    ax.axvline(0.5, color=INK, linewidth=1, zorder=1)
    rows_on_y(ax, [PROBES.get(row["probe"], row["probe"]) for row in rows])
    ax.set_xlim(0, 1.13)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(ax, "the clean summary is preferred", "")


def is_blind(row: dict) -> bool:
    """Whether a row of details/reward_probes.csv shows no preference for the clean summary beyond its interval."""
    return row["low"] <= 0.5


def ppo_curve(name: str, unit: str, color: str = ORANGE, zero: bool = False, percent: bool = False, held_out: str = ""):
    """A panel of one column of details/ppo.csv, with its value on held-out posts where there is one."""

    def draw(inputs: Inputs, ax: Axes) -> None:
        x, y = inputs.column("ppo", name)
        curve(ax, x, y, color)
        if held_out and held_out in inputs.plots["ppo"][0]:
            pairs = [(row["episodes"], row[held_out]) for row in inputs.plots["ppo"] if row[held_out] is not None]
            if pairs:
                ax.plot(*zip(*pairs, strict=True), "o", color=INK, markersize=4)
                ax.text(0.98, 0.05, "dots: held-out posts", transform=ax.transAxes, ha="right", color=INK, fontsize=8)
        if zero:
            ax.axhline(0, color=FAINT, linewidth=1)
        if percent:
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        label_axes(ax, "episodes", unit)

    draw.__doc__ = f"{name} along PPO's training."
    return draw


ppo_reward = ppo_curve("reward", "reward", held_out="eval_reward")
ppo_kl = ppo_curve("kl", "nats a response", held_out="eval_kl")
ppo_length = ppo_curve("length", "tokens", held_out="eval_length")
ppo_ended = ppo_curve("ended", "share of responses", percent=True, held_out="eval_ended")
ppo_entropy = ppo_curve("entropy", "nats a token")
ppo_policy_loss = ppo_curve("policy_loss", "loss", PURPLE, zero=True)
ppo_value_loss = ppo_curve("value_loss", "squared reward", PURPLE)
ppo_explained = ppo_curve("explained_variance", "share of variance", PURPLE, zero=True)
ppo_clipped = ppo_curve("clip_fraction", "share of tokens", GREEN, percent=True)
ppo_gradient = ppo_curve("policy_grad_norm", "norm before clipping", GREEN)


def post_lengths(inputs: Inputs, ax: Axes) -> None:
    """Lengths of the training posts and of their authors' summaries."""
    for column, text, color in (("prompt", "posts", BLUE), ("completion", "summaries", GREY)):
        rows = [row for row in inputs.plots["lengths"] if (row["source"], row["column"]) == ("posts", column)]
        if not rows:
            continue
        x, y = [row["tokens"] for row in rows], [row["share"] * 100 for row in rows]
        width = x[1] - x[0] if len(x) > 1 else 1
        ax.stairs(y, [*x, x[-1] + width], color=color, fill=True, alpha=0.25)
        ax.stairs(y, [*x, x[-1] + width], color=color, linewidth=1.4)
        peak = y.index(max(y))
        ax.annotate(text, (x[peak] + width / 2, y[peak]), xytext=(0, 4), textcoords="offset points", color=color,
                    ha="center", fontsize=8.5)  # fmt: skip
    ax.set_ylim(0, ax.get_ylim()[1] * 1.08)  # room for the names
    label_axes(ax, "tokens", "% of the rows in each bin")
