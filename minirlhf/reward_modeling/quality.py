"""What a reward function is worth on held-out comparisons: accuracy, calibration, length bias, agreement with gold.

Every text is scored once, in one call (`score_once`); all else is arithmetic on those scores.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.special import expit

from minirlhf.rewards.text import RewardFunction, call_reward
from minirlhf.statistics.bootstrap import Bootstrap, Estimate, rounded
from minirlhf.world.judge import judge

Summary = tuple[str, str, bool]  # prompt, text, whether it ended by itself
Scores = Mapping[Summary, float]
MARGIN_BINS = 5
GOLD_MARGIN_COLUMNS = ["margin", "who", "value", "low", "high", "count"]  # a header where no truth is known


def mean_score(reward: RewardFunction, posts: Sequence[dict]) -> float:
    """Mean score of the authors' summaries of posts (rows of `prompt` and `completion`)."""
    prompts, summaries = ([row[name] for row in posts] for name in ("prompt", "completion"))
    scores = call_reward(reward, prompts, summaries, [True] * len(posts), [[] for _ in posts])
    return sum(scores) / len(scores)


def score_once(reward: RewardFunction, summaries: Iterable[Summary]) -> dict[Summary, float]:
    """The score of every different summary, all in one call."""
    distinct = list(dict.fromkeys(summaries))
    prompts, texts, ended = map(list, zip(*distinct, strict=True))
    return dict(zip(distinct, call_reward(reward, prompts, texts, ended, [[] for _ in texts]), strict=True))


def sides(row: dict) -> tuple[Summary, Summary]:
    """The chosen and the rejected summary of a comparison; they ended by themselves where it does not say."""
    chosen, rejected = ((row["prompt"], row[side], row.get(f"{side}_ended", True)) for side in ("chosen", "rejected"))
    return chosen, rejected


def summaries_of(rows: Iterable[dict]) -> list[Summary]:
    """The different summaries of comparisons."""
    return list(dict.fromkeys(summary for row in rows for summary in sides(row)))


def margins(rows: Iterable[dict], scores: Scores) -> np.ndarray:
    """Score of the chosen minus score of the rejected summary: [number of comparisons]."""
    return np.array([scores[chosen] - scores[rejected] for chosen, rejected in map(sides, rows)])


def accuracy(margins: Sequence[float]) -> float:
    """Share of the comparisons ordered as the annotator did; a tie counts one half."""
    return float(hits(margins).mean())


def hits(margins: Sequence[float], truth: Sequence[float] | float = 1.0) -> np.ndarray:
    """For each comparison 1 where both margins have the same sign, 0 where they do not, one half for a tie.

    >>> hits([2.0, -1.0, 0.0]).tolist(), hits([2.0, -1.0], [-3.0, -0.1]).tolist()
    ([1.0, 0.0, 0.5], [0.0, 1.0])
    """
    return 0.5 + 0.5 * np.sign(margins) * np.sign(truth)


def preference_loss(margins: Sequence[float]) -> float:
    """Mean of -log sigmoid(margin), nats a comparison (Bradley and Terry 1952)."""
    return sum(math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0) for margin in margins) / len(margins)


def confidence(margins: Sequence[float]) -> dict[str, float]:
    """How far a model's sureness can be trusted: each comparison seen from either side, as in `calibration`.

    Returns:
        ece: expected calibration error (Naeini et al. 2015), the mean distance of predicted and observed share over the
            bins of `calibration`, weighted by their counts; brier: mean squared error of the probability (Brier 1950; a
            coin has 0.25); ties: share of the comparisons of which the model gives both sides the same score.
    """
    margins = np.asarray(margins, float)
    table = calibration(margins)
    distances = [row["count"] * abs(row["predicted"] - row["observed"]) for row in table]
    brier = float(np.mean((1 - expit(margins)) ** 2))  # the other side's error is the same
    found = {"ece": sum(distances) / sum(row["count"] for row in table), "brier": brier, "ties": np.mean(margins == 0)}
    return {name: rounded(value) for name, value in found.items()}


def ceiling(rows: Sequence[dict], accuracy: float, bootstrap: Bootstrap) -> dict:
    """How accurate the truth itself is on the annotators' labels, who err, and how much of the way there was gone.

    Args:
        accuracy: the model's.

    Returns:
        {} where the truth of a comparison is not known, else accuracy (with its interval; a tie in gold counts half)
        and share_of_the_way from guessing.
    """
    if not all("record" in row for row in rows):
        return {}
    best = share(hits(margins(rows, gold_scores(rows))), rows, bootstrap)
    gone = (accuracy - 0.5) / (best.value - 0.5) if best.value > 0.5 else 0.0
    return {"accuracy": best.as_json(), "share_of_the_way": rounded(gone)}


