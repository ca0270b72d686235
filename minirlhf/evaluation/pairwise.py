"""Judges that are shown two summaries of a post and say which is better.

Such judges favour a place: many take whatever they are shown first (Zheng et al. 2023, arXiv 2306.05685, section 3.3).
So every pair is asked in both orders, the two verdicts are averaged, and how often the order decided is reported.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minirlhf.runtime.errors import UserError
from minirlhf.statistics.bootstrap import Bootstrap, Estimate


class NotJudged(NamedTuple):
    """In the place of a verdict: why there is none, and what was said instead."""

    reason: str
    said: str = ""


# (prompts, first, second) -> for each post 1 where the first summary is better, 0 where the second is, 0.5 for a tie.
Ask = Callable[[list[str], list[str], list[str]], list[float | NotJudged]]


@dataclass(frozen=True)
class Verdicts:
    """What a judge said of B pairs of summaries. Verdicts are of the first summary: it won (1), tied (0.5), lost (0).

    A pair counts only when it was judged in both orders. Equal summaries tie; nobody is asked about them.
    """

    as_given: np.ndarray  # [B] with the first summary shown first; NaN: not judged, or of no post asked about
    swapped: np.ndarray  # [B] with the second summary shown first
    asked: np.ndarray  # [B] bool: the judge was shown this pair
    not_judged: dict[str, int]  # reason -> pairs
    posts: int  # of the B: the first ones, which the verdicts are about

    @property
    def wins(self) -> np.ndarray:
        """[B] the mean over both orders: 1, 0.75, 0.5, 0.25 or 0; NaN where there is no verdict."""
        return (self.as_given + self.swapped) / 2

    @property
    def told(self) -> np.ndarray:
        """[B] bool: the judge was shown this pair and answered both times."""
        return self.asked & ~np.isnan(self.wins)


@dataclass(frozen=True)
class PairwiseJudge:
    """A function that compares, asked in both orders, about the first `max_posts` posts (None: all)."""

    ask: Ask
    max_posts: int | None = None

    def compare(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Verdicts:
        """Judge B pairs of summaries, one a post. Spaces around a summary are not shown.

        Raises:
            UserError: the judge failed, or gave no verdict on any pair.
        """
        posts = min(self.max_posts or len(prompts), len(prompts))
        first, second = ([text.strip() for text in texts] for texts in (first, second))
        asked = np.array([one != other for one, other in zip(first, second, strict=True)])
        asked[posts:] = False
        as_given, swapped = np.full((2, len(asked)), 0.5)
        as_given[posts:] = swapped[posts:] = np.nan
        rows = np.flatnonzero(asked)
        shown, ones, others = ([texts[row] for row in rows] for texts in (prompts, first, second))
        answers = self.ask(shown + shown, ones + others, others + ones) if len(rows) else []
        reasons = Counter()
        for row, one, other in zip(rows, answers[: len(rows)], answers[len(rows) :], strict=True):
            missing = next((answer for answer in (one, other) if isinstance(answer, NotJudged)), None)
            if missing:
                reasons[missing.reason] += 1
            as_given[row], swapped[row] = (np.nan, np.nan) if missing else (one, 1 - other)
        if reasons.total() == len(rows) > posts / 2:  # what is left would be ties of equal summaries alone
            counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            said = next(answer.said for answer in answers if isinstance(answer, NotJudged))[:200]
            raise UserError(f"evaluate.judge: no verdict on any of {len(rows)} pairs ({counts}); it said {said!r}")
        return Verdicts(as_given, swapped, asked, dict(sorted(reasons.items())), posts)


@dataclass(frozen=True)
class PositionBias:
    """How much the order of showing decides, over the pairs that a judge was shown and judged."""

    flipped: Estimate  # share of pairs whose verdict is another in the other order
    first_place: Estimate  # share won by the summary shown first, ties one half; 0.5 without bias


def position_bias(verdicts: Sequence[Verdicts], bootstrap: Bootstrap) -> PositionBias | None:
    """The bias in several sets of pairs on the same posts, a post's pairs drawn together; None if none was shown."""
    told = sum(found.told.astype(float) for found in verdicts)  # [B]
    if not told.any():
        return None

    def share(of: Callable[[Verdicts], np.ndarray]) -> Estimate:
        return bootstrap.ratio(sum(np.where(found.told, of(found), 0.0) for found in verdicts), told)

    return PositionBias(
        flipped=share(lambda found: (found.as_given != found.swapped).astype(float)),
        first_place=share(lambda found: (found.as_given + 1 - found.swapped) / 2),
    )


def checked(function: Callable, name: str) -> Ask:
    """A user's function of that kind, with its answers checked: as many as pairs, each 1, 0.5 or 0."""

    def ask(prompts: list[str], first: list[str], second: list[str]) -> list[float]:
        try:
            answers = function(prompts, first, second)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"judge {name} raised {error!r}") from error
        answers = answers.tolist() if hasattr(answers, "tolist") else answers
        if not isinstance(answers, (list, tuple)) or len(answers) != len(first):
            count = f"{len(answers)} answers" if isinstance(answers, (list, tuple)) else type(answers).__name__
            raise UserError(f"judge {name} returned {count} for {len(first)} pairs; expected a list of 1, 0.5 or 0")
        for answer in answers:
            if not isinstance(answer, (int, float)) or answer not in (0, 0.5, 1):
                raise UserError(f"judge {name} returned {answer!r} for a pair; expected 1, 0.5 or 0")
        return [float(answer) for answer in answers]

    return ask
