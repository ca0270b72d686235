"""What votes say so far, in lines for a terminal."""

import numpy as np

from minirlhf.feedback.agreement import agreement, attention, consistency, position
from minirlhf.feedback.pairs import SYSTEMS
from minirlhf.feedback.votes import Vote, Votes
from minirlhf.statistics.bootstrap import Bootstrap, Estimate

NAMES = {"ppo": "the aligned policy", "sft": "SFT", "reference": "the author"}


def status(votes: Votes, bootstrap: Bootstrap) -> list[str]:
    """Votes by kind and voter, agreement; where systems were judged, win rates and what would halve their interval."""
    counted = votes.counted()
    voters = {vote.voter: 0 for vote in votes.cast.values()}
    for vote in counted:
        voters[vote.voter] += 1
    ties = sum(vote.choice == "tie" for vote in counted)
    skips = sum(vote.choice == "skip" for vote in votes.cast.values())
    lines = [f"{len(counted)} votes that count: {len(counted) - ties} decide, {ties} ties; beside them {skips} skips"]
    lines += [f"  {voter}: {count}" for voter, count in voters.items()]
    found = agreement(votes, bootstrap)
    for name in ("percent", "kappa", "alpha"):
        if name in found:
            lines.append(f"agreement between voters, {name}: {_say(found[name])} ({found['pairs']} pairs)")
    again = consistency(votes)
    lines.append(f"agreement with oneself: {_say(again['percent'])} ({again['pairs']} pairs)")
    for voter, found in attention(votes).items():
        lines.append(f"known answers, {voter}: {_say(found['percent'])} right ({found['pairs']} pairs)")
    lines.append(f"share of votes for the left side: {_say(position(votes))}")
    for names in SYSTEMS:
        won = votes_between(votes, counted, names)
        if won:
            estimate = win_rate(votes, won, bootstrap)
            lines.append(
                f"{NAMES[names[0]]} beats {NAMES[names[1]]}: {_say(estimate.as_json())} ({len(won)} votes; some "
                f"{3 * len(won)} more would halve the interval)"
            )
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(votes.refused.items()))
    return lines + ([f"lines that were left out: {refused}"] if refused else [])


def votes_between(votes: Votes, counted: list[Vote], names: tuple[str, str]) -> list[Vote]:
    """The votes on pairs of these two systems, drawn at random."""
    return [
        vote
        for vote in counted
        if vote.rule == "random" and tuple(side.system for side in votes.pairs[vote.pair].summaries) == names
    ]


def win_rate(votes: Votes, of: list[Vote], bootstrap: Bootstrap) -> Estimate:
    """How often the first summary won, with its interval over posts and voters."""
    _, posts = np.unique([votes.pairs[vote.pair].prompt for vote in of], return_inverse=True)
    _, voters = np.unique([vote.voter for vote in of], return_inverse=True)
    return bootstrap.crossed_mean(np.array([vote.first_won for vote in of]), posts, voters)


def _say(value: dict) -> str:
    if value["value"] is None:
        return f"not known: {value['why']}"
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
