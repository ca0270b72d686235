"""Which faults of a summary a reward function sees, in the embedded world, where they can be made one at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minirlhf.reward_modeling.quality import Scores, Summary, hits
from minirlhf.statistics.bootstrap import Bootstrap, rounded
from minirlhf.statistics.intervals import wilson
from minirlhf.world.judge import BEST_SCORE, judge
from minirlhf.world.probes import CLEAN, PROBES, probe_summaries

# A header where there is no probe.
COLUMNS = ["probe", "value", "low", "high", "count", "difference", "difference_low", "difference_high", "gold"]


@dataclass(frozen=True)
class Probe:
    """A clean summary of a post and the same with one fault (a name in `PROBES`), which costs `gold` points."""

    name: str
    clean: Summary
    edited: Summary
    gold: float


def probes_of(posts: Iterable[dict]) -> list[Probe]:
    """All probes of the posts that carry the record of their truth; others have none."""
    probes = []
    for post in posts:
        if "record" not in post:
            continue
        found = {name: (post["prompt"], *s) for name, s in probe_summaries(post["prompt"], post["record"]).items()}
        for name in PROBES:
            if name in found:
                _, text, ended = found[name]
                gold = BEST_SCORE - judge(text, post["record"], ended).score
                probes.append(Probe(name, found[CLEAN], found[name], gold))
    return probes


def probe_table(probes: Sequence[Probe], scores: Scores, bootstrap: Bootstrap) -> list[dict]:
    """How often the clean summary scores above the edited one (a tie counts one half), and by how much.

    Returns:
        a row a probe: value, low, high (share of posts, with Wilson's interval), count, difference (mean score of the
        clean minus the edited summary) with its interval, gold (the mean difference by the gold judge).
    """
    rows = []
    for name in PROBES:
        of = [probe for probe in probes if probe.name == name]
        if not of:
            continue
        apart = np.array([scores[probe.clean] - scores[probe.edited] for probe in of])
        mean = bootstrap.mean(apart)
        numbers = {"difference": mean.value, "difference_low": mean.low, "difference_high": mean.high}
        numbers["gold"] = np.mean([probe.gold for probe in of])
        estimate = wilson(hits(apart).sum(), len(of)).as_json()
        rows.append(
            {"probe": name, **estimate, "count": len(of)} | {key: rounded(number) for key, number in numbers.items()}
        )
    return rows
