"""The rows of the evaluate stage's CSV files, which the report draws and DVC plots. Numbers only; no drawing."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from minirlhf.evaluation.measures import FACT, GOLD_PART, Measures
from minirlhf.evaluation.rouge import MEASURES as ROUGE
from minirlhf.evaluation.temperatures import Choice, choose
from minirlhf.evaluation.winrate import win_rates
from minirlhf.statistics.bootstrap import Bootstrap, Estimate, rounded

BINS = 30  # of a histogram
LARGEST_SUBREDDITS = 8
SMALLEST_SLICE = 10  # posts; below, an interval says nothing
# Of the tables that are empty where there is no gold judge or no slice: a header stands all the same.
COLUMNS = {
    "gold_parts": ["system", "measure", "value", "low", "high"],
    "facts": ["fact", "system"] + [name + end for name in ("covered", "wrong") for end in ("", "_low", "_high")],
    "slices": ["slice", "group", "posts", "value", "low", "high"],
}


def histogram(systems: dict[str, Measures], measure: str) -> list[dict]:
    """Share of each system's summaries, in percent, in at most `BINS` equal bins: the bin's centre, then a column a
    system."""
    values = {system: measures[measure] for system, measures in systems.items()}
    everything = np.concatenate(list(values.values()))
    low, high = everything.min(), everything.max()
    if np.all(everything == np.round(everything)):  # counts: as many whole numbers in every bin
        width = (high - low) // BINS + 1
        edges = np.arange(low - 0.5, high + width, width)
    else:
        edges = np.linspace(low, high, BINS + 1)
    shares = {system: np.histogram(found, edges)[0] / len(found) * 100 for system, found in values.items()}
    return [
        {measure: rounded((edges[i] + edges[i + 1]) / 2)} | {s: rounded(share[i]) for s, share in shares.items()}
        for i in range(len(edges) - 1)
    ]


def estimates(systems: dict[str, dict[str, Estimate]], names: Sequence[str]) -> list[dict]:
    """Rows `system, measure, value, low, high`."""
    return [
        {"system": system, "measure": name, **found[name].as_json()}
        for name in names
        for system, found in systems.items()
    ]


def measure_rows(
    sampled: dict[str, dict[str, Estimate]],
    others: dict[str, dict[str, dict[str, Estimate]]],
    gained: dict[str, Estimate],
    varieties: dict[str, dict[str, float]],
) -> list[dict]:
    """Every mean with its interval: rows `decoding, system, measure, value, low, high`.

    The system `ppo - sft` is the paired difference of the two. What describes a set of summaries as a whole
    (`varieties`) has no interval. `others`: of other decodings.
    """
    rows = []
    for decoding, systems in (("sampled", {**sampled, "ppo - sft": gained}), *others.items()):
        for row in estimates(systems, list(gained)):
            if not row["measure"].startswith(FACT):
                rows.append({"decoding": decoding, **row})
    for system, found in varieties.items():
        for name, value in found.items():
            row = {"decoding": "sampled", "system": system, "measure": name, "value": rounded(value)}
            rows.append({**row, "low": None, "high": None})
    return rows


def rouge_rows(systems: dict[str, dict[str, Estimate]]) -> list[dict]:
    """ROUGE of the systems that are not the reference itself."""
    return estimates({name: found for name, found in systems.items() if name != "reference"}, ROUGE)


def gold_part_rows(systems: dict[str, dict[str, Estimate]]) -> list[dict]:
    """Counts a summary of everything that the gold judge sees; none where there is no gold judge."""
    names = [name for name in next(iter(systems.values())) if name.startswith(GOLD_PART)]
    return [row | {"measure": row["measure"].removeprefix(GOLD_PART)} for row in estimates(systems, names)]


def fact_rows(systems: dict[str, dict[str, Estimate]]) -> list[dict]:
    """Rows `fact, system, covered, covered_low, covered_high, wrong, ...`: shares of the summaries."""
    names = [name for name in next(iter(systems.values())) if name.startswith(FACT) and name.endswith("_covered")]
    rows = []
    for name in names:
        slot = name.removeprefix(FACT).removesuffix("_covered")
        for system, found in systems.items():
            row = {"fact": slot, "system": system}
            for status in ("covered", "wrong"):
                numbers = found[f"{FACT}{slot}_{status}"].as_json()
                row |= {status: numbers["value"], f"{status}_low": numbers["low"], f"{status}_high": numbers["high"]}
            rows.append(row)
    return rows


def win_rate_rows(
    wins: dict[tuple[str, str, str, str], np.ndarray], lengths: dict[tuple[str, str], np.ndarray], bootstrap: Bootstrap
) -> list[dict]:
    """Win rates as they are and with lengths matched: rows `decoding, judge, system, against, lengths, value, low,
    high`.

    Args:
        wins: (decoding, judge, system, against) -> from 1 to 0 a post, NaN where there is no verdict.
        lengths: (decoding, system) -> tokens of its summaries.
    """
    rows = []
    for (decoding, judge, system, against), won in wins.items():
        difference = lengths[decoding, system] - lengths[decoding, against]
        names = {"decoding": decoding, "judge": judge, "system": system, "against": against}
        for kind, estimate in zip(("as they are", "matched"), win_rates(won, difference, bootstrap), strict=True):
            rows.append({**names, "lengths": kind, **estimate.as_json()})
    return rows


def slice_rows(
    post_tokens: np.ndarray, subreddits: Sequence[str | None], wins: np.ndarray, bootstrap: Bootstrap
) -> list[dict]:
    """Win rate by thirds of the posts' lengths and by the largest subreddits: `slice, group, posts, value, low, high`.

    Slices of fewer than `SMALLEST_SLICE` posts with a verdict are left out.
    """
    judged = ~np.isnan(wins)
    first, second = np.quantile(post_tokens, [1 / 3, 2 / 3])
    third = (post_tokens > first).astype(int) + (post_tokens > second)
    names = (f"up to {first:.0f} tokens", f"{first:.0f} to {second:.0f}", f"over {second:.0f}")
    slices = [("post length", name, third == number) for number, name in enumerate(names)]
    common = Counter(name for name in subreddits if name).most_common(LARGEST_SUBREDDITS)
    slices += [("subreddit", name, np.array([s == name for s in subreddits])) for name, _ in sorted(common)]
    slices = [(kind, name, chosen & judged) for kind, name, chosen in slices]
    return [
        {"slice": kind, "group": name, "posts": int(chosen.sum()), **bootstrap.mean(wins[chosen]).as_json()}
        for kind, name, chosen in slices
        if chosen.sum() >= SMALLEST_SLICE
    ]


def temperature_rows(choice: Choice, bootstrap: Bootstrap) -> list[dict]:
    """Mean scores on the validation posts: rows `system, temperature, value, low, high, posts, chosen` (1 or 0)."""
    return [
        {"system": system, "temperature": temperature, **bootstrap.mean(values).as_json(), "posts": len(values)}
        | {"chosen": int(temperature == choose(scores))}
        for system, scores in choice.scores.items()
        for temperature, values in scores.items()
    ]


def frontier_row(method: str, point: int, kl: float, proxy: Estimate, gold: Estimate | None) -> dict:
    """One point of the frontier: `method, point (n, episodes, round), kl, proxy and gold with their intervals`.

    `gold` is the score by the judge, empty where none but the training reward gives scores.
    """
    row = {"method": method, "point": point, "kl": rounded(kl)}
    for name, estimate in (("proxy", proxy), ("gold", gold)):
        numbers = estimate.as_json() if estimate else {"value": None, "low": None, "high": None}
        row |= {name: numbers["value"], f"{name}_low": numbers["low"], f"{name}_high": numbers["high"]}
    return row
