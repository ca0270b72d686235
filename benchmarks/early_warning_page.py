"""What the tables of benchmarks/early_warning.py say of detectors: docs/early_warning.md and docs/early_warning.png.

    python benchmarks/early_warning_page.py

A detector gives a run a score at each update, from what it has seen until then, and rings at the first update whose
score reaches its threshold. Half of the settings choose (thresholds, signs, weights), the other half reports; seeds
of one setting are never on both sides. A threshold is the lowest at which at most FALSE_ALARMS of the choosing
half's healthy runs ring. An alarm is early where it rings before gold has clearly fallen (`fell`).
"""

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.early_warning import REWARDS, ROOT, RUNS, SERIES, all_runs
from minirlhf.runtime.files import read_csv
from minirlhf.statistics.bootstrap import Estimate
from minirlhf.statistics.intervals import wilson

FALSE_ALARMS = 0.05
FOLDS = 5  # of settings
WINDOWS = (1, 3)  # updates that are averaged, and of the start that a change is measured from
HIDDEN = ("setting", "seed", "update", "episodes", "gold", "held_out_gold")
PAGE, PICTURE = ROOT / "docs" / "early_warning.md", ROOT / "docs" / "early_warning.png"
# The report's checks as far as they can be made while training: (signal, transform, sign, threshold). They are those of
# before this study, which has moved the first and the last (minirlhf/report/alarms.py).
CHECKS = {
    "report: far from SFT": ("kl", "level", 1, 25.0),
    "report: length ran away": ("length", "ratio", 1, 1.25),
    "report: shorter by as much": ("length", "ratio", -1, -1 / 1.25),
    "report: summaries do not end": ("ended", "change", -1, 0.05),
    "report: repetition": ("repetition", "change", 1, 0.05),
    "report: a new habit of ending": ("ending", "change", 1, 0.25),
    "report: copying": ("copying", "ratio", 1, 1.5),
    "report: the same for many posts": ("duplicates", "change", 1, 0.10),
    "report: entropy collapsed": ("entropy", "ratio", -1, -0.5),
}
WARM_UP = 6  # updates that a public rule calls normal; the tools' own 20 to 100 are most of a run here, or all
Scores = np.ndarray  # [updates] of a run; NaN where there is nothing to say


@dataclass(frozen=True)
class Run:
    """A run as a detector may see it, and what is known of it."""

    setting: str
    turned: bool
    peak: float | None
    fell: float | None  # episodes
    golds: dict[float, float]  # by episode, 0 among them: means over the held-out posts
    episodes: np.ndarray  # [updates]
    signals: dict[str, np.ndarray]  # [updates] each

    def alarm(self, scores: Scores, threshold: float) -> float | None:
        """The episode at which a detector rings first."""
        rings = scores >= threshold
        return float(self.episodes[rings][0]) if rings.any() else None

    def lost(self, alarm: float) -> float:
        """Gold points below its highest, at the last evaluation before an alarm."""
        return max(self.golds.values()) - self.golds[max(episode for episode in self.golds if episode <= alarm)]


def transform(values: np.ndarray, how: str, window: int) -> Scores:
    """A signal [updates] as a detector uses it, over the last `window` updates; NaN before there are enough.

    level: their mean; change, ratio: by their mean at the start; speed: by their mean `window` updates ago;
    acceleration: by how much the speed is higher than `window` updates ago.
    """
    found = np.full(len(values), np.nan)
    if len(values) >= window:
        found[window - 1 :] = np.convolve(values, np.ones(window) / window, "valid")
    first = found[window - 1] if len(values) >= window else np.nan

    def later(scores: Scores) -> Scores:
        return np.concatenate([np.full(window, np.nan), scores[:-window]])[: len(values)]

    speed = found - later(found)
    kinds = {"level": found, "change": found - first, "speed": speed, "acceleration": speed - later(speed)}
    return found / first if how == "ratio" else kinds[how]


@dataclass(frozen=True)
class Detector:
    """A score of a run at each update, and the threshold at which it rings."""

    name: str
    score: Callable[[Run], Scores]
    threshold: float

    def judge(self, runs: list[Run]) -> dict:
        """Found, false alarms and lead time on runs, each with its interval."""
        rung = [(run, run.alarm(self.score(run), self.threshold)) for run in runs]
        turned = [(run, at) for run, at in rung if run.turned]
        found = [(run, at) for run, at in turned if at is not None]
        return {
            "name": self.name,
            "found": share([at is not None for _, at in turned]),
            "early": share([at is not None and at < run.fell for run, at in turned]),
            "false": share([at is not None for run, at in rung if not run.turned]),
            "lead": median([(run.setting, run.fell - at) for run, at in found]),
            "lost": median([(run.setting, run.lost(at)) for run, at in found]),
            "lost in the end": median([(run.setting, run.lost(np.inf)) for run, at in found]),
        }


