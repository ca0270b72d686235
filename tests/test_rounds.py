"""Feedback in rounds, by DVC: what one more round runs, and what one fewer brings back."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minirlhf.runtime.files import read_json, read_jsonl
from tests.conftest import SOAK
from tests.pipelines import dvc, fresh_clone, ran

ONE, TWO = "[{round: 0, after: collected}]", "[{round: 0, after: collected}, {round: 1, after: feedback/0}]"


def of_round(number: int) -> list[str]:
    return [f"earlier_reward@{number}", f"earlier_ppo@{number}", f"feedback@{number}"]


@pytest.fixture(scope="module")
def project(clone, tmp_path_factory):
    """A fresh clone of the small pipeline, on its cache; no round but the last was run."""
    source, _ = clone
    cache = f"[cache]\n    dir = {source}/.dvc/cache\n"
    folder = fresh_clone(source, tmp_path_factory.mktemp("rounds") / "clone", cache)
    dvc(folder, "checkout")
    return folder


def rounds(folder: Path, value: str, *more: str) -> list[str]:
    """Set the rounds there and run up to the reward model; the stages that really ran."""
    text = (folder / "params.yaml").read_text().splitlines()
    text = [f"  rounds: {value}" if line.startswith("  rounds:") else line for line in text]
    (folder / "params.yaml").write_text("\n".join(text) + "\n")
    return ran(dvc(folder, "repro", "reward", *more))


def test_one_more_round_runs_what_follows_and_one_fewer_is_restored(project):
    last = (project / "models/reward/model.safetensors").read_bytes()
    comparisons = len(read_jsonl(project / "data/collected/train.jsonl"))
    assert rounds(project, ONE) == ["source", *of_round(0), "reward"]
    # What was the last is now the first: the same model from the same comparisons, and another after it.
    assert (project / "models/rounds/0/reward/model.safetensors").read_bytes() == last
    with_one = (project / "models/reward/model.safetensors").read_bytes()
    assert with_one != last
    assert rounds(project, ONE) == ["source"]
    assert rounds(project, TWO) == ["source", *of_round(1), "reward"]
    assert (project / "models/rounds/1/reward/model.safetensors").read_bytes() == with_one
    before, after = (read_jsonl(project / f"data/feedback/{number}/train.jsonl") for number in (0, 1))
    assert after[: len(before)] == before and len(before) > comparisons
    assert before[:comparisons] == read_jsonl(project / "data/collected/train.jsonl")

    assert rounds(project, ONE) == ["source"]  # all else comes from the run cache
    assert (project / "models/reward/model.safetensors").read_bytes() == with_one
    assert rounds(project, "[]") == ["source"]
    assert (project / "models/reward/model.safetensors").read_bytes() == last
    assert not list(project.glob("*/*/[0-9]"))
    assert rounds(project, TWO) == ["source"]
    assert rounds(project, "[]") == ["source"]


@pytest.mark.skipif(not SOAK, reason="runs alignment and evaluation twice more")
def test_an_experiment_with_a_round_shows_what_it_bought(project):
    printed = dvc(project, "exp", "run", "--temp", "-n", "one", "-S", f"feedback.rounds={ONE}")
    assert ran(printed)[-4:] == ["reward", "ppo", "evaluate", "report"]
    dvc(project, "exp", "run", "-n", "two", "-S", f"feedback.rounds={TWO}")
    assert read_json(project / "metrics/evaluate.json")["rounds"].keys() == {"0", "1"}
    assert "## Rounds of feedback" in (project / "results/tables.md").read_text()


def test_a_killed_round_goes_on(clone, tmp_path):
    source, _ = clone
    folder = fresh_clone(source, tmp_path / "clone", f"[cache]\n    dir = {source}/.dvc/cache\n")
    dvc(folder, "checkout")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    text = (folder / "params.yaml").read_text()
    text = text.replace("rounds: []", f"rounds: {ONE}").replace("resume_minutes: 0.5", "resume_minutes: 0")
    (folder / "params.yaml").write_text(text)
    command = [sys.executable, "-m", "dvc", "repro", "earlier_ppo@0"]
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path}, start_new_session=True) as running:
        while not list(folder.glob(".resume/ppo/*/resume/state.json")):
            assert running.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
        os.killpg(running.pid, signal.SIGKILL)
    printed = dvc(folder, "repro", "earlier_ppo@0")
    assert ran(printed) == ["source", "earlier_ppo@0"] and "ppo: goes on from update " in printed
    shutil.rmtree(folder / ".resume")
    whole = (folder / "models/rounds/0/ppo/model.safetensors").read_bytes()
    assert whole == (source / "models/ppo/model.safetensors").read_bytes()
