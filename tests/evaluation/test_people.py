"""People as the judge: which votes count, and every number that is made of them, by hand."""

import json

import numpy as np
import pytest

from minirlhf.evaluation.people import LONGER, match, metrics
from minirlhf.evaluation.winrate import by_post, win_rates
from minirlhf.feedback.pairs import SYSTEMS, pair_of
from minirlhf.feedback.votes import Pair, Summary, Vote, Votes, digest
from minirlhf.sampling.summaries import Summaries
from minirlhf.statistics.bootstrap import Bootstrap

POSTS = 6
PROMPTS = [f"post {row}" for row in range(POSTS)]


def systems() -> dict[str, Summaries]:
    """The aligned policy's summaries are the longest, SFT's the shortest."""
    texts = {"ppo": "p p p", "reference": "r r", "sft": "s"}
    return {
        name: Summaries([f" {text} {row}" for row in range(POSTS)], np.ones(POSTS, bool), [[1]] * POSTS)
        for name, text in texts.items()
    }


def votes_of(said: dict[tuple[str, str], dict[str, str]], **options) -> Votes:
    """Votes by pair of systems and voter, a letter a post: 1 the first won, 0 lost, t a tie, s a skip, - nothing."""
    votes, found = Votes(), systems()
    for names, by in said.items():
        for voter, letters in by.items():
            for row, letter in enumerate(letters):
                one, other = ((name, found[name].texts[row].strip(), True) for name in names)
                pair = pair_of(PROMPTS[row], one, other)
                votes.pairs[pair.id] = pair
                left = row % 2  # 1: the pair's second summary stands on the left
                choice = {"1": ("left", "right")[left], "0": ("right", "left")[left], "t": "tie", "s": "skip"}.get(
                    letter
                )
                if choice:
                    key = digest(voter, pair.id)
                    votes.take(Vote(id=key, voter=voter, pair=pair.id, left=left, choice=choice,
                                    shown=pair.shown(left), **options))  # fmt: skip
    return votes


ALL = {("ppo", "sft"): {"anna": "11110t", "ben": "1101s-"}, ("ppo", "reference"): {"anna": "10----"},
       ("sft", "reference"): {"anna": "0-----"}}  # fmt: skip


def test_votes_find_the_summaries_that_they_are_about():
    people = match(votes_of(ALL), PROMPTS, systems())
    nan = np.nan
    np.testing.assert_array_equal(people.wins["ppo", "sft"], [[1, 1, 1, 1, 0, 0.5], [1, 1, 0, 1, nan, nan]])
    np.testing.assert_array_equal(by_post(people.wins["ppo", "sft"]), [1, 1, 0.5, 1, 0, 0.5])
    assert people.decide


def test_votes_on_other_summaries_and_on_chosen_pairs_do_not_count():
    other = systems() | {"ppo": Summaries([" new"] * POSTS, np.ones(POSTS, bool), [[1]] * POSTS)}
    assert match(votes_of({("ppo", "sft"): {"anna": "111111"}}), PROMPTS, other) is None
    assert match(votes_of(ALL, rule="closest"), PROMPTS, systems()) is None
    assert match(Votes(), PROMPTS, systems()) is None
    assert not match(votes_of({("ppo", "sft"): {"anna": "1"}}), PROMPTS, systems()).decide


def test_every_number_by_hand():
    people = match(votes_of(ALL), PROMPTS, systems())
    lengths = {"ppo": np.full(POSTS, 3.0), "reference": np.full(POSTS, 2.0), "sft": np.full(POSTS, 1.0)}
    reward = {names: np.ones(POSTS) for names in SYSTEMS}  # always the first
    found = metrics(people, {"training reward": reward}, lengths, {}, Bootstrap(0, 200))
    assert {key: found[key] for key in ("voters", "votes", "ties", "skips", "posts")} == {
        "voters": 2, "votes": 13, "ties": 1, "skips": 1, "posts": 6}  # fmt: skip
    assert found["win_rate"]["ppo_vs_sft"]["value"] == 0.75 and found["win_rate"]["ppo_vs_sft"]["votes"] == 10
    assert found["win_rate"]["sft_vs_reference"]["value"] == 0
    assert found["agreement"]["pairs"] == 4 and found["agreement"]["percent"]["value"] == 0.75
    assert found["judges"]["training reward"]["agreement"]["value"] == pytest.approx((7.5 + 1 + 0) / 13, abs=1e-6)
    # Longer is PPO's summary, and the author's against SFT's: won by 7.5, 1 and 1 of 13 votes.
    assert found["judges"][LONGER]["agreement"]["value"] == pytest.approx(9.5 / 13, abs=1e-6)
    assert found["judges"]["people"]["longer"]["value"] == pytest.approx(9.5 / 13, abs=1e-6)
    assert found["judges"]["training reward"]["longer"]["value"] == pytest.approx(12 / 13, abs=1e-6)
    # Left won, the sides being swapped on odd posts: 2 of anna's 5 and 1 of ben's 4 on SFT; 2 of 2; 0 of 1.
    assert found["judges"]["people"]["first_place"]["value"] == pytest.approx(5 / 12, abs=1e-6)
    json.dumps(found, allow_nan=False)


def test_a_known_answer_tells_of_its_voter_alone():
    votes, plain = votes_of(ALL), votes_of(ALL)
    check = Pair(prompt="known", summaries=(Summary(text="a"), Summary(text="b")), known=0)
    votes.pairs[check.id] = check
    for voter, choice in {"anna": "left", "ben": "right", "carl": "skip"}.items():
        votes.take(Vote(id=digest(voter), voter=voter, pair=check.id, left=0, choice=choice, shown=check.shown(0)))
    lengths = {name: np.ones(POSTS) for name in ("ppo", "reference", "sft")}
    found, without = (
        metrics(match(of, PROMPTS, systems()), {}, lengths, {}, Bootstrap(0, 50)) for of in (votes, plain)
    )
    attention = found.pop("attention")
    assert {voter: row["percent"]["value"] for voter, row in attention.items()} == {"anna": 1.0, "ben": 0.0}
    assert found | {"attention": {}} == without


def test_win_rates_of_voters_are_for_other_voters_too():
    posts = np.arange(40) % 2.0
    agreed, opposed = np.stack([posts, posts]), np.stack([np.ones(40), np.zeros(40)])
    difference = np.zeros(40)
    alike, apart = (win_rates(wins, difference, Bootstrap(0, 500))[0] for wins in (agreed, opposed))
    assert alike.value == apart.value == 0.5
    assert (apart.low, apart.high) == pytest.approx((0, 1))  # two voters who never agree say nothing of a third
    alone = win_rates(posts, difference, Bootstrap(0, 500))[0]
    assert alike.high - alike.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_vote_counts_where_others_did_not_vote():
    wins = np.array([[1.0, np.nan, 1.0], [np.nan, 0.0, 1.0]])
    plain, matched = win_rates(wins, np.array([1.0, -1.0, 0.0]), Bootstrap(0, 200))
    assert plain.value == 0.75 and plain.low < 0.75
    assert 0 < matched.value < 1
