"""What a reward model is worth on held-out comparisons: all of `quality` and `probes`, each text scored once."""

from collections.abc import Sequence

from minirlhf.reward_modeling import probes as reward_probes
from minirlhf.reward_modeling import quality
from minirlhf.rewards.model import RewardModel
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.text.prompts import encode_all

RESAMPLES = 1000  # behind each interval
Table = tuple[list[dict], list[str] | None]  # rows, and columns where there may be none


def examine(
    reward: RewardModel, held_out: dict[str, list[dict]], posts: list[dict], seed: int
) -> tuple[dict, dict[str, Table]]:
    """What the reward model is worth on held-out comparisons, by where they come from, and which faults it sees.

    Returns the metrics, and of each table (a file's name in details/) the rows and columns.
    """
    rows = [row for part in held_out.values() for row in part]
    summaries = quality.summaries_of(rows)
    probes = reward_probes.probes_of(posts)
    probed = [summary for probe in probes for summary in (probe.clean, probe.edited)]
    scores = quality.score_once(reward, summaries + probed)
    tokens = encode_all(reward.tokenizer, [text for _, text, _ in summaries])
    lengths = {summary: len(ids) for summary, ids in zip(summaries, tokens, strict=True)}

    bootstrap, metrics = Bootstrap(seed, RESAMPLES), {}
    for name, part in held_out.items():
        metrics[f"reward_accuracy_{name}"] = round(quality.accuracy(quality.margins(part, scores)), 6)
    found, tables = worth(rows, scores, lengths, bootstrap)
    metrics |= {f"reward_{name}": value for name, value in found.items()}
    tables["reward_probes"] = (reward_probes.probe_table(probes, scores, bootstrap), reward_probes.COLUMNS)
    return metrics, tables


def worth(
    rows: Sequence[dict], scores: quality.Scores, lengths: quality.Scores, bootstrap: Bootstrap
) -> tuple[dict, dict[str, Table]]:
    """What scores are worth on comparisons, whoever gave them.

    Args:
        scores, lengths: of every summary in `rows`; lengths in any unit.

    Returns:
        accuracy, test_loss, confidence, ceiling (where the truth is known), rules, length, gold (likewise) and
        intervals: see docs/reward_model.md; and the tables calibration, reward_margins and gold_margins.
    """
    margins = quality.margins(rows, scores)
    hits = quality.hits(margins)
    metrics: dict = {"accuracy": round(quality.accuracy(margins), 6)}
    metrics["test_loss"] = round(quality.preference_loss(margins), 6)
    metrics["confidence"] = quality.confidence(margins)
    if best := quality.ceiling(rows, quality.accuracy(margins), bootstrap):
        metrics["ceiling"] = best
    longer = quality.hits(quality.margins(rows, lengths))
    metrics["rules"] = {"longer": quality.share(longer, rows, bootstrap).as_json(), "coin": 0.5}
    metrics["length"] = quality.length_bias(rows, scores, lengths, bootstrap)
    gold, gold_margins = quality.gold_agreement(rows, scores, bootstrap)
    metrics |= {"gold": gold} if gold else {}
    metrics["intervals"] = {"accuracy": quality.share(hits, rows, bootstrap).as_json()}
    return metrics, {
        "calibration": (quality.calibration(margins), None),
        "reward_margins": (quality.by_margin(margins, hits, rows, bootstrap), None),
        "gold_margins": (gold_margins, quality.GOLD_MARGIN_COLUMNS),
    }
