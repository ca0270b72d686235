"""Which pairs of summaries a person is asked about, and in which order.

Pairs come from the candidates of the collect stage, to train a reward model on, or from the results of the evaluate
stage, to judge. Which of the candidates come first is a rule's choice:

- `random`: by lot;
- `closest`: those that a reward model scores most alike;
- `disagreement`: those about which several reward models disagree most, by the standard deviation over models of the
  probability that the first is better (a query by committee: Seung et al. 1992).

A share of every session, `SHARED`, is drawn at random whatever the rule, and alike for all voters: it says how far they
agree, and stands for all pairs, as chosen ones do not. Pairs of held-out posts are always random.

Pairs whose answer is known come in between, at places drawn by lot, to see whether a voter attends. They are a user's,
or in the embedded world candidates that gold tells apart clearly.
"""

import hashlib
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minirlhf.feedback.votes import SPLITS, Pair, Summary, Vote
from minirlhf.runtime.files import read_jsonl
from minirlhf.world.judge import judge

SHARED = {"candidates": 0.25, "results": 1.0}  # of a session
SPLIT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of a session, where there are posts of all three
REPEAT_EVERY = 15  # one of so many pairs is an earlier one, sides swapped: 7%
REPEAT_AFTER = 5  # pairs between the two times, at least
CHECK_EVERY = 15  # one of so many pairs has a known answer: 7%
CLEAR = 4.0  # gold points between its summaries in the embedded world, whose simulated annotators err on 8% of such
CHECKS = 60  # so many of them, each of another post
Names = tuple[str, str]  # of two systems
SYSTEMS: tuple[Names, ...] = (("ppo", "sft"), ("ppo", "reference"), ("sft", "reference"))

COLUMNS = {"ppo": "ppo_best", "sft": "sft_best", "reference": "reference"}  # in summaries.jsonl


class Ask(NamedTuple):
    """A pair to show, and how."""

    pair: Pair
    left: int  # which summary stands on the left
    rule: str
    repeat: bool


def candidate_pairs(file: Path) -> list[Pair]:
    """Every two different summaries of a post, of candidates as the collect stage leaves them."""
    pairs = []
    for row in read_jsonl(file, ("prompt", "split")):
        summaries = [Summary(text=text, ended=ended) for text, ended in row["summaries"]]
        shared = {key: row.get(key) for key in ("prompt", "split", "record", "messages")}
        for first, second in itertools.combinations(dict.fromkeys(summaries), 2):
            if first.text.strip() != second.text.strip():
                pairs.append(Pair(summaries=(first, second), **shared))
    return pairs


def clear_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Attention checks of the embedded world: some pairs of train posts that gold tells apart clearly, by lot.

    Of train posts, so that who judges results, which are of test posts, reads no post twice.
    """
    found: dict[str, Pair] = {}
    for pair in random.Random(0).sample(pairs, len(pairs)):
        if len(found) == CHECKS:
            break
        if pair.record is not None and pair.split == "train" and pair.prompt not in found:
            first, second = (judge(side.text, pair.record, side.ended).score for side in pair.summaries)
            if abs(first - second) >= CLEAR:
                found[pair.prompt] = pair.with_answer(int(second > first))
    return list(found.values())


def result_pairs(file: Path) -> list[Pair]:
    """The aligned policy, SFT and the author against each other, each at its best temperature; equal ones tie unasked.

    Args:
        file: summaries.jsonl of the evaluate stage.
    """
    pairs = []
    for row in read_jsonl(file, ("post",)):
        found = {name: row[key] for name, key in COLUMNS.items()}
        for names in SYSTEMS:
            one, other = ((name, found[name]["summary"], found[name]["ended"]) for name in names)
            if one[1] != other[1]:
                pairs.append(pair_of(row["post"], one, other))
    return pairs


def pair_of(prompt: str, one: tuple[str, str, bool], other: tuple[str, str, bool]) -> Pair:
    """The pair of two systems' summaries of a held-out post: each (system, text, whether it ended by itself)."""
    sides = tuple(Summary(system=system, text=text, ended=ended) for system, text, ended in (one, other))
    return Pair(prompt=prompt, split="test", summaries=sides)


def by_closeness(margins: Sequence[float]) -> np.ndarray:
    """[N] indices of pairs, those with the smallest difference of scores first."""
    return np.argsort(np.abs(margins), kind="stable")


def by_disagreement(margins: Sequence[Sequence[float]]) -> np.ndarray:
    """[N] indices of pairs, those first about which models disagree most; of the margins [models, N]."""
    chances = 1 / (1 + np.exp(-np.clip(np.asarray(margins, float), -50, 50)))
    return np.argsort(-chances.std(0), kind="stable")


