"""Votes of people on pairs of summaries: append-only JSON lines, on the disk before the next pair is shown.

A folder of votes holds `pairs.jsonl`, each pair that was ever voted on with its texts, and `votes.jsonl`: votes, and
records that take one back. Pairs are named by a hash of what they hold, and a vote keeps a hash of what was shown, so
that votes outlive the models that wrote the summaries and never count for others.

What counts, the rule for everything that is made of votes:

- a skip ("cannot say") is no vote;
- a tie is one half of a win for either, and no comparison to train on;
- of a voter's votes on one pair the first counts. The pair comes again, sides swapped, to see whether voters agree with
  themselves (`repeat`), and for nothing else;
- a vote on a pair whose answer is known, an attention check, says something of its voter alone, and counts nowhere;
- a vote that was taken back (`Undo`) has not been;
- a line that cannot be read, or whose pair is not there, is left out and counted by reason.
"""

import errno
import gc
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import sync, writing
from minirlhf.settings.section import Name, Section
from minirlhf.text.chat import ChatPrompt, spoken, with_messages

SPLITS = ("train", "validation", "test")
CHOICES = ("left", "right", "tie", "skip")
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Voter = Annotated[str, Field(min_length=1, max_length=40)]


class Summary(Section):
    """One of the two summaries of a pair."""

    text: str
    ended: bool = True  # by itself, not at the limit of length
    system: str | None = None  # who wrote it, where that is what is judged; never shown


class Pair(Section):
    """Two summaries of a post."""

    prompt: Name
    summaries: tuple[Summary, Summary]
    split: Literal["train", "validation", "test"] = "train"  # of the post
    record: dict[str, str] | None = None  # the truth of the embedded world; never shown
    messages: list[dict[str, str]] | None = None  # of a chat
    known: Literal[0, 1] | None = None  # of an attention check, which summary is better; never shown

    @cached_property
    def id(self) -> str:
        """A hash of the texts: the same two summaries of a post are the same pair, wherever they come from.

        An attention check is another pair, so that no vote on it is ever taken for one that counts.
        """
        first, second = self.summaries
        known = () if self.known is None else (str(self.known),)
        return digest(self.prompt, first.text, second.text, f"{first.ended:d}{second.ended:d}", *known)

    @property
    def post(self) -> str:
        """What a voter reads of the prompt: of a chat what is said, without a template's markup."""
        return self.prompt if self.messages is None else spoken(ChatPrompt(self.prompt, self.messages))

    def with_answer(self, known: int) -> "Pair":
        """The same texts as an attention check, of which summary `known` (0 or 1) is the better."""
        return Pair(**{name: getattr(self, name) for name in Pair.model_fields} | {"known": known})

    def shown(self, left: int) -> str:
        """A hash of what a voter sees with summary `left` (0 or 1) on the left."""
        return digest(self.id, str(left))


class Vote(Section):
    """What a voter said of a pair."""

    id: Id  # made where the vote was cast: it may be sent twice and counts once
    voter: Voter
    pair: Id
    left: Literal[0, 1]  # which summary stood on the left
    choice: Literal["left", "right", "tie", "skip"]
    shown: Id
    rule: Literal["random", "closest", "disagreement", "given"] = "random"  # why this pair: see pairs.py
    repeat: bool = False
    seconds: Annotated[float, Field(ge=0)] | None = None
    time: str | None = None  # ISO 8601, UTC
    confidence: int | None = None  # of imported votes that have one

    @property
    def first_won(self) -> float | None:
        """1 where the pair's first summary won, 0 where it lost, 0.5 for a tie, None for a skip."""
        if self.choice in ("tie", "skip"):
            return 0.5 if self.choice == "tie" else None
        return float((self.choice == "left") == (self.left == 0))


class Undo(Section):
    """A voter takes a vote back."""

    id: Id
    voter: Voter
    undo: Id
    time: str | None = None


