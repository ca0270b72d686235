"""The page and the picture of the study of early warning, from its runs; see early_warning_page.py."""

from dataclasses import replace
from pathlib import Path

from benchmarks.early_warning import EPISODES, EVERY, FALL, HELD_OUT, LOST, NOISE, all_runs
from benchmarks.early_warning_page import FALSE_ALARMS, WARM_UP, Detector, Run, choose, fixed, halves, threshold_of
from benchmarks.runs import interval, markdown
from minirlhf.runtime.files import replace_file
from minirlhf.statistics.bootstrap import Estimate

DRAWN = 0.3  # of the turned runs: the picture leaves out who finds fewer
FEWEST = 20  # healthy runs in the half that chooses: of fewer, one false alarm is more than FALSE_ALARMS
TEXT = """# Does anything ring before the reward is being hacked?

    python benchmarks/early_warning.py --work runs/early_warning    # goes on where the tables end
    python benchmarks/early_warning_page.py                         # this page

{claim}

Runs of the embedded PPO, {episodes:,} episodes each, differ in the reward (seeing: with SFT's likelihood; blind:
without; biased: annotators who like length; ensemble: the mean of three blind ones; noisy: blind, with noise of
{noise:g} added), in `kl_coef` and in `learning_rate`: {settings} settings with 4 seeds each. The gold judge scores
{held_out} held-out posts every {every} updates, outside of training. **Gold has turned** in a run where it ends at
least {fall:g} points below its highest mean on the way; it has *fallen* at the first such evaluation that no later one
takes back. A run ends where gold was {lost:g} point or more below its best at three evaluations in a row.

A detector sees what a run on real text could log, never gold, and rings once. A turned run is **found** where it rings
at all, and **early** where gold has not fallen yet; the **lead** is the number of episodes until it has, negative where
it had before. Of each signal the best of its level, its change since the start, its speed and its acceleration stands
below, up or down, over one update or three. That and the threshold are chosen on half of the settings, as the lowest at
which at most {false_alarms:.0%} of the healthy runs ring; everything below is counted on the other half,
where a detector may ring more often than that. Of all signals weighed, threshold and rank are those of scores that a
run gets from weights learnt without its setting. Intervals are 95%: Wilson's of shares (runs of one setting hang
together, so they are rather too narrow), of medians by drawing settings. The report's checks and the rules of
public tools keep their own thresholds; the tools' warm-ups, of 20 to 100 updates, are {warm_up} here, where a run has
{updates}. "Found at {false_alarms:.0%}" takes for every detector the threshold at which so many of the healthy runs of
the reporting half itself ring: better than anybody could have known, and the same for all.

What is true of 25 tokens, of a model of 0.9M parameters, of rewards that err as these do and of learning rates at which
gold falls within a few updates need not be true elsewhere; nobody has measured it there.

## In the product

`minirlhf/ppo/early_warning.py` rings where the choosing half says so. PPO says it once and in its progress line; the
update stands in `metrics/ppo.json` (`ppo_alarm_update`), more in `details/ppo.json`, and the report's check "Far from
the SFT policy" reads it. `ppo.stop_on_alarm: true` ends the run there. Shown with one thread, by `python stages/ppo.py
--params PARAMS --reward REWARD`:

- `ppo.kl_coef: 0`, `ppo.stop_on_alarm: true` and the study's blind reward (`runs/early_warning/models/blind`): it rang
  at update 13 of 40 (832 episodes, 18.7 nats), and the run ended there
- params.yaml with `ppo_seed` 1, 2, 3, 4, 5 and the pipeline's reward: it never rang. KL ended between 5.3 and 6.4 nats;
  its highest of any update was 6.4 to 8.0 in four of them, and in the fifth 14.19, in a passing swing: just below the
  alarm

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
    claim = (
        f"{len(runs)} of the {len(all_runs())} runs of the study are in, in a random order; gold turned in {turned}."
    )
    text = TEXT.format(
        claim=claim, episodes=EPISODES, noise=NOISE, settings=len({setting.name for setting, _ in all_runs()}),
        held_out=HELD_OUT, every=EVERY, fall=FALL, lost=LOST, false_alarms=FALSE_ALARMS, warm_up=WARM_UP,
        updates=max(len(run.episodes) for run in runs), runs=of_rewards(runs), found=found,
    )  # fmt: skip
    with replace_file(page) as file:
        file.write(text)


def of_detectors(chosen: list[Detector], reporting: list[Run], picture: Path) -> str:
    """What detectors find on the half that reports, those that were chosen first, the best of them leading."""
    given = fixed()
    rows = [detector.judge(of_known(reporting, detector)) for detector in (*chosen, *given)]
    draw(rows, picture)
    best, judged = chosen[0], rows[0]
    sentence = (
        f"**The half that chooses chose `{best.name}`, from {best.threshold:.3g} on.** On the other, it rings in "
        f"{percent(judged['found'])} of the runs that turned, in {percent(judged['early'])} of them before gold had "
        f"fallen, and in {percent(judged['false'])} of the healthy ones. Where it rings on a turned run, gold is "
        f"{figures(judged['lost'], 1)} points below its highest; left alone, it ends "
        f"{figures(judged['lost in the end'], 1)} below."
    )
    parts = [
        "## Detectors, on the half that reports",
        sentence,
        f"![How often each rings on turned and on healthy runs]({picture.name})",
        "One signal, chosen; and all of them, by a logistic regression:",
        table(rows[: len(chosen)], reporting, chosen),
        "Rules that were there before:",
        table(rows[len(chosen) :], reporting, given),
    ]
    return "\n\n".join(parts)


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


def table(rows: list[dict], reporting: list[Run], detectors: list[Detector]) -> str:
    """Detectors as a table in Markdown, with what each would find at FALSE_ALARMS of this very half."""
    cells = []
    for row, detector in zip(rows, detectors, strict=True):
        known = of_known(reporting, detector)
        there = replace(detector, threshold=threshold_of(detector.score, known)).judge(known)
        shares = (percent(share) for share in (row["found"], row["early"], row["false"], there["found"]))
        cells.append([row["name"], *shares, figures(row["lead"]), figures(row["lost"], 1)])
    header = ["detector", "found", "early", "false alarms", f"found at {FALSE_ALARMS:.0%}", "lead, episodes"]
    return markdown([*header, "gold lost by then"], cells)


def figures(median: tuple[float, float, float] | None, digits: int = 0) -> str:
    """A median with its interval, of so many decimals; nothing where there is none."""
    return "" if median is None else "{0:.{3}f} ({1:.{3}f} to {2:.{3}f})".format(*median, digits)


def percent(share: Estimate | None) -> str:
    """A share with its interval; nothing where there is none."""
    return "" if share is None else interval(share, ".0%")


def draw(rows: list[dict], path: Path) -> None:
    """Of the detectors that find at least DRAWN of the turned runs: found, early and false alarms."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from minirlhf.report.style import FAINT, GREY, ORANGE, PURPLE, RC, label_axes

    shown = sorted((row for row in rows if row["found"].value >= DRAWN), key=lambda row: row["found"].value)
    kinds = {"found": (PURPLE, "of the runs that turned"), "early": (GREY, "of these, before gold had fallen")}
    kinds |= {"false": (ORANGE, "of the healthy runs")}
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8, 0.34 * len(shown) + 1.2), layout="constrained")
        ax = figure.add_subplot()
        for shift, (kind, (color, label)) in zip((0.2, 0, -0.2), kinds.items(), strict=True):
            for place, row in enumerate(shown):
                share = row[kind]
                ax.plot([share.low, share.high], [place + shift] * 2, color=color, alpha=0.4, linewidth=2)
                ax.plot(share.value, place + shift, "o", color=color, markersize=5, label=None if place else label)
        ax.axvline(FALSE_ALARMS, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        ax.set_yticks(range(len(shown)), [row["name"] for row in shown])
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        label_axes(ax, "runs in which it rings, with 95% intervals", "")
        figure.legend(loc="outside upper center", ncols=3)
        figure.savefig(path, dpi=110, metadata={"Software": None})
