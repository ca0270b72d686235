"""The study of early warning: when gold has turned, what a detector is told, and what is counted."""

import numpy as np
import pytest

from benchmarks import early_warning_text
from benchmarks.early_warning import RUNS, SERIES, all_runs, correlation, finish, is_lost, last_run, outcome, spreads
from benchmarks.early_warning_page import (
    PUBLIC,
    Detector,
    Run,
    choose,
    combine,
    fixed,
    halves,
    merit,
    of_signal,
    read,
    threshold_of,
    transform,
)
from benchmarks.runs import append, rows_of
from minirlhf.ppo.early_warning import KL
from minirlhf.report.alarms import FAR


def golds(*means):
    return {192 * number: mean for number, mean in enumerate(means)}


def test_gold_turns_where_it_ends_below_its_best():
    found = outcome(golds(3, 4, 3.9, 3.5, 3))
    assert (found["turned"], found["peak"], found["fell"], found["gold_best"]) == (True, 192, 576, 4)
    assert outcome(golds(3, 4, 3, 3.9, 3.2))["fell"] == 768  # the first fall was taken back
    assert outcome(golds(3, 2, 1))["peak"] == 0
    for healthy in ((3, 4, 4.1), (3, 4, 3.6), (3, 4, 3, 4)):
        found = outcome(golds(*healthy))
        assert (found["turned"], found["peak"], found["fell"]) == (False, None, None)
    assert last_run([True, False]) == 0


@pytest.mark.skipif(not RUNS.exists(), reason="no run is in yet")
def test_the_tables_agree():
    series: dict[tuple, dict] = {}
    for row in rows_of(SERIES):
        of = series.setdefault((row["setting"], row["seed"]), {})
        if row["held_out_gold"]:
            of[int(row["episodes"])] = float(row["held_out_gold"])
    rows = rows_of(RUNS)
    assert set(series) == {(row["setting"], row["seed"]) for row in rows} and len(series) == len(rows)
    for row in rows:
        found = outcome({0: float(row["gold_start"])} | series[row["setting"], row["seed"]])
        assert row["turned"] == str(found["turned"]) and row["fell"] == str(found["fell"] or "")


@pytest.mark.skipif(not RUNS.exists(), reason="no run is in yet")
def test_the_product_rings_where_the_study_chose():
    choosing = [run for run in read(RUNS, SERIES) if run.setting in halves()[0]]
    best = choose(choosing)[0]
    assert (best.name, best.threshold) == ("kl: level up, 1", pytest.approx(KL, abs=0.05))
    assert FAR == KL


def test_a_run_ends_where_gold_is_lost():
    assert is_lost(golds(3, 4, 2.9, 2.5, 2))
    for going_on in ((3,), (3, 4), (3, 4, 2.9, 2.5), (3, 4, 2.9, 3.1, 2), (3, 2.1, 2, 2.1)):
        assert not is_lost(golds(*going_on))


def test_the_study_has_200_runs_and_no_setting_on_both_sides():
    runs = all_runs()
    assert len(set(runs)) == len(runs) == 200 and all_runs() == runs
    choosing, reporting = halves()
    assert len(choosing) == len(reporting) == 25 and not choosing & reporting
    assert choosing | reporting == {setting.name for setting, _ in runs}


def test_a_run_that_was_killed_between_the_tables_leaves_no_signals_and_the_header_stays(tmp_path):
    file = tmp_path / "series.csv"
    append(file, ["setting", "seed", "kl"], [{"setting": name, "seed": 1, "kl": 0.5} for name in ("a", "b")])
    finish(file, {("b", "1")})
    assert [row["setting"] for row in rows_of(file)] == ["b"]
    finish(file, set())
    append(file, ["setting", "seed", "kl"], [{"setting": "c", "seed": 2, "kl": 0.25}])
    assert rows_of(file) == [{"setting": "c", "seed": "2", "kl": "0.25"}]


def test_transforms_by_hand():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 17, 27])
    level = [np.nan, np.nan, 2, 3, 4, 5, 6, 10, 17]
    expected = {
        "level": level,
        "change": np.array(level) - 2,
        "ratio": np.array(level) / 2,
        "speed": [np.nan] * 5 + [3, 3, 6, 12],
        "acceleration": [np.nan] * 8 + [9],
    }
    for how, scores in expected.items():
        np.testing.assert_allclose(transform(values, how, 3), scores, err_msg=how)
    assert np.isnan(transform(np.array([1.0]), "speed", 3)).all()
    assert transform(values, "change", 1).tolist() == [0, 1, 2, 3, 4, 5, 6, 16, 26]


def made(setting, turned, kl, fell=600.0):
    episodes = 64.0 * np.arange(1, len(kl) + 1)
    looks = {0.0: 3.0, 192.0: 4.0, 640.0: 2.5}
    return Run(
        setting, turned, 300.0 if turned else None, fell if turned else None, looks, episodes, {"kl": np.array(kl)}
    )