@dataclass
class Votes:
    """What a folder of votes holds."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    cast: dict[str, Vote] = field(default_factory=dict)  # by id, in order, without those taken back
    known: set[str] = field(default_factory=set)  # ids of all records, those taken back and those that did it too
    refused: Counter[str] = field(default_factory=Counter)  # reason -> lines

    def take(self, record: Vote | Undo) -> str | None:
        """Note a record; the reason where it cannot be taken."""
        if record.id in self.known:
            return "duplicate"
        if isinstance(record, Undo):
            vote = self.cast.get(record.undo)
            if vote is None or vote.voter != record.voter:
                return "undoes_nothing"
            del self.cast[record.undo]
        else:
            pair = self.pairs.get(record.pair)
            if pair is None:
                return "unknown_pair"
            if pair.shown(record.left) != record.shown:
                return "something_else_shown"
            self.cast[record.id] = record
        self.known.add(record.id)
        return None

    def counted(self) -> list[Vote]:
        """The votes that count: see the rule above."""
        first = {}
        for vote in self.cast.values():
            if vote.choice != "skip" and not vote.repeat and self.pairs[vote.pair].known is None:
                first.setdefault((vote.voter, vote.pair), vote)
        return list(first.values())

    def checks(self) -> dict[str, list[bool]]:
        """By voter, whether each vote on a pair whose answer is known says the same; a tie does not, skips are none."""
        found: dict[str, list[bool]] = {}
        for vote in self.cast.values():
            known = self.pairs[vote.pair].known
            if known is not None and vote.choice != "skip":
                found.setdefault(vote.voter, []).append(vote.first_won == 1.0 - known)
        return found

    def comparisons(self, split: str) -> list[dict]:
        """The votes that decide, of posts of a split, as rows to train on: prompt, chosen, rejected, who ended, record.

        Two voters who agree are two rows, and so weigh twice.
        """
        rows = []
        for vote in self.counted():
            pair = self.pairs[vote.pair]
            if vote.choice == "tie" or pair.split != split:
                continue
            chosen, rejected = pair.summaries if vote.first_won else pair.summaries[::-1]
            row = {"prompt": pair.prompt, "chosen": chosen.text, "rejected": rejected.text}
            row |= {"chosen_ended": chosen.ended, "rejected_ended": rejected.ended}
            known = {"record": pair.record, "messages": pair.messages}
            rows.append(with_messages(row | {key: value for key, value in known.items() if value is not None}))
        return rows

    def repeats(self) -> list[tuple[Vote, Vote]]:
        """A voter's first vote on a pair and the one when it came again; skips are left out."""
        first = {(vote.voter, vote.pair): vote for vote in self.counted()}
        again = (vote for vote in self.cast.values() if vote.repeat and vote.choice != "skip")
        return [(first[key], vote) for vote in again if (key := (vote.voter, vote.pair)) in first]


def digest(*texts: str) -> str:
    """32 hexadecimal digits that stand for texts."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def read_votes(folder: Path) -> Votes:
    """All votes in a folder; an empty one, or none at all, holds no vote. 100,000 take a second."""
    found = Votes()
    collecting = gc.isenabled()
    gc.disable()  # it would look through all that was read again and again, for half the time
    try:
        for pair in read_records(folder / "pairs.jsonl", Pair, found.refused):
            found.pairs[pair.id] = pair
        for record in read_records(folder / "votes.jsonl", Vote, found.refused):
            if (reason := found.take(record)) is not None:
                found.refused[reason] += 1
    finally:
        if collecting:
            gc.enable()
    return found


def read_records(path: Path, kind: type[BaseModel], refused: Counter[str]) -> Iterator:
    """The records of a JSON-lines file, of a kind (Vote: also Undo); lines that are none are counted in `refused`.

    Raises:
        UserError: the file is there and cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    for line in lines:
        try:
            yield (Undo if kind is Vote and b'"undo":' in line else kind).model_validate_json(line)
        except ValidationError as error:
            reasons = {"json_invalid": "not_json", "missing": "missing_field"}
            if line.strip():
                refused[reasons.get(error.errors()[0]["type"], "mistyped_field")] += 1


def add(folder: Path, votes: Votes, records: Iterable[Vote | Undo], pairs: Mapping[str, Pair]) -> Counter[str]:
    """Write records to a folder and note them in `votes`; those that cannot be taken are counted by reason.

    When it returns, the disk holds the others.

    Args:
        pairs: where the pairs are that the folder may not have yet.

    Raises:
        UserError: the disk is full or not writable. `votes` then knows more than the disk: read it again.
    """
    refused: Counter[str] = Counter()
    new_pairs, new_records = [], []
    for record in records:
        pair = pairs.get(record.pair) if isinstance(record, Vote) and record.pair not in votes.pairs else None
        if pair is not None:
            votes.pairs[pair.id] = pair
            new_pairs.append(pair)
        if (reason := votes.take(record)) is None:
            new_records.append(record)
        else:
            refused[reason] += 1
    _append(folder / "pairs.jsonl", new_pairs)  # first: a vote without its pair would be lost
    _append(folder / "votes.jsonl", new_records)
    return refused


def keep(folder: Path, votes: Votes, pairs: Iterable[Pair]) -> None:
    """Write pairs to a folder before anybody has voted on them, as those of a packet, and note them in `votes`."""
    new = {pair.id: pair for pair in pairs if pair.id not in votes.pairs}
    _append(folder / "pairs.jsonl", list(new.values()))
    votes.pairs |= new


def _append(path: Path, records: list[BaseModel]) -> None:
    """Append records to a file, in one write, and wait until the disk holds them."""
    if not records:
        return
    lines = "".join(f"{record.model_dump_json(exclude_none=True)}\n" for record in records).encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with open(path, "ab+", buffering=0) as file:
            if file.tell() and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                lines = b"\n" + lines  # after a line that a full disk or a power cut has left torn
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        if is_new:
            sync(path.parent)
