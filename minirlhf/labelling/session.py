"""What the page asks and what it is told: one session over a folder of votes, whoever serves it."""

import datetime
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from minirlhf.feedback.pairs import Ask, Queue
from minirlhf.feedback.votes import Pair, Undo, Vote, Votes, add, read_votes
from minirlhf.runtime.errors import UserError
from minirlhf.text.prompts import parse_prompt


class Refused(Exception):
    """A request that cannot be granted, with a line for who sent it."""


@dataclass
class Session:
    """The votes in a folder, and what each voter is asked next. Safe for several threads.

    Args:
        folder: of the votes.
        queue: of the pairs.
        wanted: how many votes that decide are waited for; 0: nobody waits.
    """

    folder: Path
    queue: Queue
    wanted: int = 0
    votes: Votes = field(init=False)
    pairs: dict[str, Pair] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        self.votes = read_votes(self.folder)
        self.pairs = {pair.id: pair for pair in (*self.queue.pairs, *self.queue.checks)}

    def next(self, voter: str) -> dict[str, Any]:
        """What the page shows a voter now: `ask` (None: nothing is left) and how far things are."""
        with self._lock:
            return self._state(voter)

    def vote(self, voter: str, said: dict[str, Any]) -> dict[str, Any]:
        """Take a vote, and say what comes next when the disk holds it. One that is sent twice counts once.

        Raises:
            Refused: of a pair that is not there, one that this voter was not asked, or one that makes no sense.
            UserError: the disk is full or not writable.
        """
        keys = ("id", "pair", "left", "choice", "shown", "rule", "repeat", "seconds")
        try:
            vote = Vote(voter=voter, time=now(), **{key: said.get(key) for key in keys})
        except ValidationError as error:
            raise Refused(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None
        with self._lock:
            if vote.id not in self.votes.known:
                self._check(vote)
                self._add(vote)
            return self._state(voter)

    def undo(self, voter: str, key: str) -> dict[str, Any]:
        """Take back a voter's last vote, whose pair comes again. One that is sent twice takes back one."""
        with self._lock:
            last = self._last(voter)
            if key not in self.votes.known and last is not None:
                try:
                    self._add(Undo(id=key, voter=voter, undo=last.id, time=now()))
                except ValidationError:
                    raise Refused("id: expected 32 hexadecimal digits") from None
            return self._state(voter)

    def _check(self, vote: Vote) -> None:
        if vote.pair not in self.pairs:
            raise Refused("pair: not one of this session")
        mine = [cast for cast in self.votes.cast.values() if (cast.voter, cast.pair) == (vote.voter, vote.pair)]
        if bool(mine) != vote.repeat or len(mine) > 1:
            raise Refused("pair: voted on already, in another window or at another time; here is the next one")
        if vote.left != (1 - mine[0].left if mine else self.queue.side(vote.voter, vote.pair)):
            raise Refused("left: not as it was shown")

    def _add(self, record: Vote | Undo) -> None:
        try:
            refused = add(self.folder, self.votes, [record], self.pairs)
        except UserError:
            self.votes = read_votes(self.folder)
            raise
        if refused:
            raise Refused(next(iter(refused)))

    def _last(self, voter: str) -> Vote | None:
        return next((vote for vote in reversed(self.votes.cast.values()) if vote.voter == voter), None)

    def _state(self, voter: str) -> dict[str, Any]:
        ask = self.queue.ask(voter, self.votes.cast.values())
        done = sum(vote.voter == voter for vote in self.votes.cast.values())
        decided = sum(vote.choice != "tie" for vote in self.votes.counted())
        state = {"ask": ask and describe(ask), "done": done, "decided": decided, "wanted": self.wanted}
        return state


def describe(ask: Ask) -> dict[str, Any]:
    """A pair as the page gets it: texts and what a vote must say again, and no name of who wrote what."""
    post = parse_prompt(ask.pair.post)
    sides = ask.pair.summaries[ask.left], ask.pair.summaries[1 - ask.left]
    return {
        "pair": ask.pair.id,
        "left": ask.left,
        "shown": ask.pair.shown(ask.left),
        "rule": ask.rule,
        "repeat": ask.repeat,
        "place": post and f"r/{post.subreddit}",
        "title": post.title if post else "",
        "post": post.body if post else ask.pair.post.strip(),
        "summaries": [{"text": side.text.strip(), "cut": not side.ended} for side in sides],
    }


def sequence(queue: Queue, voter: str, count: int) -> list[Ask]:
    """The first `count` pairs that a voter is asked, whatever they say, and whatever others do."""
    cast: list[Vote] = []
    asks: list[Ask] = []
    while len(asks) < count and (ask := queue.ask(voter, cast)) is not None:
        asks.append(ask)
        cast.append(Vote(id=secrets.token_hex(16), voter=voter, pair=ask.pair.id, left=ask.left, choice="left",
                         shown=ask.pair.shown(ask.left), rule=ask.rule, repeat=ask.repeat))  # fmt: skip
    return asks


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
