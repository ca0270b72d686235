"""How far voters agree: with each other, beyond chance, with themselves, and with what is known.

Percent agreement, Cohen's kappa for two voters (Cohen 1960, by scikit-learn), Krippendorff's alpha for any number and
with gaps (Krippendorff 2011, by the package of that name), on the categories first, second and tie. Intervals draw
pairs again. A coefficient that is not defined comes with a sentence that says why, in the place of a number.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from minirlhf.feedback.votes import Vote, Votes
from minirlhf.statistics.bootstrap import Bootstrap, interval
from minirlhf.statistics.intervals import wilson

CATEGORIES = (1.0, 0.0, 0.5)  # of what a vote says of the pair's first summary: it won, lost, tied
Value = dict[str, float | str | None]
LACKING = "no pair was voted on by two voters"
CHANCELESS = "all votes are of one kind, so that agreement by chance would be complete, too"


def agreement(votes: Votes, bootstrap: Bootstrap) -> dict:
    """Agreement between voters, on the votes that count.

    Returns:
        pairs: how many pairs two or more voters have voted on; then {value, low, high} each, or {value: null, why}:
        percent: share of two voters' votes on one pair that say the same;
        kappa: where there are just two voters;
        alpha.
    """
    told = table(votes.counted())  # [units, voters]
    told = told[(~np.isnan(told)).sum(1) > 1]
    voters = int((~np.isnan(told)).any(0).sum())
    found: dict = {"pairs": len(told)}
    if not len(told):
        return found | dict.fromkeys(("percent", "alpha"), {"value": None, "why": LACKING})
    found["percent"] = _percent(told, bootstrap)
    if voters == 2:
        found["kappa"] = _with_interval(_kappa, told[:, (~np.isnan(told)).any(0)], bootstrap)
    return found | {"alpha": _with_interval(_alpha, told, bootstrap)}


def consistency(votes: Votes) -> dict:
    """Agreement of voters with themselves: pairs that came again with the sides swapped, and the share voted alike."""
    repeats = votes.repeats()
    same = sum(first.first_won == again.first_won for first, again in repeats)
    if not repeats:
        return {"pairs": 0, "percent": {"value": None, "why": "no pair has come again yet"}}
    return {"pairs": len(repeats), "percent": wilson(same, len(repeats)).as_json()}


def attention(votes: Votes) -> dict[str, dict]:
    """By voter, of the pairs whose answer is known: how many, and the share that was answered so."""
    return {
        voter: {"pairs": len(right), "percent": wilson(sum(right), len(right)).as_json()}
        for voter, right in votes.checks().items()
    }


def position(votes: Votes) -> Value:
    """Share of the votes that count and decide that went to the left summary; 0.5 without bias."""
    sides = [vote.choice == "left" for vote in votes.counted() if vote.choice != "tie"]
    return wilson(sum(sides), len(sides)).as_json() if sides else {"value": None, "why": "no vote decides"}


def table(votes: Sequence[Vote]) -> np.ndarray:
    """[pairs, voters] what each voter said of each pair's first summary; NaN: nothing."""
    rows = {pair: row for row, pair in enumerate(dict.fromkeys(vote.pair for vote in votes))}
    columns = {voter: column for column, voter in enumerate(dict.fromkeys(vote.voter for vote in votes))}
    told = np.full((len(rows), len(columns)), np.nan)
    for vote in votes:
        told[rows[vote.pair], columns[vote.voter]] = vote.first_won
    return told


def _percent(told: np.ndarray, bootstrap: Bootstrap) -> Value:
    agreed, of = np.zeros(len(told)), np.zeros(len(told))
    for one, other in combinations(range(told.shape[1]), 2):
        both = ~np.isnan(told[:, one] + told[:, other])
        of += both
        agreed += both & (told[:, one] == told[:, other])
    if len(told) < 2 or agreed.sum() in (0, of.sum()):  # where a bootstrap has no width at all
        return wilson(agreed.sum(), int(of.sum())).as_json()
    return bootstrap.ratio(agreed, of).as_json()


def _kappa(told: np.ndarray) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    labels = [[CATEGORIES.index(value) for value in column] for column in told.T]
    kinds = {*labels[0], *labels[1]}
    return None if len(kinds) < 2 else float(cohen_kappa_score(*labels))


def _alpha(told: np.ndarray) -> float | None:
    import krippendorff

    counts = np.stack([(told == category).sum(1) for category in CATEGORIES], 1)  # [units, categories]
    if (counts.sum(0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def _with_interval(of: Callable[[np.ndarray], float | None], told: np.ndarray, bootstrap: Bootstrap) -> Value:
    value = of(told)
    if value is None:
        return {"value": None, "why": CHANCELESS}
    weights = np.rint(bootstrap.weights(len(told)) * len(told)).astype(int)  # how often each pair is drawn
    replicates = [of(np.repeat(told, row, axis=0)) for row in weights]
    defined = [replicate for replicate in replicates if replicate is not None]
    return interval(value, np.array(defined)).as_json()
