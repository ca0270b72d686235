import json
import sys
from functools import cache

import numpy as np
import pytest

from minirlhf.evaluation import run as stage
from minirlhf.evaluation.run import evaluate
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import numbered_folders


def letters(prompts, responses):
    """A reward with a known answer: how many letters a summary has."""
    return [float(sum(c.isalpha() for c in response)) for response in responses]


@pytest.fixture(scope="module")
def findings(tiny_models, world_posts, params):
    """Run the evaluation; what it found is kept for equal arguments."""

    @cache
    def run(has_records=True, ppo="ppo", snapshots="nothing", judge=None, kind="function", rounds=()):
        fields = ("prompt", "completion") + ("subreddit", "record") * has_records
        posts = [{field: post[field] for field in fields} for post in world_posts]
        settings = params.model_dump(mode="json")
        if judge:
            settings["evaluate"]["judge"] = {"kind": kind, "name": judge}
        chosen = type(params).model_validate_json(json.dumps(settings))
        sft, ppo = str(tiny_models / "sft"), str(tiny_models / ppo)
        earlier = {number: tiny_models / name for number, name in enumerate(rounds)}
        return evaluate(posts, posts, chosen, sft, ppo, "unused", tiny_models / snapshots, 640, rounds=earlier)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "load_reward", lambda *args: letters)
        yield run


def test_metrics_have_the_promised_numbers(findings, world_posts):
    metrics = findings().metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    for system in ("reference", "sft", "ppo"):
        assert {"reward", "rouge1", "rouge2", "rougeL", "length", "gold"} <= metrics[system].keys()
    assert metrics["reference"]["rouge1"] == 1.0
    authors = np.mean(letters(None, [post["completion"] for post in world_posts]))
    assert metrics["reference"]["reward"] == pytest.approx(authors, rel=1e-5)
    assert metrics["win_rate"]["judge"] == "gold"
    for pair in ("ppo_vs_sft", "ppo_vs_reference"):
        rate = metrics["win_rate"][pair]
        assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
    assert metrics["kl"] > 0 and metrics["posts"] == 24


def test_every_number_of_a_summary_is_in_the_results(findings, world_posts):
    found = findings()
    rewards = [row["ppo"]["reward"] for row in found.summaries]
    assert rewards == letters(None, [row["ppo"]["summary"] for row in found.summaries])
    assert np.mean(rewards) == pytest.approx(found.metrics["ppo"]["reward"], rel=1e-5)
    wins = [np.sign(row["ppo_best"]["gold"] - row["sft_best"]["gold"]) / 2 + 0.5 for row in found.summaries]
    assert np.mean(wins) == pytest.approx(found.metrics["win_rate"]["ppo_vs_sft"]["value"], abs=1e-6)
    assert [row["post"] for row in found.summaries] == [post["prompt"] for post in world_posts]


