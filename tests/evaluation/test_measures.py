import numpy as np
import pytest

from minirlhf.evaluation.measures import ALWAYS, gains, means, measure, post_text, variety
from minirlhf.sampling.summaries import Summaries
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.world import judge
from minirlhf.world.grammar import SLOTS

PROMPT = "SUBREDDIT: r/tifu\n\nTITLE: the dog\n\nPOST: it ran away.\n\nTL;DR:"


def summaries(texts, ended=True, logprobs=None):
    ids = [[1] * (len(text.split()) + ended) for text in texts]
    return Summaries(texts, np.full(len(texts), ended), ids, logprobs)


def test_entropy_is_nats_a_token_whatever_the_lengths():
    # 6 nats over 3 tokens and 3 over 1: 9 over 4, not the mean of 2 and 3.
    drawn = Summaries(["a b", ""], np.ones(2, bool), [[1, 1, 1], [1]], np.array([-6.0, -3.0]))
    assert variety(drawn)["entropy"] == pytest.approx(9 / 4)
    assert "entropy" not in variety(summaries(["a"]))


def test_variety_of_a_set():
    found = variety(summaries(["a b", "a b", "a c"]))
    assert (found["distinct1"], found["distinct2"]) == (3 / 6, 2 / 3) and found["duplicates"] == pytest.approx(1 / 3)


def test_what_is_measured_on_a_summary():
    found = measure([PROMPT] * 2, ["the dog ran away", "x"], summaries([" the dog ran away", " hm"]), [0.5, -1.0])
    assert tuple(found) == ALWAYS
    assert found["reward"].tolist() == [0.5, -1.0] and found["length"].tolist() == [5.0, 2.0]
    assert found["rouge1"].tolist() == [1.0, 0.0] and found["ended"].tolist() == [1.0, 1.0]
    # "the dog" stands in the title, "ran away" in the post: all copied, in runs of two.
    assert (found["coverage"].tolist(), found["density"].tolist()) == ([1.0, 0.0], [2.0, 0.0])
    assert found["title"].tolist() == [0.0, 0.0]
    copied = measure([PROMPT] * 2, ["x"] * 2, summaries([" The dog!", " the dog ran"]), [0.0] * 2)["title"]
    assert copied.tolist() == [1.0, 0.0]
    assert post_text(PROMPT) == "the dog\nit ran away." and post_text("no such format") == "no such format"


def test_the_gold_judges_parts_and_facts_are_measures(world_posts):
    posts = world_posts[:3]
    told = summaries([post["completion"] for post in posts])
    records = [post["record"] for post in posts]
    prompts, references = ([post[name] for post in posts] for name in ("prompt", "completion"))
    found = measure(prompts, references, told, [0.0] * 3, judge, records)
    judged = [judge(text, record, True) for text, record in zip(told.texts, records, strict=True)]
    assert found["gold"].tolist() == [one.score for one in judged]
    assert found["gold_covered"].tolist() == [one.parts["covered"] for one in judged]
    covered = sum(found[f"fact_{slot}_covered"] for slot in SLOTS)
    assert covered.tolist() == found["gold_covered"].tolist()


def test_a_gain_has_the_interval_of_paired_data():
    before = {"gold": np.random.default_rng(0).normal(0.0, 5.0, 100)}
    after = {"gold": before["gold"] + 1.0}  # on every post one more: no doubt about the gain, much about the means
    gain = gains(after, before, Bootstrap())["gold"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((1.0, 1.0, 1.0))
    mean = means(after, Bootstrap())["gold"]
    assert mean.value == after["gold"].mean() and mean.high - mean.low > 1.5
