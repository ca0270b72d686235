"""The comparison, on two folders with differences made by hand; `tests/test_experiments.py` runs the whole command."""

import json

import pytest

from minirlhf.commands.reproduce import (
    compare_metrics,
    different_files,
    different_outs,
    fingerprint,
    flat_metrics,
    verdict,
)
from minirlhf.runtime.errors import UserError

HERE = {"processor": "A", "threads": "2"}


def results(folder, gold=4.7, posts=398, model="m1"):
    (folder / "results" / "details").mkdir(parents=True)
    (folder / "plots" / "images").mkdir(parents=True)
    evaluate = {"ppo": {"gold": gold}, "posts": posts, "win_rate": {"judge": "gold", "ppo_vs_sft": {"value": 0.7}}}
    (folder / "results" / "details" / "evaluate.json").write_text(json.dumps(evaluate))
    (folder / "plots" / "ppo.csv").write_text("update\n1\n")
    lock = {"stages": {"ppo": {"cmd": "c", "outs": [{"path": "models/ppo", "md5": model}]}}}
    (folder / "dvc.lock").write_text(json.dumps(lock))
    return folder


@pytest.fixture
def committed(tmp_path):
    return results(tmp_path / "committed")


def judge(committed, made, here=HERE, noted=HERE):
    return verdict(different_files(committed, made), committed, made, here, noted, made)


def test_the_same_bytes(committed, tmp_path):
    made = results(tmp_path / "made")
    assert "the same bytes as committed, on the kind of machine that made them" in judge(committed, made)
    assert "another machine than machine.json notes" in judge(committed, made, here={**HERE, "processor": "B"})
    assert judge(committed, made, noted=None).endswith("on this machine")


def test_on_the_same_machine_one_byte_is_a_failure(committed, tmp_path):
    made = results(tmp_path / "made", model="m2")
    with pytest.raises(UserError, match=r"not reproduced, on the kind .* dvc.lock differ \(outputs: models/ppo\)"):
        judge(committed, made)
    made = results(tmp_path / "other")
    (made / "plots" / "ppo.csv").unlink()
    assert different_files(committed, made) == ["plots/ppo.csv"]


def test_elsewhere_metrics_may_differ_within_their_tolerance(committed, tmp_path):
    made = results(tmp_path / "made", gold=4.7 - 0.74, model="m2")
    said = judge(committed, made, here={**HERE, "processor": "B"})
    assert said.startswith("reproduced within tolerances") and said.endswith("all 3 metrics are close")
    assert "processor: A, here B" in said
    assert "no machine.json says" in judge(committed, made, noted=None)
    far = results(tmp_path / "far", gold=3.94)
    with pytest.raises(UserError, match=r"evaluate.ppo.gold 4.7 and 3.94 \(may differ by 0.75\)"):
        judge(committed, far, here={**HERE, "processor": "B"})


def test_counts_and_missing_metrics_must_agree(committed, tmp_path):
    made = results(tmp_path / "made", posts=397)
    assert compare_metrics(committed / "results/details", made / "results/details") == (
        3,
        ["evaluate.posts 398 and 397 (may differ by 0)"],
    )
    (made / "results" / "details" / "evaluate.json").write_text("{}")
    assert len(compare_metrics(committed / "results/details", made / "results/details")[1]) == 3
    with pytest.raises(UserError, match="of 0 metrics"):  # nothing compared is nothing shown
        (committed / "results" / "details" / "evaluate.json").write_text("{}")
        (made / "results" / "details" / "evaluate.json").write_text("{ }")
        judge(committed, made, noted=None)


def test_outputs_are_compared_by_their_hashes(committed, tmp_path):
    assert different_outs(committed / "dvc.lock", results(tmp_path / "made").joinpath("dvc.lock")) == []
    assert different_outs(committed / "dvc.lock", tmp_path / "missing") == ["models/ppo"]
    assert flat_metrics(committed / "results/details") == {
        "evaluate.ppo.gold": 4.7,
        "evaluate.posts": 398,
        "evaluate.win_rate.ppo_vs_sft.value": 0.7,
    }


def test_the_fingerprint_names_what_last_digits_depend_on(settings):
    from minirlhf.settings.params import parse_params

    found = fingerprint(parse_params(json.dumps(settings), "params.yaml"))
    assert found["threads"] == "1" and found["device"] == "cpu" and found["processor"]
    assert {"python", "torch", "transformers", "numpy"} <= found.keys()
    assert all(isinstance(value, str) for value in found.values())