def test_a_detector_is_counted_by_hand():
    level = of_signal("kl", "level", 1)
    rises = made("a", True, [1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9])  # its level reaches 6 at the fifth update, 320
    late = made("b", True, [1] * 9 + [9, 9, 9])  # 704: after gold has fallen at 600
    calm, false = made("c", False, [1] * 12), made("d", False, [1] * 9 + [9] * 3)
    found = Detector("kl", level, 6.0).judge([rises, late, calm, false])
    assert (found["early"].value, found["found"].value, found["false"].value) == (0.5, 1.0, 0.5)
    assert found["lead"][0] == (280 - 104) / 2 and found["lead"][1:] == (-104, 280)
    assert found["lost"][0] == (0 + 1.5) / 2  # nothing by the look at 192, 1.5 by that at 640
    # No false alarm of two is allowed: just above what the calmest may reach.
    threshold = threshold_of(level, [calm, false])
    assert threshold > 9 and threshold == np.nextafter(9.0, np.inf)
    assert false.alarm(level(false), threshold) is None


def test_weights_for_noise_are_worth_nothing_on_runs_that_they_were_not_learnt_from():
    rng, runs, names = np.random.default_rng(0), [], [f"noise {at}" for at in range(40)]
    for at in range(60):
        turned, episodes = at % 3 == 0, 64.0 * np.arange(1, 31)
        signals = {name: np.full(30, rng.normal()) for name in names}
        of = (1000.0, 1500.0) if turned else (None, None)
        runs.append(Run(f"setting {at // 2}", turned, *of, {0.0: 3.0}, episodes, signals))
    merit_of_all, weighed = combine([of_signal(name, "level", 1, 1) for name in names], runs)
    own = Detector(weighed.name, weighed.score, threshold_of(weighed.score, runs))
    assert merit(own, runs)[0] > 0.7 and merit_of_all[0] < 0.3


def test_what_only_turned_runs_do_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(early_warning_text, "fixed", lambda: [Detector("far", of_signal("kl", "level", 1), 25.0)])
    rng = np.random.default_rng(0)
    runs = []
    for setting, seed in all_runs():
        turned = (len(setting.name) + seed) % 3 == 0
        kl = rng.normal(1, 0.1, 30) + (np.arange(30) * 0.5 if turned else 0)
        noise = rng.normal(size=30)
        episodes = 64.0 * np.arange(1, 31)
        of = (1000.0, 1500.0) if turned else (None, None)
        runs.append(Run(setting.name, turned, *of, {0.0: 3.0}, episodes, {"kl": kl, "noise": noise}))
    choosing, reporting = halves()
    detectors = choose([run for run in runs if run.setting in choosing])
    found = {row["name"]: row for row in (one.judge([r for r in runs if r.setting in reporting]) for one in detectors)}
    assert [name.split(":")[0] for name in found] == ["kl", "all of them, weighed", "noise"]  # the best first
    kl, both, noise = found.values()
    assert kl["early"].value == both["early"].value == 1 and kl["false"].value <= 0.15 and kl["lead"][0] > 500
    assert noise["early"].value < 0.5

    for count in (30, 200):
        early_warning_text.write(runs[:count], tmp_path / "page.md", tmp_path / "picture.png")
        page = (tmp_path / "page.md").read_text()
        assert f"{count} of the 200 runs" in page and ("Detectors are compared from" in page) == (count == 30)
    assert "chose `kl: " in page and "| far | 0%" in page


def test_public_rules_ring_where_they_say():
    calm = np.array([1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0])
    ringing = {
        "TRL: KL above 10 nats": [*calm, 10.5],
        "rlwatch: KL explodes": [*calm, 1.4],  # the eight before have a standard deviation of 0.07
        "rlwatch: entropy below 1": [*calm + 1, 0.9],
        "rlwatch: variance of rewards": [*calm, 1.8],  # 1.8 squared is 3.2 times
        "rlwatch: spread of advantages": [*calm, 3.1],
        "rlwatch: gradient norm": [*calm, 1.3],
        "Flight Recorder: KL accelerates": [*calm, 2.0],
        "Flight Recorder: entropy falls": [*calm, 0.6],
    }
    assert set(ringing) == set(PUBLIC)
    for name, values in ringing.items():
        _, score, threshold = PUBLIC[name]
        scores = score(np.array(values))
        assert scores[-1] >= threshold and not (scores[:-1] >= threshold).any(), name
    assert {detector.name for detector in fixed()} > set(PUBLIC)


def test_spreads_by_hand():
    import torch

    from minirlhf.ppo.trajectory import Targets, Trajectory

    zeros = torch.zeros(4, 2)
    trajectory = Trajectory(
        prompts=["a", "a", "b", "b"], responses=[""] * 4, prompt_ids=[[1]] * 4,
        response_ids=[[1], [1, 2], [1], [1, 2]], ended=torch.ones(4, dtype=torch.bool), logprobs=zeros,
        reference_logprobs=zeros, values=zeros, scores=torch.tensor([[1.0, 0], [0, 3], [2, 0], [0, 4]]),
    )  # fmt: skip
    kl = torch.tensor([[1.0, 0], [1, 2], [2, 0], [1, 3]])
    targets = Targets(kl=kl, rewards=zeros, advantages=zeros, returns=zeros, monte_carlo=torch.ones(4, 2))
    found = spreads(trajectory, targets)
    assert found["advantage_std"] == 0 and found["reward_std_of_prompt"] == 1
    assert found["reward_with_kl"] == pytest.approx(1)  # scores 1, 3, 2, 4 and KL 1, 3, 2, 4
    assert found["kl_std"] == pytest.approx(1.290994)
    assert found["reward_with_length"] == pytest.approx(2 / 5**0.5)
    assert correlation([1, 1], [1, 2]) == 0
