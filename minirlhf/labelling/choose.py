"""Which pairs a session asks about: where they come from, and how reward models rank them."""

import sys
from collections import Counter
from pathlib import Path

from minirlhf.feedback.exchange import read_given
from minirlhf.feedback.pairs import (
    SHARED,
    Queue,
    by_closeness,
    by_disagreement,
    candidate_pairs,
    clear_pairs,
    result_pairs,
)
from minirlhf.feedback.votes import Pair
from minirlhf.runtime.errors import UserError

SOURCES = {
    "candidates": (Path("data/collected/candidates.jsonl"), candidate_pairs, "collect"),
    "results": (Path("details/summaries.jsonl"), result_pairs, "evaluate"),
}


def queue_of(what: str, rule: str, rewards: list[Path], known: Path | None = None) -> Queue:
    """The order in which voters are asked, of candidates or results.

    Args:
        rule: random, closest or disagreement.
        rewards: folders of the reward models that the latter two ask.
        known: as of `checks_of`.

    Raises:
        UserError: there is nothing to ask about, or results would be chosen by a rule.
    """
    pairs = pairs_of(what)
    ranking = None
    if rule != "random":
        if what == "results":
            raise UserError(
                "--rule: results are judged on pairs drawn at random; a win rate over chosen ones is biased"
            )
        ranking = rank([pair for pair in pairs if pair.split == "train"], rule, rewards)
    return Queue(pairs, SHARED[what], rule=rule, ranking=ranking, checks=checks_of(known))


def checks_of(file: Path | None) -> list[Pair]:
    """Pairs whose answer is known: a file's comparisons; without one, in the embedded world, some clear candidates.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    if file is None:
        candidates = SOURCES["candidates"][0]
        return clear_pairs(candidate_pairs(candidates)) if candidates.exists() else []
    refused: Counter[str] = Counter()
    found: dict[str, Pair] = {}
    for pair, vote in read_given(file, refused):
        if pair is None or vote.first_won in (None, 0.5):
            refused["no_answer"] += 1
        else:
            check = pair.with_answer(int(vote.first_won == 0))
            found[check.id] = check
    if not found:
        raise UserError(f"{file}: no comparison whose answer could be known")
    for reason, count in sorted(refused.items()):
        print(f"{file}: {count} left out: {reason}", file=sys.stderr)
    return list(found.values())


def pairs_of(what: str) -> list[Pair]:
    """The pairs that may be asked about.

    Raises:
        UserError: there are none.
    """
    file, make, stage = SOURCES[what]
    if not file.exists():
        raise UserError(f"{file}: not there; `dvc repro {stage}` makes it")
    if not (pairs := make(file)):
        raise UserError(f"{file}: no two summaries to compare")
    return pairs


def rank(pairs: list[Pair], rule: str, folders: list[Path]) -> list[Pair]:
    """Pairs, the most wanted first, by the scores of reward models."""
    if rule == "disagreement" and len(folders) < 2:
        raise UserError("--reward: disagreement needs two reward models or more, trained with different seeds")
    from minirlhf.runtime.stage import quiet

    quiet()
    from minirlhf.rewards.model import RewardModel
    from minirlhf.rewards.text import call_reward

    texts = list(dict.fromkeys((p.prompt, s.text, s.ended) for p in pairs for s in p.summaries))
    prompts, summaries, ended = map(list, zip(*texts, strict=True))
    margins = []
    for folder in folders if rule == "disagreement" else folders[:1]:
        reward = RewardModel.load(folder, desc="label: scoring")
        scores = dict(zip(texts, call_reward(reward, prompts, summaries, ended, [[] for _ in texts]), strict=True))
        first, second = ([scores[p.prompt, p.summaries[i].text, p.summaries[i].ended] for p in pairs] for i in (0, 1))
        margins.append([one - other for one, other in zip(first, second, strict=True)])
    order = by_closeness(margins[0]) if rule == "closest" else by_disagreement(margins)
    return [pairs[index] for index in order]
