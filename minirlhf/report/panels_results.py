"""Panels of what came of it: before against after. Each function draws on the axes it is given."""

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from minirlhf.evaluation.frontier import fit_curve, overoptimized_from
from minirlhf.report.inputs import Inputs, shorten
from minirlhf.report.style import (
    BLUE,
    FAINT,
    GREEN,
    GRID,
    INK,
    ORANGE,
    SYSTEMS,
    label_axes,
    name_systems,
    rows_on_y,
    whisker,
)
from minirlhf.statistics.bootstrap import Estimate
from minirlhf.statistics.intervals import mean_interval

MEASURES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
PARTS = {
    "covered": "facts covered",
    "wrong": "facts wrong",
    "filler": "filler clauses",
    "repeated": "facts said again",
    "unparsable": "clauses nobody can parse",
    "over_length": "words over the limit",
    "unended": "cut off",
}
KL_TICKS = (0, 0.25, 1, 2, 4, 9, 16, 25, 49, 100, 196, 400)


def distribution(inputs: Inputs, ax: Axes, table: str, unit: str) -> None:
    """Histograms of the systems, as outlines over each other."""
    name = table.removeprefix("summary_").removesuffix("s")
    rows = inputs.plots[table]
    centres = [row[name] for row in rows]
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 0.5
    edges = [centre - half for centre in centres] + [centres[-1] + half]
    for system, (text, color) in name_systems(inputs.algorithm).items():
        shares = [row[system] for row in rows]
        ax.stairs(shares, edges, color=color, linewidth=1.6, label=text)
        if system != "reference":
            ax.stairs(shares, edges, color=color, fill=True, alpha=0.18)
    ax.legend(loc="best", frameon=False, labelcolor="linecolor", handlelength=1.2, fontsize=8.5)
    ax.set_ylim(bottom=0)
    label_axes(ax, unit, "% of summaries in each bin")


def reward_distribution(inputs: Inputs, ax: Axes) -> None:
    """Rewards of the summaries before and after PPO."""
    distribution(inputs, ax, "rewards", "training reward (authors' mean: 0)")


def length_distribution(inputs: Inputs, ax: Axes) -> None:
    """Lengths of the summaries before and after PPO."""
    distribution(inputs, ax, "summary_lengths", "tokens, end token included")