def share(flags: list[bool]) -> Estimate | None:
    """How many of them are True, with an interval; None of none."""
    return wilson(sum(flags), len(flags)) if flags else None


def median(values: list[tuple[str, float]]) -> tuple[float, float, float] | None:
    """The median of values of settings, with a 95% interval that draws settings; None of none."""
    if not values:
        return None
    by: dict[str, list[float]] = {}
    for setting, value in values:
        by.setdefault(setting, []).append(value)
    groups, rng = list(by.values()), random.Random(0)
    drawn = [np.median(sum(rng.choices(groups, k=len(groups)), [])) for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median([value for _, value in values])), float(low), float(high)


def above_before(values: np.ndarray) -> Scores:
    """By how many standard deviations of all earlier values a value lies above their mean."""
    found = np.full(len(values), np.nan)
    for at in range(WARM_UP, len(values)):
        spread = values[:at].std()
        found[at] = (values[at] - values[:at].mean()) / spread if spread > 0 else 0.0
    return found


def above_start(values: np.ndarray) -> Scores:
    """The same by the WARM_UP first values alone."""
    spread = values[:WARM_UP].std()
    found = (values - values[:WARM_UP].mean()) / spread if spread > 0 else np.zeros(len(values))
    return np.where(np.arange(len(values)) < WARM_UP, np.nan, found)


def times_start(values: np.ndarray) -> Scores:
    """How many times the mean of the WARM_UP first values a value is."""
    return np.where(np.arange(len(values)) < WARM_UP, np.nan, values / values[:WARM_UP].mean())


def smoothed(values: np.ndarray, weight: float = 0.3) -> np.ndarray:
    """An exponential moving average."""
    found = values.astype(float).copy()
    for at in range(1, len(found)):
        found[at] = weight * values[at] + (1 - weight) * found[at - 1]
    return found


def trend(values: np.ndarray, differences: int) -> np.ndarray:
    """Differences of the moving average: 1 its slope, 2 its acceleration; 0 before there is one."""
    return np.concatenate([np.zeros(differences), np.diff(smoothed(values), differences)])[: len(values)]


# Rules of public tools: TRL's "Training FAQ" (0.x); rlwatch 0.5.1 (entropy_collapse, kl_explosion, reward_hacking,
# advantage_variance, gradient_norm_spike); Flight Recorder (July 2026), ThresholdDetector.
PUBLIC: dict[str, tuple[str, Callable[[np.ndarray], Scores], float]] = {
    "TRL: KL above 10 nats": ("kl", lambda kl: kl, 10.0),
    "rlwatch: KL explodes": ("kl", above_before, 3.0),
    "rlwatch: entropy below 1": ("entropy", lambda entropy: -entropy, -1.0),
    "rlwatch: variance of rewards": ("reward_std", times_start, 3**0.5),
    "rlwatch: spread of advantages": ("advantage_std", times_start, 3.0),
    "rlwatch: gradient norm": ("policy_grad_norm", above_start, 3.0),
    "Flight Recorder: KL accelerates": ("kl", lambda kl: above_before(trend(kl, 2)), 4.0),
    "Flight Recorder: entropy falls": ("entropy", lambda entropy: above_before(-trend(entropy, 1)), 4.0),
}


def fixed() -> list["Detector"]:
    """Detectors of which nothing is chosen here: the report's checks and the public rules."""
    ours = [Detector(name, of_signal(*rule[:3]), rule[3]) for name, rule in CHECKS.items()]

    def of(signal: str, score: Callable[[np.ndarray], Scores]) -> Callable[[Run], Scores]:
        return lambda run: score(run.signals[signal])

    return ours + [Detector(name, of(signal, score), at) for name, (signal, score, at) in PUBLIC.items()]


def threshold_of(score: Callable[[Run], Scores], runs: list[Run]) -> float:
    """The lowest at which at most FALSE_ALARMS of the healthy runs ring: just above the highest that may not."""
    highest = sorted((highest_of(score(run)) for run in runs if not run.turned), reverse=True)
    allowed = int(FALSE_ALARMS * len(highest))
    return float(np.nextafter(highest[allowed], np.inf)) if len(highest) > allowed else np.inf


def highest_of(scores: Scores) -> float:
    """The highest score that a run gets; -inf where it gets none."""
    return float(np.nanmax(scores)) if not np.isnan(scores).all() else -np.inf


def of_signal(signal: str, how: str, sign: int, window: int = 3) -> Callable[[Run], Scores]:
    """The score that a signal gives by `transform`, where a low one is to ring with sign -1."""
    return lambda run: sign * transform(run.signals[signal], how, window)


