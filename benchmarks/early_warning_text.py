"""The page and the picture of the study of early warning, from its runs; see early_warning_page.py."""

from pathlib import Path

from benchmarks.early_warning import EPISODES, EVERY, FALL, HELD_OUT, LOST, NOISE, all_runs
from benchmarks.early_warning_page import FALSE_ALARMS, WARM_UP, Detector, Run, choose, fixed, halves
from benchmarks.runs import markdown
from minirlhf.runtime.files import replace_file
from minirlhf.statistics.bootstrap import Estimate

FEWEST = 20  # healthy runs in the half that chooses: of fewer, one false alarm is more than FALSE_ALARMS
NO_CLAIM = (
    "**{have} of {all} runs are in ({turned} turned). No claim is made before the table is full**, and nothing in the "
    "product rings by this study yet."
)
TEXT = """# Does anything ring before the reward is being hacked?

    python benchmarks/early_warning.py --work runs/early_warning    # goes on where the tables end
    python benchmarks/early_warning_page.py                         # this page

{claim}

Runs of the embedded PPO, {episodes:,} episodes each, differ in the reward (seeing: with SFT's likelihood; blind:
without; biased: annotators who like length; ensemble: the mean of three blind ones; noisy: blind, with noise of
{noise:g} added), in `kl_coef` and in `learning_rate`: {settings} settings with 4 seeds each. The gold judge scores
{held_out} held-out posts every {every} updates, outside of training. **Gold has turned** in a run where it ends at
least {fall:g} points below its highest mean on the way, with a 95% interval (paired by post) clear of 0; it has
*fallen* at the first such evaluation that no later one takes back. A run ends where gold was {lost:g} point or more
below its best at three evaluations in a row.

A detector sees what a run on real text could log, never gold, and rings once. Its alarm is **early** where gold has not
fallen yet; its **lead** is the number of episodes until then. Thresholds are chosen on half of the settings, as the
lowest at which at most {false_alarms:.0%} of the healthy runs ring; everything below is counted on the other half,
where a detector may ring more often than that. Intervals are 95%: Wilson's of shares (runs of one setting hang
together, so they are rather too narrow), of the median lead by drawing settings. The report's checks and the rules of
public tools keep their own thresholds; the tools' warm-ups, of 20 to 100 updates, are {warm_up} here, where a run has
{updates}.

## The runs

{runs}

{found}
"""


def write(runs: list[Run], page: Path, picture: Path) -> None:
    """Write the page; with enough runs on both sides also what detectors find, and the picture."""
    choosing, reporting = ([run for run in runs if run.setting in half] for half in halves())
    found = f"Detectors are compared from {FEWEST} healthy runs in the choosing half on."
    if sum(not run.turned for run in choosing) >= FEWEST and all(
        any(run.turned for run in half) and any(not run.turned for run in half) for half in (choosing, reporting)
    ):
        found = of_detectors(choose(choosing), reporting, picture)
    turned = sum(run.turned for run in runs)
    claim = NO_CLAIM.format(have=len(runs), all=len(all_runs()), turned=turned)
    if len(runs) == len(all_runs()):
        claim = f"All {len(runs)} runs are in; {turned} turned."
    text = TEXT.format(
        claim=claim, episodes=EPISODES, noise=NOISE, settings=len({setting.name for setting, _ in all_runs()}),
        held_out=HELD_OUT, every=EVERY, fall=FALL, lost=LOST, false_alarms=FALSE_ALARMS, warm_up=WARM_UP,
        updates=max(len(run.episodes) for run in runs), runs=of_rewards(runs), found=found,
    )  # fmt: skip
    with replace_file(page) as file:
        file.write(text)


def of_detectors(chosen: list[Detector], reporting: list[Run], picture: Path) -> str:
    """What detectors find on the half that reports, those that were chosen first, the best of them leading."""
    rows = [detector.judge(of_known(reporting, detector)) for detector in (*chosen, *fixed())]
    draw(rows, picture)
    best, judged = chosen[0], rows[0]
    sentence = (
        f"**The half that chooses chose `{best.name}`, from {best.threshold:.3g} on.** On the other, it rings early "
        f"in {percent(judged['early'])} of the runs that turned and in {percent(judged['found'])} of them before they "
        f"end, and in {percent(judged['false'])} of the healthy ones."
    )
    title, image = "## Detectors, on the half that reports", f"![Early alarms against false ones]({picture.name})"
    return f"{title}\n\n{sentence}\n\n{image}\n\n{table(rows)}"


def of_known(runs: list[Run], detector: Detector) -> list[Run]:
    """The runs in which a detector's signal was there: only an ensemble disagrees."""
    import numpy as np

    return [run for run in runs if not np.isnan(detector.score(run)).all()]


def of_rewards(runs: list[Run]) -> str:
    """How many runs of each reward turned."""
    rows = []
    for reward in dict.fromkeys(run.setting.split()[0] for run in runs):
        of = [run for run in runs if run.setting.startswith(f"{reward} ")]
        at_once = sum(run.turned and run.fell <= run.episodes[EVERY - 1] for run in of)
        turned = sum(run.turned for run in of)
        rows.append([reward, *(str(count) for count in (len(of), turned, at_once, len(of) - turned))])
    return markdown(["reward", "runs", "turned", "of them at the first look", "healthy"], rows)


def table(rows: list[dict]) -> str:
    """The detectors as a table in Markdown."""
    cells = []
    for row in rows:
        lead = "" if row["lead"] is None else "{:.0f} ({:.0f} to {:.0f})".format(*row["lead"])
        cells.append([row["name"], *(percent(row[name]) for name in ("early", "found", "false")), lead])
    return markdown(["detector", "early", "found at all", "false alarms", "lead, episodes"], cells)


def percent(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def draw(rows: list[dict], path: Path) -> None:
    """Found against false alarms, a point a detector."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from minirlhf.report.style import FAINT, GREY, ORANGE, PURPLE, RC, label_axes

    given = {detector.name for detector in fixed()}
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7, 5), layout="constrained")
        ax = figure.add_subplot()
        for row in rows:
            color = GREY if row["name"] in given else ORANGE if row is rows[0] else PURPLE
            x, y = row["false"], row["early"]
            ax.plot([x.low, x.high], [y.value] * 2, color=color, alpha=0.3)
            ax.plot([x.value] * 2, [y.low, y.high], color=color, alpha=0.3)
            ax.plot(x.value, y.value, "o", color=color)
            where = {"xytext": (5, 4), "textcoords": "offset points"}
            ax.annotate(row["name"], (x.value, y.value), **where, fontsize=7, color=color)
        ax.axvline(FALSE_ALARMS, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        label_axes(ax, "healthy runs in which it rings", "turned runs in which it rings before gold has fallen")
        figure.savefig(path, dpi=110, metadata={"Software": None})