def scores(inputs: Inputs, ax: Axes) -> None:
    """The mean score of each system, at its best temperature (filled) and at the training temperature (open)."""
    names = []
    for at, (system, (text, color)) in enumerate(name_systems(inputs.algorithm).items()):
        names.append(text)
        sampled = inputs.measure(system, inputs.scoring)
        row = inputs.measure(system, inputs.scoring, "best") or sampled
        whisker(ax, row, at, color)
        ax.annotate(f"{row['value']:.2f}", (row["value"], at), xytext=(0, 8), textcoords="offset points", ha="center",
                    fontsize=8.5, color=color)  # fmt: skip
        if row is not sampled:
            whisker(ax, sampled, at + 0.28, color, filled=False, size=5)
    rows_on_y(ax, names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.margins(x=0.12)
    label_axes(ax, f"mean {inputs.score_name} (open: training temperature)", "")


def temperatures(inputs: Inputs, ax: Axes) -> None:
    """Mean score on validation posts against temperature, of each policy and of best-of-n; the chosen one is filled."""
    systems = {name: named for name, named in name_systems(inputs.algorithm).items() if name != "reference"}
    systems["best-of-n"] = ("best of n of SFT", GREEN)
    for system, (text, color) in systems.items():
        rows = [row for row in inputs.plots["temperatures"] if row["system"] == system]
        if not rows:
            continue
        x, y = [row["temperature"] for row in rows], [row["value"] for row in rows]
        ax.vlines(
            x, [row["low"] for row in rows], [row["high"] for row in rows], color=color, alpha=0.45, linewidth=2.2
        )
        ax.plot(x, y, color=color, label=text)
        for row in rows:
            face = color if row["chosen"] else "white"
            ax.plot([row["temperature"]], [row["value"]], "o", color=color, markerfacecolor=face, zorder=3)
    ax.legend(loc="best", frameon=False, labelcolor="linecolor", handlelength=0.8, fontsize=8.5)
    label_axes(ax, "temperature (0: greedy)", f"{inputs.score_name}, validation")


def seeds(inputs: Inputs, ax: Axes) -> None:
    """The mean scores of every training seed, SFT and PPO joined; below, the means over seeds with their intervals."""
    rows = inputs.plots["seeds"]
    for at, row in enumerate(rows):
        ax.plot([row["sft_score"], row["ppo_score"]], [at, at], color=GRID, linewidth=1.6, zorder=1)
        for system in ("sft", "ppo"):
            ax.plot([row[f"{system}_score"]], [at], "o", color=SYSTEMS[system][1], markersize=5, zorder=2)
    names = [f"seed {row['seed']}" for row in rows]
    if len(rows) > 1:
        for system in ("sft", "ppo"):
            text, color = SYSTEMS[system]
            mean = mean_interval([row[f"{system}_score"] for row in rows])
            whisker(ax, mean, len(rows), color)
            ax.annotate(f"{text} {mean['value']:.2f}", (mean["value"], len(rows)), xytext=(0, 8),
                        textcoords="offset points", ha="center", fontsize=8.5, color=color)  # fmt: skip
        names.append("mean")
    rows_on_y(ax, names)
    ax.margins(x=0.12)
    label_axes(ax, f"mean {inputs.score_name}", "")


def rouge(inputs: Inputs, ax: Axes) -> None:
    """ROUGE against the authors' summaries."""
    for at, measure in enumerate(MEASURES):
        for system, shift in (("sft", -0.13), ("ppo", 0.13)):
            text, color = name_systems(inputs.algorithm)[system]
            row = next(r for r in inputs.plots["rouge"] if (r["system"], r["measure"]) == (system, measure))
            whisker(ax, row, at + shift, color)
            if at == 0:
                ax.annotate(text, (row["high"], at + shift), xytext=(6, 0), textcoords="offset points", va="center",
                            color=color, fontsize=8.5)  # fmt: skip
    rows_on_y(ax, list(MEASURES.values()))
    ax.margins(x=0.15)
    label_axes(ax, "F-measure", "")


def win_rates(inputs: Inputs, ax: Axes) -> None:
    """Win rates by each judge: sampled summaries, as they are (filled) and with lengths matched (open)."""
    rows = [row for row in inputs.plots["win_rates"] if row["decoding"] == "best"]
    labels = {system: label for system, (label, _) in name_systems(inputs.algorithm).items()}
    names, places, at = [], [], 0.0
    for judge in dict.fromkeys(row["judge"] for row in rows):
        color = ORANGE if judge == inputs.judge else FAINT
        across = ax.get_yaxis_transform()
        ax.text(0.012, at, f"by {shorten(judge)}", transform=across, color=color, va="center", fontsize=8)
        for system, against in (("ppo", "sft"), ("ppo", "reference"), ("sft", "reference")):
            at += 0.75
            wanted = (judge, system, against)
            pair = {row["lengths"]: row for row in rows if (row["judge"], row["system"], row["against"]) == wanted}
            row = pair["as they are"]
            whisker(ax, row, at - 0.13, color)
            whisker(ax, pair["matched"], at + 0.17, color, filled=False, size=5)
            ax.annotate(f"{row['value']:.0%}", (row["high"], at - 0.13), xytext=(5, 0), textcoords="offset points",
                        va="center", fontsize=8, color=color)  # fmt: skip
            names.append(f"{labels[system]} v {labels[against]}")
            places.append(at)
        at += 0.9
    ax.axvline(0.5, color=INK, linewidth=1, zorder=1)
    rows_on_y(ax, names, places)
    ax.set_ylim(at - 0.4, -0.4)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(ax, "win rate, ties one half (open: lengths matched)", "")


def slices(inputs: Inputs, ax: Axes) -> None:
    """Win rate of PPO against SFT by slices of the posts."""
    rows = inputs.plots["slices"]
    for at, row in enumerate(rows):
        whisker(ax, row, at, ORANGE if row["slice"] == "post length" else BLUE, size=5.5)
    ax.axvline(0.5, color=INK, linewidth=1)
    rows_on_y(ax, [f"{shorten(row['group'])} ({row['posts']})" for row in rows])
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(ax, f"win rate of {inputs.algorithm} against SFT", "")


def facts(inputs: Inputs, ax: Axes) -> None:
    """Which facts the summaries cover: the authors', SFT's, PPO's."""
    rows = inputs.plots["facts"]
    names = list(dict.fromkeys(row["fact"] for row in rows))
    for row in rows:
        at = names.index(row["fact"]) + {"reference": -0.22, "sft": 0.0, "ppo": 0.22}[row["system"]]
        color = SYSTEMS[row["system"]][1]
        for status, filled in (("covered", True), ("wrong", False)):
            numbers = {"value": row[status], "low": row[f"{status}_low"], "high": row[f"{status}_high"]}
            whisker(ax, numbers, at, color, filled, size=4.8)
    rows_on_y(ax, names)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(ax, "share of summaries: fact covered (filled), told wrong (open)", "")
    _system_legend(inputs, ax)


def gold_parts(inputs: Inputs, ax: Axes) -> None:
    """What the gold judge takes points off for."""
    rows = [row for row in inputs.plots["gold_parts"] if row["measure"] != "covered"]
    names = list(dict.fromkeys(row["measure"] for row in rows))
    for row in rows:
        at = names.index(row["measure"]) + {"reference": -0.22, "sft": 0.0, "ppo": 0.22}[row["system"]]
        whisker(ax, row, at, SYSTEMS[row["system"]][1], size=5)
    rows_on_y(ax, [PARTS.get(name, name) for name in names])
    label_axes(ax, "mean number a summary", "")
    _system_legend(inputs, ax)


def frontier(score: str):
    """A panel of `gold` (a judge's) or `proxy` (the training reward) against KL: best-of-n from SFT, and PPO's path."""

    def draw(inputs: Inputs, ax: Axes) -> None:
        rows = inputs.plots["frontier"]
        methods = (
            ("best-of-n", "best of n", GREEN),
            ("ppo", inputs.algorithm, ORANGE),
            ("round", "earlier rounds", BLUE),
        )
        for method, text, color in methods:
            points = [row for row in rows if row["method"] == method]
            if not points:
                continue
            x, y = [max(row["kl"], 0.0) ** 0.5 for row in points], [row[score] for row in points]
            low, high = ([row[f"{score}_{end}"] for row in points] for end in ("low", "high"))
            ax.vlines(x, low, high, color=color, alpha=0.45, linewidth=2.2)
            ax.plot(x, y, "o", color=color, markersize=4.8, clip_on=False, zorder=3, label=text)
            if method != "round":  # each is a policy of its own
                _line(ax, method, points, score, color)
        _over_optimization(ax, rows, score)
        limit = ax.get_xlim()[1]
        shown = [kl for kl in KL_TICKS if kl**0.5 <= limit]
        ax.set_xticks([kl**0.5 for kl in shown], [f"{kl:g}" for kl in shown])
        ax.set_xlim(left=0)
        ax.legend(loc="best", frameon=False, labelcolor="linecolor", handlelength=0.8, fontsize=8.5)
        name = "training reward" if score == "proxy" else inputs.score_name
        label_axes(ax, "KL from SFT in nats (square-root scale)", name)

    draw.__doc__ = f"{score} against KL from the SFT policy."
    return draw


def rounds(inputs: Inputs, ax: Axes) -> None:
    """The score of SFT and of the policy after each round of feedback, at the training temperature."""
    names = []
    for at, row in enumerate(inputs.rounds):
        names.append(f"after {row['learnt']}" if row["learnt"] else "SFT")
        whisker(ax, row["score"], at, ORANGE if row["learnt"] else BLUE)
    rows_on_y(ax, names)
    label_axes(ax, f"mean {inputs.score_name}", "rounds of feedback")


def _line(ax: Axes, method: str, points: list[dict], score: str, color: str) -> None:
    """Join the points; by the curve of Gao et al. 2022 where it is the judge's score and there are enough of them."""
    kl, y = [row["kl"] for row in points], [row[score] for row in points]
    curve = fit_curve(method, kl, [value - y[0] for value in y]) if score == "gold" else None
    if curve is None:
        ax.plot([max(value, 0.0) ** 0.5 for value in kl], y, color=color)
        return
    distances = [max(kl) ** 0.5 * step / 60 for step in range(61)]
    ax.plot(distances, [y[0] + curve.gain(d * d) for d in distances], color=color, linewidth=1.4)


def _over_optimization(ax: Axes, rows: list[dict], score: str) -> None:
    """Mark the point of PPO's path after which the reward still rises while the judge's score is lost."""
    points = [row for row in rows if row["method"] == "ppo"]
    peak = over_optimization(rows)
    if peak is None:
        return
    row = points[peak]
    ax.axvline(row["kl"] ** 0.5, color=INK, linewidth=1, linestyle=(0, (3, 3)))
    ax.annotate("over-optimized from here", (row["kl"] ** 0.5, 0.03), xycoords=ax.get_xaxis_transform(), xytext=(4, 0),
                textcoords="offset points", fontsize=8, color=INK)  # fmt: skip


def over_optimization(rows: list[dict]) -> int | None:
    """Which point of PPO's path in the frontier's rows is the last good one, if later ones are over-optimized."""
    points = [row for row in rows if row["method"] == "ppo" and row["gold"] is not None]
    gold = [Estimate(row["gold"], row["gold_low"], row["gold_high"]) for row in points]
    return overoptimized_from([row["proxy"] for row in points], gold) if points else None


frontier_gold, frontier_proxy = frontier("gold"), frontier("proxy")


def _system_legend(inputs: Inputs, ax: Axes) -> None:
    for text, color in name_systems(inputs.algorithm).values():
        ax.plot([], [], "o", color=color, label=text, markersize=5)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, labelcolor="linecolor",
              handlelength=0.8, columnspacing=1.4, fontsize=8.5)  # fmt: skip
