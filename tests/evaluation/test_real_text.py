"""What a reward and a judge of the runs on Reddit posts learn beside comparisons."""

import numpy as np
import pytest

from benchmarks import judges, real_text_agreement, real_text_judges
from benchmarks.real_text import EACH, STRENGTHS, mismatched, shuffled, steady_head, unfit


def test_another_posts_summary_is_rejected():
    compared = [
        {"prompt": f"post {post}", "chosen": f" of {post}, {at}", "rejected": " bad"} for post in "abc" for at in (1, 2)
    ]
    posts = [{"prompt": f"post {post}", "completion": f" of {post}"} for post in "xyz"]
    rows = mismatched(compared, posts, each=3)
    assert [row["prompt"] for row in rows] == [f"post {post}" for post in "aaabbbcccxyz"]
    for row in rows:
        post = row["prompt"][-1]
        assert row["chosen"].startswith(f" of {post}") and not row["rejected"].startswith(f" of {post}")
        assert row["rejected"] != " bad"
    assert rows == mismatched(compared, posts, each=3)


def test_whoever_learns_from_unfit_summaries_sees_both_kinds():
    compared = [{"prompt": f"post {post}", "chosen": f" one two {post}", "rejected": " bad"} for post in "abc"]
    posts = [{"prompt": f"post {post}", "completion": f" three four {post}"} for post in "xyz"]
    rows = unfit(compared, posts)
    half = len(rows) // 2
    assert rows[:half] == mismatched(compared, posts, EACH)
    assert rows[half:] == shuffled(rows[:half])


@pytest.mark.parametrize("told", [False, True], ids=["chance", "a difference of two features"])
def test_a_head_is_regularized_as_strongly_as_it_may_be(told):
    rng = np.random.default_rng(0)
    rows = [{"prompt": f"post {at}", "chosen": " good", "rejected": " bad"} for at in range(400)]
    known = {}
    for row in rows:
        for text, side in ((" good", 1.0), (" bad", -1.0)):
            noise = rng.normal(size=2)
            # The mean difference, which the strongest regularization leaves, is nearly all common noise.
            known[row["prompt"], text, True] = np.array(
                [noise[0] + told * 0.5 * side, noise[0] * told + 1e-3 * noise[1]]
            )
    strengths = [
        strength for strength in STRENGTHS if np.allclose(steady_head(rows, known), judges.learn(rows, known, strength))
    ]
    assert len(strengths) == 1 and (strengths[0] > STRENGTHS[0]) == told


def test_shuffled_words_are_rejected():
    rows = [
        {"prompt": "post", "chosen": f" {' '.join(map(str, range(count)))}", "rejected": " bad"} for count in (9, 1)
    ]
    found = shuffled(rows)
    assert [row | {"rejected": " bad"} for row in found] == rows
    assert sorted(found[0]["rejected"].split()) == sorted(found[0]["chosen"].split())
    assert found[0]["rejected"] != found[0]["chosen"] and found == shuffled(rows)


def test_a_verdict_is_the_share_of_posts_won_over_runs():
    runs = [
        [
            {"post": post, "ppo_greedy": {"summary": f" ours {run}"}, "sft_greedy": {"summary": " before"}}
            for post in "abcd"
        ]
        for run in (1, 2)
    ]
    scores = {(post, " before", True): 0.0 for post in "abcd"}
    scores |= {(post, " ours 1", True): 1.0 for post in "abcd"}  # wins all
    scores |= {(post, " ours 2", True): score for post, score in zip("abcd", (1.0, 0.0, -1.0, -1.0), strict=True)}
    assert real_text_judges.verdict(runs, scores).startswith("69% (")  # (4 + 1 + 1 / 2) of 8


def test_scores_go_together_within_posts_whatever_lies_between():
    samples = real_text_agreement.SAMPLES
    reward, post = np.tile(np.arange(samples), 3), np.repeat([0, 100, -50], samples)
    lines = real_text_agreement.together({"reward": reward, "judge": post - reward})
    assert [line[-2:] for line in lines] == [["1.00", "-1.00"], ["-1.00", "1.00"]]
    assert lines[0][3] == "0%" and lines[1][3] == "100%"
