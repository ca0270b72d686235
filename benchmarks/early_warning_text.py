"""The page and the picture of the study of early warning, from its runs; see early_warning_page.py."""

from pathlib import Path

from benchmarks.early_warning import EPISODES, EVERY, FALL, HELD_OUT, NOISE, all_runs
from benchmarks.early_warning_page import CHECKS, FALSE_ALARMS, Detector, Run, choose, halves, of_signal
from minirlhf.runtime.files import replace_file

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
*fallen* at the first such evaluation that no later one takes back.

A detector sees what a run on real text could log, never gold, and rings once. It has **found** a turn where it rings
before gold has fallen; its **lead** is the number of episodes between. Thresholds are chosen on half of the
settings, as the lowest at which at most {false_alarms:.0%} of the healthy runs ring; everything below is counted on
the other half, where a detector may ring more often than that. Intervals are 95%: Wilson's of shares (runs of one
setting hang together, so they are rather too narrow), of the median lead by drawing settings. The report's checks
keep their own thresholds.

## The runs

{runs}

{found}
"""


def write(runs: list[Run], page: Path, picture: Path) -> None:
    """Write the page; with enough runs on both sides also what detectors find, and the picture."""
    choosing, reporting = ([run for run in runs if run.setting in half] for half in halves())
    rows: list[dict] = []
    if sum(not run.turned for run in choosing) >= FEWEST and all(
        any(run.turned for run in half) and any(not run.turned for run in half) for half in (choosing, reporting)
    ):
        checks = [Detector(name, of_signal(*rule[:3]), rule[3]) for name, rule in CHECKS.items()]
        rows = [detector.judge(of_known(reporting, detector)) for detector in (*choose(choosing), *checks)]
        rows.sort(key=lambda row: -(row["found"].value if row["found"] else 0))
    turned = sum(run.turned for run in runs)
    claim = NO_CLAIM.format(have=len(runs), all=len(all_runs()), turned=turned)
    if len(runs) == len(all_runs()):
        claim = f"All {len(runs)} runs are in; {turned} turned."
    found = f"Detectors are compared from {FEWEST} healthy runs in the choosing half on."
    if rows:
        draw(rows, picture)
        found = (
            f"## Detectors, on the half that reports\n\n![Found against false alarms]({picture.name})\n\n{table(rows)}"
        )
    text = TEXT.format(
        claim=claim, episodes=EPISODES, noise=NOISE, settings=len({setting.name for setting, _ in all_runs()}),
        held_out=HELD_OUT, every=EVERY, fall=FALL, false_alarms=FALSE_ALARMS, runs=of_rewards(runs), found=found,
    )  # fmt: skip
    with replace_file(page) as file:
        file.write(text)


def of_known(runs: list[Run], detector: Detector) -> list[Run]:
    """The runs in which a detector's signal was there: only an ensemble disagrees."""
    import numpy as np

    return [run for run in runs if not np.isnan(detector.score(run)).all()]


def of_rewards(runs: list[Run]) -> str:
    """How many runs of each reward turned."""
    lines = ["| reward | runs | turned | healthy |", "| --- | ---: | ---: | ---: |"]
    for reward in dict.fromkeys(run.setting.split()[0] for run in runs):
        of = [run for run in runs if run.setting.startswith(f"{reward} ")]
        turned = sum(run.turned for run in of)
        lines.append(f"| {reward} | {len(of)} | {turned} | {len(of) - turned} |")
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    header = "| detector | found | before gold's peak | false alarms | lead, episodes |"
    lines = [header, "| --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        shares = [
            "" if share is None else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
            for share in (row["found"], row["before the peak"], row["false"])
        ]
        lead = "" if row["lead"] is None else "{:.0f} ({:.0f} to {:.0f})".format(*row["lead"])
        lines.append(f"| {row['name']} | {' | '.join(shares)} | {lead} |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    """Found against false alarms, a point a detector."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from minirlhf.report.style import FAINT, GREY, ORANGE, PURPLE, RC, label_axes

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7, 5), layout="constrained")
        ax = figure.add_subplot()
        for row in rows:
            color = GREY if row["name"].startswith("report:") else ORANGE if "weighed" in row["name"] else PURPLE
            x, y = row["false"], row["found"]
            ax.plot([x.low, x.high], [y.value] * 2, color=color, alpha=0.3)
            ax.plot([x.value] * 2, [y.low, y.high], color=color, alpha=0.3)
            ax.plot(x.value, y.value, "o", color=color)
            where = {"xytext": (5, 4), "textcoords": "offset points"}
            ax.annotate(row["name"], (x.value, y.value), **where, fontsize=7, color=color)
        ax.axvline(FALSE_ALARMS, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        label_axes(ax, "healthy runs in which it rings", "turned runs found before gold has fallen")
        figure.savefig(path, dpi=110, metadata={"Software": None})