def calibration(margins: Sequence[float], bins: int = 10) -> list[dict]:
    """How often the annotator agreed where the model was so sure.

    Every comparison counts once from either side's view, so that the curve is symmetric about (0.5, 0.5): a model
    that gives the chosen summary 0.7 gave the rejected one 0.3.

    Returns:
        a row a bin that is not empty: predicted (mean probability), observed (share chosen), count.
    """
    views = [(1 / (1 + math.exp(-max(min(margin, 700.0), -700.0))), 1) for margin in margins]
    views += [(1 - probability, 0) for probability, _ in views]
    rows = []
    for index in range(bins):
        inside = [(p, chosen) for p, chosen in views if min(int(p * bins), bins - 1) == index]
        if inside:
            count = len(inside)
            predicted, observed = (sum(column) / count for column in zip(*inside, strict=True))
            rows.append({"predicted": round(predicted, 4), "observed": round(observed, 4), "count": count})
    return rows


def share(hits: np.ndarray, rows: Sequence[dict], bootstrap: Bootstrap) -> Estimate | None:
    """Mean of one hit a comparison; its interval draws posts, since a post's comparisons hang together.

    None where there is no comparison.
    """
    if not len(hits):
        return None
    _, posts = np.unique([row["prompt"] for row in rows], return_inverse=True)
    return bootstrap.ratio(np.bincount(posts, weights=hits), np.bincount(posts))


def by_margin(margins: np.ndarray, hits: np.ndarray, rows: Sequence[dict], bootstrap: Bootstrap) -> list[dict]:
    """The share of hits among comparisons of about the same absolute margin, from close calls to clear ones.

    Bins are quantiles (as many comparisons in each of `MARGIN_BINS`); equal margins are never parted, so that there
    may be fewer.

    Returns:
        a row a bin: margin (its mean, absolute), value, low, high, count.
    """
    sizes = np.abs(margins)
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, MARGIN_BINS + 1)[1:-1])) if len(sizes) else []
    places = np.searchsorted(edges, sizes)
    found = []
    for place in np.unique(places):
        inside = np.flatnonzero(places == place)
        estimate = share(hits[inside], [rows[index] for index in inside], bootstrap)
        found.append({"margin": rounded(sizes[inside].mean())} | estimate.as_json() | {"count": len(inside)})
    return found


def length_bias(rows: Sequence[dict], scores: Scores, lengths: Scores, bootstrap: Bootstrap) -> dict:
    """What length has to do with the score.

    Args:
        lengths: of every summary in `rows`, tokens.

    Returns:
        pearson, spearman: correlation of score and length over the different summaries;
        longer_by_model, longer_by_annotators: share of the comparisons in which each prefers the longer summary,
        among those of two lengths.
    """
    longer = margins(rows, lengths)
    apart = np.flatnonzero(longer)
    rows = [rows[index] for index in apart]
    found = {"longer_by_model": hits(margins(rows, scores), longer[apart]), "longer_by_annotators": hits(longer[apart])}
    summaries = list(lengths)
    return correlations([scores[s] for s in summaries], [lengths[s] for s in summaries]) | {
        name: _as_json(share(values, rows, bootstrap)) for name, values in found.items()
    }


def correlations(x: Sequence[float], y: Sequence[float]) -> dict[str, float | None]:
    """Pearson's and Spearman's correlation, the latter with mean ranks for ties; None where one side is constant.

    >>> correlations([1, 2, 3, 4], [1, 2, 2, 30])
    {'pearson': 0.792384, 'spearman': 0.948683}
    """
    import pandas

    columns = pandas.DataFrame({"x": x, "y": y}, dtype=float)
    if (columns.nunique() < 2).any():
        return {"pearson": None, "spearman": None}
    return {method: rounded(columns.corr(method).loc["x", "y"]) for method in ("pearson", "spearman")}


def gold_scores(rows: Iterable[dict]) -> dict[Summary, float]:
    """The gold score of every summary of comparisons whose rows carry the record of the truth; others are left out."""
    golds: dict[Summary, float] = {}
    for row in rows:
        for prompt, text, ended in sides(row) if "record" in row else ():
            if (prompt, text, ended) not in golds:
                golds[prompt, text, ended] = judge(text, row["record"], ended).score
    return golds


def gold_agreement(rows: Sequence[dict], scores: Scores, bootstrap: Bootstrap) -> tuple[dict, list[dict]]:
    """How far the model, and the annotators it learnt from, order summaries as the gold judge does.

    Returns:
        the metrics: model, annotators (share of the comparisons in gold's order, gold ties left out) and spearman
        (correlation of score and gold over the different summaries); {} where no truth is known;
        the rows of `by_margin` by the gold margin, for each `who` of the two.
    """
    golds = gold_scores(rows)
    rows = [row for row in rows if "record" in row]
    truth = margins(rows, golds)
    untied = np.flatnonzero(truth)
    rows, truth = [rows[index] for index in untied], truth[untied]
    if not rows:
        return {}, []
    agreed = {"model": hits(margins(rows, scores), truth), "annotators": hits(truth)}
    metrics = {who: _as_json(share(values, rows, bootstrap)) for who, values in agreed.items()}
    metrics["spearman"] = correlations([scores[summary] for summary in golds], list(golds.values()))["spearman"]
    table = [
        {"margin": row["margin"], "who": who} | row
        for who, values in agreed.items()
        for row in by_margin(truth, values, rows, bootstrap)
    ]
    return metrics, table


def _as_json(estimate: Estimate | None) -> dict[str, float] | None:
    return estimate and estimate.as_json()
