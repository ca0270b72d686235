"""Every probe is worse than the clean summary by the gold judge, and by exactly what it is named for."""

import re
from collections import Counter

import pytest

from minirlhf import world
from minirlhf.world.judge import BEST_SCORE, judge, read_clause
from minirlhf.world.probes import CLEAN, PROBES, probe_summaries

POSTS = list(world.posts(11, "test", 600))
# probe -> the parts of the judgement that differ from the clean summary's, and by how much where it is always the same
CHANGES = {
    "wrong": {"covered": -1, "wrong": 1},
    "misread": {"covered": -1, "wrong": 1},
    "missing": {"covered": -1},
    "filler": {"filler": 1},
    "repeated": {"repeated": None},
    "ungrammatical": {"covered": None, "unparsable": 1},
    "cut": {"covered": None, "unparsable": None, "unended": 1},
}


def judged(post):
    summaries = probe_summaries(post["prompt"], post["record"])
    return {name: judge(text, post["record"], ended) for name, (text, ended) in summaries.items()}


JUDGED = [judged(post) for post in POSTS]


def test_the_clean_summary_is_the_best_there_is():
    assert all(found[CLEAN].score == BEST_SCORE for found in JUDGED)


@pytest.mark.parametrize("name", PROBES)
def test_gold_puts_the_clean_summary_above_each_edit(name):
    found = [judgements for judgements in JUDGED if name in judgements]
    assert len(found) > 0.95 * len(JUDGED)
    for judgements in found:
        clean, edited = judgements[CLEAN], judgements[name]
        assert edited.score <= clean.score - 0.5
        changed = {part: edited.parts[part] - n for part, n in clean.parts.items() if edited.parts[part] != n}
        assert changed.keys() <= CHANGES[name].keys()
        for part, amount in CHANGES[name].items():
            assert amount is None or changed[part] == amount


def test_every_slot_has_its_wrong_and_missing_facts():
    for name, status in (("wrong", "wrong"), ("misread", "wrong"), ("missing", "missing")):
        slots = Counter(slot for j in JUDGED if name in j for slot, found in j[name].facts.items() if found == status)
        assert len(slots) == 6 and min(slots.values()) > 20


def stated(summary):
    """Every value that a summary states."""
    clauses = summary.strip().removesuffix(".").split(". ")
    return {value for clause in clauses for value in (read_clause(clause) or {}).values()}


def test_what_is_misread_stands_in_the_post_and_what_is_wrong_does_not():
    for post in POSTS:
        summaries = probe_summaries(post["prompt"], post["record"])
        for name, named in (("wrong", False), ("misread", True)):
            if name in summaries:
                (value,) = stated(summaries[name][0]) - set(post["record"].values())
                assert bool(re.search(rf"\b{value}\b", post["prompt"])) == named


def test_a_post_without_a_second_value_has_nothing_to_misread():
    summaries = probe_summaries("TL;DR:", POSTS[0]["record"])
    assert set(PROBES) - set(summaries) == {"misread"}


def test_probes_follow_from_the_post_and_differ_between_posts():
    one, again = (probe_summaries(POSTS[0]["prompt"], POSTS[0]["record"]) for _ in range(2))
    assert one == again
    shuffled = {probe_summaries(p["prompt"], POSTS[0]["record"])["ungrammatical"] for p in POSTS[:20]}
    assert len(shuffled) > 10