@dataclass
class Queue:
    """What each voter is asked next. It follows from the votes and a seed: a reload, or another day, changes nothing.

    Args:
        pairs: all that may be asked about.
        shared: which share of a session is alike for all voters.
        ranking: the pairs of train posts, the most wanted first, by a `rule`; None: by lot.
        checks: pairs whose answer is known; others of the same posts are not asked about.
    """

    pairs: Sequence[Pair]
    shared: float
    seed: int = 0
    rule: str = "random"
    ranking: Sequence[Pair] | None = None
    checks: Sequence[Pair] = ()
    _orders: dict[str, list[tuple[Pair, str]]] = field(default_factory=dict)

    def ask(self, voter: str, cast: Iterable[Vote]) -> Ask | None:
        """The next pair for a voter, of the votes that all have cast so far; None: none is left."""
        own, others = [], set()
        for vote in cast:
            if vote.voter == voter:
                own.append(vote)
            else:
                others.add(vote.pair)
        seen = {vote.pair for vote in own}
        if (again := self._check(voter, len(own), seen) or self._repeat(voter, own)) is not None:
            return again
        fresh = sum(not vote.repeat for vote in own)
        is_shared = self._lot("shared", fresh).random() < self.shared
        places = [("", seen)] if is_shared else [(voter, seen | others), ("", seen)]
        for order, avoided in places:
            for pair, rule in self._order(order):
                if pair.id not in avoided:
                    return Ask(pair, self.side(voter, pair.id), rule, repeat=False)
        return None

    def side(self, voter: str, pair: str) -> int:
        """Which summary a voter sees on the left when a pair comes first; when it comes again, the other one."""
        return self._lot("side", voter, pair).randrange(2)

    def _check(self, voter: str, done: int, seen: set[str]) -> Ask | None:
        block, place = divmod(done, CHECK_EVERY)
        left = [pair for pair in self.checks if pair.id not in seen]
        if not left or place != self._lot("check", voter, block).randrange(CHECK_EVERY):
            return None
        pair = self._lot("check", voter, done).choice(left)
        return Ask(pair, self.side(voter, pair.id), "random", repeat=False)  # the page cannot tell it from others

    def _repeat(self, voter: str, own: list[Vote]) -> Ask | None:
        if len(own) % REPEAT_EVERY != REPEAT_EVERY - 1:
            return None
        repeated = {vote.pair for vote in own if vote.repeat}
        first = {vote.pair: vote for vote in own[:-REPEAT_AFTER] if vote.choice != "skip" and vote.pair not in repeated}
        known = {pair.id: pair for pair in self.pairs}
        first = [vote for vote in first.values() if vote.pair in known]
        if not first:
            return None
        vote = self._lot("repeat", voter, len(own)).choice(first)
        return Ask(known[vote.pair], 1 - vote.left, vote.rule, repeat=True)

    def _order(self, voter: str) -> list[tuple[Pair, str]]:
        """All pairs in a voter's own order, or ("") in that of all; each with the rule by which it stands there."""
        if voter not in self._orders:
            lot = self._lot("order", voter)
            checked = {pair.prompt for pair in self.checks}
            asked = [pair for pair in self.pairs if pair.prompt not in checked]
            splits = {split: spread([pair for pair in asked if pair.split == split], lot) for split in SPLITS}
            rules = dict.fromkeys(SPLITS, "random")
            if voter and self.ranking is not None:
                ranking = [pair for pair in self.ranking if pair.prompt not in checked]
                splits["train"], rules["train"] = spread(ranking), self.rule
            self._orders[voter] = _interleave({s: [(p, rules[s]) for p in pairs] for s, pairs in splits.items()}, lot)
        return self._orders[voter]

    def _lot(self, *of: object) -> random.Random:
        return random.Random(hashlib.blake2b(repr((self.seed, *of)).encode(), digest_size=8).digest())


def spread(pairs: Sequence[Pair], lot: random.Random | None = None) -> list[Pair]:
    """Pairs, by lot or as they come, but no post twice before each has come once."""
    pairs = list(pairs)
    if lot is not None:
        lot.shuffle(pairs)
    turn: dict[str, int] = {}
    rounds = []
    for pair in pairs:
        rounds.append(turn.get(pair.prompt, 0))
        turn[pair.prompt] = rounds[-1] + 1
    return [pairs[index] for index in np.argsort(rounds, kind="stable")]


def _interleave(splits: Mapping[str, Sequence], lot: random.Random) -> list:
    """One list of all splits', drawn by `SPLIT_SHARES` from those that still have some."""
    left = {split: list(reversed(items)) for split, items in splits.items() if items}
    found = []
    while left:
        split = lot.choices(list(left), [SPLIT_SHARES[name] for name in left])[0]
        found.append(left[split].pop())
        left = left if left[split] else {name: items for name, items in left.items() if name != split}
    return found
