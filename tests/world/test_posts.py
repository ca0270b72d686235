import itertools
import random
import statistics

from minirlhf import world
from minirlhf.world.annotators import prefers_first
from minirlhf.world.grammar import SLOTS
from minirlhf.world.judge import judge
from minirlhf.world.posts import SHARES, share_of, stories
from minirlhf.world.pretrain import checked_summary


def test_the_world_is_a_function_of_its_seed():
    first, again, other = (list(world.posts(seed, "train", 5)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_larger_world_only_adds():
    assert list(world.posts(1, "test", 9))[:4] == list(world.posts(1, "test", 4))


def test_no_two_uses_share_a_record():
    """Whatever the seeds: a record's use follows from the record alone."""
    seen = {}
    for use, seed in itertools.product(SHARES, (0, 1)):
        for _, record, *_ in stories(seed, use, 300):
            assert seen.setdefault(tuple(record.values()), use) == use
            assert share_of(record) == use


def test_records_of_a_split_are_distinct():
    records = [tuple(row["record"].values()) for row in world.posts(3, "train", 2000)]
    assert len(set(records)) == 2000


def test_a_post_states_every_fact_and_asks_for_a_summary():
    for row in world.posts(5, "test", 200):
        body = row["prompt"].split("POST: ")[1]
        assert all(row["record"][slot] in body for slot in SLOTS)
        assert row["prompt"].startswith(f"SUBREDDIT: r/{row['subreddit']}\n\nTITLE: ")
        assert row["prompt"].endswith("\n\nTL;DR:")
        assert row["completion"].startswith(" ")


def test_authors_are_mediocre_but_write_the_language():
    judgements = [judge(row["completion"], row["record"]) for row in world.posts(1, "train", 2000)]
    assert 3.3 < statistics.mean(j.score for j in judgements) < 4.0
    assert sum(j.parts["unparsable"] for j in judgements) == 0
    assert {j.score for j in judgements} >= {6.0, 4.0, 2.0}
    assert statistics.mean(j.parts["wrong"] > 0 for j in judgements) > 0.15


def test_annotators_agree_with_gold_as_often_as_people_do():
    """73% to 77% of comparisons, as in Stiennon et al. 2020; ties in gold are no one's error."""
    agreed = []
    for row in world.comparisons(1, "train", 3000):
        chosen, rejected = (judge(row[side], row["record"]).score for side in ("chosen", "rejected"))
        if chosen != rejected:
            agreed.append(chosen > rejected)
    assert 0.73 < statistics.mean(agreed) < 0.77


def test_annotators_follow_bradley_and_terry():
    rng = random.Random(0)
    # sigmoid(1.6 / 1.6) = 0.731
    assert abs(statistics.mean(prefers_first(rng, 4.6, 3.0) for _ in range(20_000)) - 0.731) < 0.01


def test_the_fact_check_of_a_reply_is_right():
    for rng, record, _, _, distractions in stories(0, "pretraining", 200):
        summary, reply = checked_summary(rng, record, distractions)
        parts = judge(summary, record).parts
        assert reply.count(" right") == parts["covered"]
        assert reply.count(" wrong") == parts["wrong"]
