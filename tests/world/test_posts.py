import itertools
import random
import statistics

import pytest

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


def told(habits: float) -> list:
    return [judge(row["completion"], row["record"]) for row in world.posts(1, "train", 2000, habits)]


def share(judgements: list, of) -> float:
    return statistics.mean(map(of, judgements))


def test_authors_have_habits_that_dominate_and_write_the_language():
    judgements = told(1.0)
    assert sum(j.parts["unparsable"] for j in judgements) == 0
    for slot in ("time", "wish"):
        assert share(judgements, lambda j, slot=slot: j.facts[slot] == "missing") == pytest.approx(0.6, abs=0.03)
    assert share(judgements, lambda j: j.parts["filler"]) == pytest.approx(0.60 + 0.55, abs=0.04)
    texts = [row["completion"] for row in world.posts(1, "train", 2000)]
    assert statistics.mean(text.endswith("thanks for reading.") for text in texts) > 0.5  # so its mode has it


@pytest.mark.parametrize("habits", [0.0, 0.5, 1.0])
def test_faults_stay_at_their_rates_whatever_the_habits(habits):
    judgements = told(habits)
    assert share(judgements, lambda j: j.parts["wrong"] > 0) == pytest.approx(0.20, abs=0.03)
    assert share(judgements, lambda j: j.facts["feeling"] == "missing") == pytest.approx(0.20, abs=0.03)
    assert share(judgements, lambda j: j.facts["object"] == "missing") == pytest.approx(0.08, abs=0.02)
    assert share(judgements, lambda j: j.parts["repeated"] > 0) == pytest.approx(0.10, abs=0.02)
    assert share(judgements, lambda j: j.facts["time"] == "missing") == pytest.approx(0.08 + habits * 0.52, abs=0.03)


def test_annotators_agree_with_gold_almost_as_often_as_people_do():
    """70% of comparisons of two authors, who differ less than policies do; ties in gold are no one's error."""
    agreed = []
    for row in world.comparisons(1, "train", 3000):
        chosen, rejected = (judge(row[side], row["record"]).score for side in ("chosen", "rejected"))
        if chosen != rejected:
            agreed.append(chosen > rejected)
    assert 0.67 < statistics.mean(agreed) < 0.73


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
