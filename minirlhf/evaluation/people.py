"""People as judges: what their votes on the summaries say, and how near every other judge comes to them.

A vote counts for the very texts that it was given on. Where the summaries have changed, people are asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minirlhf.evaluation.pairwise import Verdicts, position_bias
from minirlhf.evaluation.winrate import wins_by_score
from minirlhf.feedback.agreement import agreement, attention, consistency, position
from minirlhf.feedback.pairs import SYSTEMS, Names, pair_of
from minirlhf.feedback.votes import Votes
from minirlhf.sampling.summaries import Summaries
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.text.chat import spoken

LONGER = "the longer one"  # a judge that knows nothing, for comparison


@dataclass(frozen=True)
class People:
    """Votes on some summaries of B posts.

    Attributes:
        votes: those that are about these summaries, drawn at random, and those on pairs whose answer is known.
        wins: for each pair of systems [voters, B]: 1 where a voter preferred the first system's summary, 0 the other's,
            0.5 for a tie; NaN where the voter was not asked, or could not say.
    """

    votes: Votes
    wins: dict[Names, np.ndarray]

    @property
    def decide(self) -> bool:
        """Whether there is a vote on every pair of systems, so that people can be the judge."""
        return all(not np.isnan(wins).all() for wins in self.wins.values())


def match(votes: Votes, prompts: Sequence[str], systems: Mapping[str, Summaries]) -> People | None:
    """The votes that are about these summaries; None where there are none."""
    places = {}
    for names in SYSTEMS:
        for row, prompt in enumerate(prompts):
            sides = ((name, systems[name].texts[row].strip(), bool(systems[name].ended[row])) for name in names)
            places[pair_of(spoken(prompt), *sides).id] = (names, row)
    pairs = {key: pair for key, pair in votes.pairs.items() if key in places or pair.known is not None}
    about = Votes(
        pairs, {key: vote for key, vote in votes.cast.items() if vote.pair in pairs and vote.rule == "random"}
    )
    counted = about.counted()
    if not counted:
        return None
    voters = {voter: row for row, voter in enumerate(dict.fromkeys(vote.voter for vote in counted))}
    wins = {names: np.full((len(voters), len(prompts)), np.nan) for names in SYSTEMS}
    for vote in counted:
        names, row = places[vote.pair]
        wins[names][voters[vote.voter], row] = vote.first_won
    return People(about, wins)


def metrics(
    people: People,
    judges: Mapping[str, Mapping[Names, np.ndarray]],
    lengths: Mapping[str, np.ndarray],
    verdicts: Mapping[str, Sequence[Verdicts]],
    bootstrap: Bootstrap,
) -> dict:
    """What people's votes come to, for metrics/evaluate.json.

    Args:
        judges: a judge's name -> pair of systems -> its verdicts [B] on the same summaries, NaN where there is none.
        lengths: system -> tokens of its summaries [B].
        verdicts: of those judges among these that compare, by name.

    Returns:
        voters, votes (that count), ties, skips, posts;
        win_rate: `SYSTEM_vs_OTHER: {value, low, high, votes}`, intervals over posts and voters;
        agreement, consistency, attention: of voters with each other, with themselves, and by voter with what is known
        (see feedback/agreement.py);
        judges: by name, people first: agreement with the votes (a tie of either counts one half), longer (share of the
        pairs of two lengths on which the longer summary is preferred), first_place (share won by the summary shown
        first; of those that score none).
    """
    counted, pairs = people.votes.counted(), people.votes.pairs
    skips = sum(vote.choice == "skip" and pairs[vote.pair].known is None for vote in people.votes.cast.values())
    told = {names: np.nonzero(~np.isnan(wins)) for names, wins in people.wins.items()}  # (voters, posts) of each vote
    said = {names: wins[told[names]] for names, wins in people.wins.items()}  # [votes]
    longer = {names: wins_by_score(*(lengths[name] for name in names)) for names in SYSTEMS}
    of_votes = {"people": said}
    for name, verdict in {**judges, LONGER: longer}.items():
        of_votes[name] = {names: verdict[names][told[names][1]] for names in SYSTEMS}
    voters, posts = (np.concatenate([told[names][axis] for names in SYSTEMS]) for axis in (0, 1))
    together = {name: np.concatenate([of[names] for names in SYSTEMS]) for name, of in of_votes.items()}  # [votes]

    def agree(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> dict | None:
        where = where & ~np.isnan(one + other)
        if not where.any():
            return None
        same = 0.5 + 0.5 * np.sign(one - 0.5) * np.sign(other - 0.5)
        return bootstrap.crossed_mean(same[where], _numbered(posts[where]), _numbered(voters[where])).as_json()

    rows = {
        name: {
            "agreement": None if name == "people" else agree(of, together["people"], np.full(len(of), True)),
            "longer": agree(of, together[LONGER], together[LONGER] != 0.5),
            "first_place": None,
        }
        for name, of in together.items()
        if name != LONGER or (together[LONGER] != 0.5).any()
    }
    rows["people"]["first_place"] = position(people.votes)
    for name, told_by in verdicts.items():
        if bias := position_bias(told_by, bootstrap):
            rows[name]["first_place"] = bias.first_place.as_json()
    return {
        "voters": len({vote.voter for vote in counted}),
        "votes": len(counted),
        "ties": sum(vote.choice == "tie" for vote in counted),
        "skips": skips,
        "posts": len(np.unique(posts)),
        "win_rate": {
            f"{one}_vs_{other}": bootstrap.crossed_mean(
                said[one, other], _numbered(told[one, other][1]), _numbered(told[one, other][0])
            ).as_json()
            | {"votes": len(said[one, other])}
            for one, other in SYSTEMS
            if len(said[one, other])
        },
        "agreement": agreement(people.votes, bootstrap),
        "consistency": consistency(people.votes),
        "attention": attention(people.votes),
        "judges": rows,
    }


def _numbered(values: np.ndarray) -> np.ndarray:
    """The same values as numbers from 0 on, none left out."""
    return np.unique(values, return_inverse=True)[1]