def choose(runs: list[Run]) -> list[Detector]:
    """Of each signal the transform and sign that find most on these runs, its threshold, and a combination of all.

    The best comes first: the one that finds most on these runs, of those that find as many the one that does so first;
    last those of signals that some of the runs do not have.
    """
    detectors, features = [], []
    for signal in runs[0].signals:
        known = [run for run in runs if not np.isnan(run.signals[signal]).all()]
        if not any(run.turned for run in known) or all(run.turned for run in known):
            continue
        tried = []
        for how, sign, window in product(("level", "change", "speed", "acceleration"), (1, -1), WINDOWS):
            score = of_signal(signal, how, sign, window)
            name = f"{signal}: {how} {'up' if sign > 0 else 'down'}, {window}"
            detector = Detector(name, score, threshold_of(score, known))
            tried.append((merit(detector, known), detector))
        best = max(tried, key=lambda pair: pair[0])
        everywhere = len(known) == len(runs)
        detectors.append((everywhere, *best))
        if everywhere:
            features.append(best[1].score)
    detectors.append((True, *combine(features, runs)))
    return [detector for _, _, detector in sorted(detectors, key=lambda found: found[:2], reverse=True)]


def merit(detector: Detector, runs: list[Run]) -> tuple[float, float]:
    """The share of turned runs that it finds, and its median lead."""
    judged = detector.judge(runs)
    return judged["found"].value, judged["lead"][0] if judged["lead"] else -np.inf


def combine(features: list[Callable[[Run], Scores]], runs: list[Run]) -> tuple[tuple[float, float], Detector]:
    """(merit, detector) of a logistic regression on the highest that each signal's score has been until now.

    Its weights are learnt from all runs; its threshold and its merit are those of scores that a run gets from weights
    learnt without its setting (FOLDS): with a weight for every signal it knows its own runs too well.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = [[scores[~np.isnan(scores)] for scores in map(of, runs)] for of in features]
    starts = [np.mean([scores[0] for scores in of if len(scores)]) for of in known]  # for updates without a score

    def until_now(run: Run) -> np.ndarray:  # [updates, features]
        columns = [np.where(np.isnan(of(run)), start, of(run)) for of, start in zip(features, starts, strict=True)]
        return np.maximum.accumulate(np.stack(columns, 1))

    def learnt(runs: list[Run]) -> Callable[[Run], Scores]:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
        model.fit(np.stack([until_now(run)[-1] for run in runs]), [run.turned for run in runs])
        return lambda run: model.decision_function(until_now(run))

    settings = sorted({run.setting for run in runs})
    random.Random(0).shuffle(settings)
    fold = {setting: at % FOLDS for at, setting in enumerate(settings)}
    apart = [learnt([run for run in runs if fold[run.setting] != left_out]) for left_out in range(FOLDS)]

    def unseen(run: Run) -> Scores:
        return apart[fold[run.setting]](run)

    threshold = threshold_of(unseen, runs)
    name = "all of them, weighed"
    return merit(Detector(name, unseen, threshold), runs), Detector(name, learnt(runs), threshold)


def read(runs: Path, series: Path) -> list[Run]:
    """The runs of the tables, in their order."""
    by: dict[tuple, list[dict]] = {}
    for row in read_csv(series):
        by.setdefault((row["setting"], row["seed"]), []).append(row)
    found = []
    for row in read_csv(runs):
        rows = by[row["setting"], row["seed"]]
        signals = {
            name: np.array([np.nan if one[name] is None else one[name] for one in rows], float)
            for name in rows[0] if name not in HIDDEN
        }  # fmt: skip
        signals["kl_per_token"] = signals["kl"] / signals["length"]
        episodes = np.array([one["episodes"] for one in rows], float)
        turned = row["turned"] in (True, "True")
        golds = {one["episodes"]: one["held_out_gold"] for one in rows if one["held_out_gold"] is not None}
        golds[0] = row["gold_start"]
        found.append(Run(row["setting"], turned, row["peak"], row["fell"], golds, episodes, signals))
    return found


def halves() -> tuple[set[str], set[str]]:
    """The settings that choose, and those that report: of each reward half."""
    names, rng, chosen = sorted({setting.name for setting, _ in all_runs()}), random.Random(1), set()
    for reward in REWARDS:
        of = [name for name in names if name.startswith(f"{reward} ")]
        chosen |= set(rng.sample(of, len(of) // 2))
    return chosen, set(names) - chosen


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--series", type=Path, default=SERIES)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args(argv)
    from benchmarks.early_warning_text import write

    write(read(args.runs, args.series), args.page, args.picture)


if __name__ == "__main__":
    main()