def test_equal_policies_tie_everywhere(findings):
    metrics = findings(ppo="sft").metrics
    assert metrics["kl"] == pytest.approx(0, abs=1e-4)
    assert metrics["win_rate"]["ppo_vs_sft"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert metrics["sft"] == metrics["ppo"]


def test_the_authors_summaries_are_judged_once(findings, world_posts, tmp_path):
    file = tmp_path / "counting.py"
    file.write_text("asked = []\ndef score(prompts, responses):\n    asked.extend(responses)\n"
                    "    return [float(len(asked) > 0) for _ in responses]\n")  # fmt: skip
    findings(has_records=False, judge=f"{file}:score")
    # Equal ones of a set once. On the 6 chosen posts each policy at two temperatures, and best of 4; on the others the
    # authors', each policy at both, best of 4 at its best temperature and for the frontier, and two points of it.
    assert 24 * 3 < len(sys.modules["counting"].asked) <= 6 * 4 + 6 * 4 + 24 * 5 + 8 * 4 * 2 + 8 * 2
    assert sys.modules["counting"].asked.count(world_posts[0]["completion"]) == 1


def test_the_same_run_gives_the_same_results(findings):
    once = findings()
    findings.cache_clear()
    assert findings() == once


def test_without_records_the_training_reward_decides_and_is_called_so(findings):
    found = findings(has_records=False)
    assert found.metrics["win_rate"]["judge"] == "training reward"
    assert "gold" not in found.metrics["ppo"] and found.plots["gold_parts"] == []
    assert {row["judge"] for row in found.plots["win_rates"]} == {"training reward"}
    assert "training reward" in found.page


def test_a_judge_of_ones_own_decides_on_real_text(findings, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def shorter(prompts, responses):\n    return [-float(len(r)) for r in responses]\n")
    found = findings(has_records=False, judge=f"{file}:shorter")
    assert found.metrics["win_rate"]["judge"] == f"{file}:shorter"
    assert found.metrics["ppo"]["judge"] < 0
    assert {row["judge"] for row in found.plots["win_rates"]} == {f"{file}:shorter", "training reward"}


@pytest.fixture(scope="module")
def comparing(tmp_path_factory):
    """A judge of one's own that compares: the longer summary wins; it leaves none out."""
    file = tmp_path_factory.mktemp("judge") / "mine.py"
    file.write_text(
        "def longer(prompts, first, second):\n"
        "    return [1 if len(a) > len(b) else 0 if len(a) < len(b) else 0.5 for a, b in zip(first, second)]\n"
    )
    return f"{file}:longer"


def test_a_judge_that_compares_decides_on_real_text(findings, comparing):
    found = findings(has_records=False, judge=comparing, kind="pairwise_function")
    texts = [
        [len(row[system]["summary"]) for row in found.summaries] for system in ("ppo_best", "sft_best", "reference")
    ]
    ppo, sft, reference = map(np.array, texts)
    rates = found.metrics["win_rate"]
    assert rates["judge"] == comparing and rates["posts"] == 24 and rates["pairs"] == {"judged": 72}
    for pair, one, other in (("ppo_vs_sft", ppo, sft), ("sft_vs_reference", sft, reference)):
        assert rates[pair]["value"] == pytest.approx(np.mean(np.sign(one - other) / 2 + 0.5), abs=1e-6)
    assert rates["position_bias"]["flipped"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert rates["position_bias"]["first_place"]["value"] == 0.5
    assert "judge" not in found.metrics["ppo"]  # it gives no scores
    rows = found.plots["win_rates"]
    assert [row["judge"] for row in rows[::6]] == [comparing, *["training reward"] * 3]
    assert {row["decoding"] for row in rows if row["judge"] == comparing} == {"best"}
    assert f"by this judge: {comparing}" in found.page and "| training reward | tokens |" in found.page


def test_examples_of_a_judge_that_compares_are_its_wins_the_largest_by_reward_first(findings, comparing):
    rows = findings(has_records=False, judge=comparing, kind="pairwise_function").summaries
    assert {row["gain"] for row in rows} <= {1.0, 0.0, -1.0}
    for kind, sign in (("gain", 1), ("loss", -1)):
        won = [row for row in rows if row["gain"] == sign and row["shown"] != "sample"]
        assert [row for row in won if row["shown"] == kind] == [row for row in rows if row["shown"] == kind]
        won.sort(key=lambda row: sign * (row["sft_best"]["reward"] - row["ppo_best"]["reward"]))
        assert [row["shown"] for row in won] == [kind] * min(10, len(won)) + [None] * (len(won) - 10)


def test_gold_decides_before_a_judge_that_compares_which_stands_beside_it(findings, comparing):
    found, alone = findings(judge=comparing, kind="pairwise_function"), findings()
    assert found.metrics == alone.metrics and found.summaries == alone.summaries
    judges = list(dict.fromkeys(row["judge"] for row in found.plots["win_rates"]))
    assert judges == ["gold", comparing, "training reward"]


def test_the_frontier_has_no_judges_score_where_no_judge_scores(findings, comparing):
    for of in ({"judge": comparing, "kind": "pairwise_function"}, {}):
        rows = findings(has_records=False, **of).plots["frontier"]
        assert {row["gold"] for row in rows} == {row["gold_low"] for row in rows} == {None}
        assert None not in [row["proxy"] for row in rows]


def test_frontier_goes_from_sft_over_snapshots_to_ppo(findings, tiny_models):
    (tiny_models / "kept").mkdir()
    for episodes in (320, 640, 960):  # from the last delivered one on, no longer on the way to it
        (tiny_models / "kept" / f"episodes-{episodes:07d}").symlink_to(tiny_models / "sft")
    rows = findings(snapshots="kept").plots["frontier"]
    best = [row for row in rows if row["method"] == "best-of-n"]
    path = [row for row in rows if row["method"] == "ppo"]
    assert [row["point"] for row in best] == [1, 2, 4]
    assert [row["proxy"] for row in best] == sorted(row["proxy"] for row in best)
    assert [row["point"] for row in path] == [0, 320, 640]
    assert path[0]["kl"] == 0 and path[1]["kl"] == pytest.approx(0, abs=1e-3) and path[2]["kl"] > 0
    assert path[0]["proxy"] == path[1]["proxy"]  # the snapshot is the SFT policy


def test_policies_of_earlier_rounds_stand_beside_the_last(findings):
    without, found = findings(), findings(rounds=("sft", "ppo"))
    assert without.metrics == {key: value for key, value in found.metrics.items() if key != "rounds"}
    first, second = found.metrics["rounds"]["0"], found.metrics["rounds"]["1"]
    intervals = found.metrics["intervals"]
    assert first == {name: intervals["sft"][name] for name in ("reward", "gold")} | {"kl": first["kl"]}
    assert first["kl"]["value"] == pytest.approx(0, abs=1e-3)
    assert second == {name: intervals["ppo"][name] for name in ("reward", "gold")} | {"kl": intervals["kl"]}
    assert found.headline["rounds"]["1"] == {"gold": second["gold"]["value"], "kl": found.metrics["kl"]}
    assert "rounds" not in without.headline
    points = [row for row in found.plots["frontier"] if row["method"] == "round"]
    assert [row["point"] for row in points] == [0, 1]
    assert without.plots["frontier"] == [row for row in found.plots["frontier"] if row["method"] != "round"]


def test_examples_show_a_sample_and_the_extremes(findings):
    found = findings()
    shown = [row["shown"] for row in found.summaries if row["shown"]]
    assert shown.count("sample") == 20
    assert found.page.count("| author |") == len(shown)


def test_models_that_are_missing_are_named(findings):
    with pytest.raises(UserError, match="nowhere"):
        findings(ppo="nowhere")


def test_numbered_folders_are_found_by_their_number(tmp_path):
    for name in ("episodes-10", "episodes-9", "other"):
        (tmp_path / name).mkdir()
    assert list(sorted(numbered_folders(tmp_path))) == [9, 10]
    assert numbered_folders(tmp_path / "none") == {}
