"""What the evaluate stage leaves behind: the metrics, and the summaries for machines and for readers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from minirlhf.evaluation.measures import GOLD_PART, Measures
from minirlhf.evaluation.pairwise import Verdicts, position_bias
from minirlhf.evaluation.rouge import MEASURES as ROUGE
from minirlhf.evaluation.temperatures import BestOfN
from minirlhf.evaluation.winrate import win_rates
from minirlhf.runtime.errors import printable
from minirlhf.sampling.summaries import Summaries
from minirlhf.statistics.bootstrap import Bootstrap, Estimate, rounded
from minirlhf.text.chat import spoken

HEADLINE = ("reward", *ROUGE, "length", "ended", "gold", "judge")
HEADINGS = {
    "sample": "Drawn at random",
    "gain": "Largest gains of {} over SFT",
    "loss": "Largest losses of {} against SFT",
}


def system_metrics(found: dict[str, Estimate]) -> dict:
    """The plain numbers of one system in details/evaluate.json."""
    metrics = {name: rounded(found[name].value) for name in HEADLINE if name in found}
    parts = {name: estimate for name, estimate in found.items() if name.startswith(GOLD_PART)}
    if parts:
        metrics["gold_parts"] = {name.removeprefix(GOLD_PART): rounded(e.value) for name, e in parts.items()}
    return metrics


def headline(metrics: dict, scoring: str) -> dict:
    """What metrics/evaluate.json holds of all that was measured: what a run is first compared by.

    `best`: each policy at its own best temperature, its mean score by `scoring` (gold, judge or reward), and the win
    rate of the aligned one against SFT there, with its interval; then both scores at the training temperature, the KL;
    where there were earlier rounds of feedback, the same two of each one's policy.
    """
    best = {name: {key: metrics["best"][name][key] for key in ("temperature", scoring)} for name in ("sft", "ppo")}
    scores = {name: {scoring: metrics[name][scoring]} for name in ("sft", "ppo")}
    found = {"best": {**best, "win_rate": metrics["win_rate"]["ppo_vs_sft"]}, **scores, "kl": metrics["kl"]}
    rounds = {
        number: {key: of[key]["value"] for key in (scoring, "kl")} for number, of in metrics.get("rounds", {}).items()
    }
    return found | ({"rounds": rounds} if rounds else {})


def best_of_n_metrics(found: BestOfN | None, scoring: str) -> dict | None:
    """Best of n samples of SFT at its best temperature: n, temperature, posts, and the mean score with its interval."""
    if found is None:
        return None
    return {"n": found.n, "temperature": found.temperature, "posts": found.posts, scoring: found.score.as_json()}


def win_rate_metrics(
    wins: dict[tuple[str, str], np.ndarray], lengths: dict[str, np.ndarray], bootstrap: Bootstrap
) -> dict[str, dict]:
    """Win rates by one judge, `SYSTEM_vs_OTHER: {value, low, high}`, and the same with lengths matched."""
    plain, controlled = {}, {}
    for (system, against), won in wins.items():
        key = f"{system}_vs_{against}"
        estimates = win_rates(won, lengths[system] - lengths[against], bootstrap)
        plain[key], controlled[key] = (estimate.as_json() for estimate in estimates)
    return {**plain, "length_controlled": controlled}


def pairwise_metrics(verdicts: Sequence[Verdicts], bootstrap: Bootstrap) -> dict:
    """What a judge that compares leaves beside its win rates: on how many posts, what was not judged, its bias.

    `posts` it was asked about, `pairs: {judged, REASON...}` of summaries there, and `position_bias: {flipped,
    first_place}` (see `PositionBias`), null where all pairs were of equal summaries.
    """
    pairs = Counter(judged=int(sum((~np.isnan(found.wins)).sum() for found in verdicts)))
    for found in verdicts:
        pairs.update(found.not_judged)
    bias = position_bias(verdicts, bootstrap)
    return {
        "posts": verdicts[0].posts,
        "pairs": dict(pairs),
        "position_bias": bias and {name: e.as_json() for name, e in vars(bias).items()},
    }


def people_metrics(people: dict) -> dict:
    """The same where people are the judge: posts and votes, and how sure they are of themselves and blind to sides."""
    again, first_place = people["consistency"]["percent"], people["judges"]["people"]["first_place"]
    bias = None
    if again["value"] is not None and first_place["value"] is not None:
        ends = {"value": "value", "low": "high", "high": "low"}
        bias = {"flipped": {end: rounded(1 - again[of]) for end, of in ends.items()}, "first_place": first_place}
    return {"posts": people["posts"], "pairs": {"judged": people["votes"]}, "position_bias": bias}


def summary_rows(
    posts: Sequence[dict],
    systems: dict[str, Summaries],
    measures: dict[str, Measures],
    gains: np.ndarray,
    chosen: list[tuple[int, str]],
) -> list[dict]:
    """One row a post for details/summaries.jsonl.

    `post`, `shown` (sample, gain, loss or null), `gain` (PPO's score by the judge minus SFT's; of a judge that compares
    PPO's share of the verdict minus SFT's, null where there is none), then for each system `{summary, ended, length,
    reward, rougeL, gold, judge}`.
    """
    shown, rows = dict(chosen), []
    for index, post in enumerate(posts):
        gain = None if np.isnan(gains[index]) else rounded(gains[index])
        row = {"post": spoken(post["prompt"]), "shown": shown.get(index), "gain": gain}
        for name, summaries in systems.items():
            row[name] = {"summary": summaries.texts[index].strip(), "ended": bool(summaries.ended[index])}
            for measure in ("length", "reward", "rougeL", "gold", "judge"):
                if measure in measures[name]:
                    row[name][measure] = rounded(measures[name][measure][index])
        rows.append(row)
    return rows


def summaries_page(rows: list[dict], scoring: str, score_name: str, judge_name: str, algorithm: str) -> str:
    """The shown summaries as Markdown: the post, then a table of its summaries and their scores.

    Args:
        scoring: the measure shown first, called `score_name`.
        judge_name: who decided which gains and losses are the largest.
        algorithm: the name for readers of what aligned the policy "ppo".
    """
    names = {"reference": "author", "sft_best": "SFT", "ppo_best": algorithm}
    columns = [scoring] + [name for name in ("reward", "length") if name != scoring]
    titles = {"reward": "reward", "length": "tokens", scoring: score_name}
    lines = [
        f"# Summaries before and after {algorithm}",
        "",
        f"Of {len(rows)} held-out posts. Gains and losses are by this judge: {judge_name}. "
        "Each policy is at its own best temperature. All summaries: `summaries.jsonl`.",
    ]
    for kind, heading in HEADINGS.items():
        chosen = [row for row in rows if row["shown"] == kind]
        if kind != "sample":
            chosen.sort(key=lambda row: -abs(row["gain"]))
        lines += ["", f"## {heading}"] if chosen else []
        for row in chosen:
            post = row["post"].removesuffix("TL;DR:").split("\n")
            lines += ["", *("> " + _escaped(line) for line in post if line.strip()), ""]
            lines += ["| | summary | " + " | ".join(titles[name] for name in columns) + " |"]
            lines += ["| --- | --- |" + " ---: |" * len(columns)]
            for system, name in names.items():
                cells = [f"{row[system][column]:.4g}" for column in columns]
                lines += [f"| {name} | {_escaped(row[system]['summary'])} | " + " | ".join(cells) + " |"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line, and a terminal too: control characters are spelt out."""
    text = printable(" ".join(text.split()))
    for character in "\\`*_[]<>|#&~":
        text = text.replace(character, "\\" + character)
    return text
