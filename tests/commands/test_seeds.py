"""Which runs count, on a made-up repository with experiments; `tests/test_experiments.py` runs real ones."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from minirlhf.commands import cli, seeds
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv

CODE = "minirlhf/training"


def git(*arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def metrics(gold):
    system = {"reward": 0.5, "rougeL": 0.4, "length": 20.0}
    rates = {name: {"value": 0.7} for name in ("ppo_vs_sft", "ppo_vs_reference")}
    return {"sft": {**system, "gold": 3.0}, "ppo": {**system, "gold": gold}, "kl": 2.0, "win_rate": rates}


def write_code(folder: Path, text: str) -> None:
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "sft.pyc").write_text(text)  # is none of it
    (folder / "sft.py").write_text(text)


def code_hash(text: str) -> str:
    """As DVC makes it of a folder with one file."""
    listed = [{"md5": hashlib.md5(text.encode()).hexdigest(), "relpath": "sft.py"}]
    return f"{hashlib.md5(json.dumps(listed).encode()).hexdigest()}.dir"


@pytest.fixture
def repository(tmp_path, monkeypatch, settings):
    """A committed workspace of seed 1, and a function that adds an experiment."""
    monkeypatch.chdir(tmp_path)
    write_code(tmp_path / CODE, "code\n")
    (tmp_path / "results" / "details").mkdir(parents=True)
    (tmp_path / "metrics").mkdir()
    git("init", "-q")

    def write(seed=1, ppo_seed=None, kl_coef=None, code="code\n", data="d", gold=4.0, stale=False):
        chosen = json.loads(json.dumps(settings)) | {"seed": seed, "ppo_seed": ppo_seed}
        if kl_coef is not None:
            chosen["ppo"]["kl_coef"] = kl_coef
        (tmp_path / "params.yaml").write_text(json.dumps(chosen))
        text = json.dumps(metrics(gold))
        (tmp_path / "results" / seeds.DETAILS).write_text(text)
        digest = hashlib.md5(text.encode()).hexdigest()
        note, sft = {"path": "data/sources/posts.json", "md5": data}, {"path": "models/sft", "md5": f"sft-{seed}.dir"}
        stages = {
            "source": {"cmd": "s", "outs": [note]},
            "sft": {
                "cmd": "s",
                "deps": [note, {"path": CODE, "md5": code_hash(code)}],
                "params": {"params.yaml": {"seed": seed, "sft": chosen["sft"]}},
                "outs": [sft],
            },
            "ppo": {
                "cmd": "s",
                "deps": [{"path": "models/sft", "md5": "other.dir"} if stale else sft],
                "params": {"params.yaml": {"seed": seed, "ppo_seed": ppo_seed, "ppo": chosen["ppo"]}},
            },
            "evaluate": {"cmd": "s", "outs": [{"path": seeds.DETAILS, "md5": digest}]},
        }
        (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))

    def experiment(name, **changes):
        write(**changes)
        git("add", "-A")
        git("commit", "-qm", name)
        git("update-ref", f"refs/exps/ab/{'c' * 38}/{name}", "HEAD")
        git("reset", "-q", "--hard", "HEAD~1")

    write()
    git("add", "-A")
    git("commit", "-qm", "start")
    return experiment


def test_runs_that_differ_in_the_seed_alone_count(repository, capsys, monkeypatch):
    called = []
    monkeypatch.setattr(seeds, "dvc", lambda *command, root: called.append(command) or True)
    repository("two", seed=2, gold=5.0)
    repository("five", seed=5, gold=6.0)
    cli.command(["seeds", "--collect"])
    rows = read_csv("metrics/seeds.csv")
    assert [(row["seed"], row["ppo_score"]) for row in rows] == [(1, 4.0), (2, 5.0), (5, 6.0)]
    printed = capsys.readouterr().out
    assert "| mean |" in printed and "5.00 (2.52 to 7.48)" in printed and "3 seeds" in printed
    assert called == [("repro", "--quiet", "--single-item", "report")]


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"kl_coef": 0.4}, "ppo.kl_coef is 0.4, here 0.05"),
        ({"code": "other\n"}, "minirlhf/training is not the same here"),
        ({"data": "e"}, "the data or a model's source was another"),
        ({"ppo_seed": 7}, "ppo_seed is 7, here None"),
        ({"stale": True}, "ppo was run on another models/sft than it holds now"),
    ],
)
def test_other_runs_are_left_out_with_the_reason(repository, changes, why, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "dvc", lambda *command, root: True)
    repository("other", **{"seed": 2, **changes})
    found, unfit = seeds.find_runs("sft", seeds.Path())
    assert list(found) == [1] and unfit == [f"other: {why}"]
    with pytest.raises(UserError, match="seed 2: no such run"):
        cli.command(["seeds", "1", "2", "--collect"])
    assert f"left out: other: {why}" in capsys.readouterr().out


def test_from_ppo_on_the_seed_of_ppo_varies_and_the_other_stays(repository):
    repository("a", ppo_seed=2)
    repository("b", seed=2, ppo_seed=3)
    found, unfit = seeds.find_runs("ppo", seeds.Path())
    assert {seed: run.name for seed, run in found.items()} == {1: "workspace", 2: "a"}
    assert unfit == ["b: seed is 2, here 1"]


def test_only_what_is_missing_is_run_and_a_failure_is_named(repository, monkeypatch, capfd):
    repository("seed-2", seed=2)
    called = []

    def dvc(*command, root):
        called.append(command)
        if command[-1] == "seed=3":
            repository(command[command.index("--name") + 1], seed=3)
        return command[-1] != "seed=4"

    monkeypatch.setattr(seeds, "dvc", dvc)
    with pytest.raises(
        UserError, match=r"seed 4: the run failed, see above \(there: 1, 2, 3; they are not run again\)"
    ):
        seeds.run_seeds([1, 2, 3, 4], "sft")
    assert [command[-1] for command in called] == ["seed=3", "seed=4"]
    assert not (seeds.Path() / "metrics/seeds.csv").exists()  # nothing half-done is written
    repository("seed-4", kl_coef=0.4)  # the name is taken, by another setting
    with pytest.raises(UserError):
        seeds.run_seeds([1, 4], "sft")
    assert called[-1][called[-1].index("--name") + 1] == "seed-4-2"


def test_seeds_are_asked_for(repository):
    with pytest.raises(UserError, match="expected training seeds"):
        cli.command(["seeds"])


def test_a_workspace_that_was_not_run_is_no_run(repository, settings):
    settings["ppo"]["kl_coef"] = 0.3
    (seeds.Path() / "params.yaml").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no run here has the settings"):
        cli.command(["seeds", "--collect"])
