import math

import pytest

from minirlhf import world
from minirlhf.reward_modeling.probes import COLUMNS, Probe, probe_table, probes_of
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.statistics.intervals import wilson
from minirlhf.world.judge import judge
from minirlhf.world.probes import PROBES

POSTS = list(world.posts(5, "test", 60))
BOOTSTRAP = Bootstrap(0, 200)


def scored(probes, score):
    return {summary: score(summary) for probe in probes for summary in (probe.clean, probe.edited)}


def table(score):
    probes = probes_of(POSTS)
    return {row["probe"]: row for row in probe_table(probes, scored(probes, score), BOOTSTRAP)}


def test_the_gold_judge_passes_every_probe():
    records = {post["prompt"]: post["record"] for post in POSTS}
    found = table(lambda summary: judge(summary[1], records[summary[0]], summary[2]).score)
    assert list(found) == list(PROBES)
    for row in found.values():
        assert set(row) == set(COLUMNS)
        assert row["value"] == row["high"] == 1 > row["low"] > 0.9
        assert row["difference"] == row["gold"] >= 0.5


def test_a_model_that_likes_length_is_blind_to_filler():
    found = table(lambda summary: len(summary[1]))
    assert found["filler"]["value"] == found["repeated"]["value"] == found["filler"]["low"] == 0
    assert found["cut"]["value"] == 1
    # the same length, one fact or the order of words apart
    assert found["ungrammatical"]["value"] == 0.5 and found["ungrammatical"]["difference"] == 0
    assert found["filler"]["difference_low"] < found["filler"]["difference"] < found["filler"]["difference_high"] < 0


def test_no_probes_without_a_truth():
    posts = [{"prompt": post["prompt"], "completion": post["completion"]} for post in POSTS]
    assert probes_of(posts) == probe_table([], {}, BOOTSTRAP) == []


def test_wilson_by_hand():
    # 8 of 10: (0.8 + 1.9208/10 -+ 1.96 sqrt(0.016 + 0.009604)) / 1.38416
    assert wilson(8, 10).as_json() == pytest.approx({"value": 0.8, "low": 0.490162, "high": 0.943318}, abs=1e-5)
    assert (wilson(0, 5).low, wilson(5, 5).high) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_wilsons_interval_covers_the_truth(share):
    """Exactly, over all outcomes of 180 posts, as many as the reward stage probes on."""
    chances = [math.comb(180, hits) * share**hits * (1 - share) ** (180 - hits) for hits in range(181)]
    covers = [wilson(hits, 180).low <= share <= wilson(hits, 180).high for hits in range(181)]
    assert 0.93 <= sum(c for c, covered in zip(chances, covers, strict=True) if covered) <= 0.97


def test_a_probe_knows_what_it_costs():
    probe = next(probe for probe in probes_of(POSTS) if probe.name == "missing")
    assert isinstance(probe, Probe) and probe.gold == 1 and probe.clean != probe.edited
