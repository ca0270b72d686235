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
from tests.pipelines import change, copy_checkout, dvc, fresh_clone, git, ran

ONE, TWO = "[{round: 0, after: collected}]", "[{round: 0, after: collected}, {round: 1, after: feedback/0}]"


def of_round(number: int) -> list[str]:
    return [f"earlier_reward@{number}", f"earlier_ppo@{number}", f"feedback@{number}"]


# In the place of a script: what it reads, of data, models and PPO's settings, as a hash in each of its outputs.
STAND_IN = r"""
import hashlib, os, re
from pathlib import Path
from ruamel.yaml import YAML

name, _, number = os.environ["DVC_STAGE"].partition("@")
stage, params = (YAML(typ="safe").load(Path(file)) for file in ("dvc.yaml", "params.yaml"))
stage = stage["stages"][name]
stage, item = stage.get("do", stage), params["feedback"]["rounds"][int(number)] if number else {}

def path(text):
    text = text.replace("${collect.policy}", params["collect"]["policy"])
    return Path(re.sub(r"\$\{item\.(\w+)\}", lambda match: str(item[match[1]]), text))

read = hashlib.md5(str(params["ppo"] if "ppo" in name else "").encode())
for dep in map(path, stage["deps"]):
    if dep.parts[0] in ("data", "models"):
        for file in sorted(dep.rglob("*")) if dep.is_dir() else [dep]:
            read.update(file.read_bytes() if file.is_file() else b"")
for out in map(path, [*stage["outs"], *(next(iter(metric)) for metric in stage.get("metrics", ()))]):
    file = out if out.suffix else out / "content"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(read.hexdigest())
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout whose stages up to the reward model have been run; but for `source` they are stand-ins."""
    folder = tmp_path_factory.mktemp("rounds") / "checkout"
    copy_checkout(folder)
    for stage in ("prepare", "sft", "collect", "reward", "ppo"):
        (folder / f"stages/{stage}.py").write_text(STAND_IN)
    dvc(folder, "repro", "reward")
    return folder


@pytest.fixture(scope="module")
def real(clone, tmp_path_factory):
    """A fresh clone of the small pipeline, on its cache; no round but the last was run."""
    source, _ = clone
    cache = f"[cache]\n    dir = {source}/.dvc/cache\n"
    folder = fresh_clone(source, tmp_path_factory.mktemp("rounds") / "clone", cache)
    dvc(folder, "checkout")
    return folder


def rounds(folder: Path, value: str) -> list[str]:
    """Set the rounds there and run up to the reward model; the stages that really ran."""
    text = (folder / "params.yaml").read_text().splitlines()
    text = [f"  rounds: {value}" if line.startswith("  rounds:") else line for line in text]
    (folder / "params.yaml").write_text("\n".join(text) + "\n")
    return ran(dvc(folder, "repro", "reward"))


def content(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]


def test_one_more_round_runs_what_follows_and_one_fewer_is_restored(project):
    model = project / "models/reward"
    without = content(model)
    assert rounds(project, ONE) == ["source", *of_round(0), "reward"]
    with_one = content(model)
    assert rounds(project, ONE) == ["source"]
    assert rounds(project, TWO) == ["source", *of_round(1), "reward"]
    with_two = content(model)
    assert without != with_one != with_two

    assert rounds(project, ONE) == ["source"]  # all else comes from the run cache
    assert content(model) == with_one and (project / "data/feedback/0").exists()
    assert rounds(project, "[]") == ["source"]
    assert content(model) == without and not list(project.glob("*/*/[0-9]"))
    assert rounds(project, TWO) == ["source"]
    assert content(model) == with_two
    assert rounds(project, "[]") == ["source"]


def test_a_setting_of_ppo_trains_no_earlier_reward_model_again_but_the_second(project):
    rounds(project, TWO)
    params = project / "params.yaml"
    before = params.read_text()
    change(project, {"ppo": {"kl_coef": 0.07}})
    again = ["source", "earlier_ppo@0", "feedback@0", "earlier_reward@1", "earlier_ppo@1", "feedback@1", "reward"]
    assert ran(dvc(project, "repro", "reward")) == again
    params.write_text(before)
    assert ran(dvc(project, "repro", "reward")) == ["source"]
    rounds(project, "[]")


def test_an_experiment_sets_rounds(project):
    git(project, "add", "-A")
    git(project, "commit", "-qm", "results")
    printed = dvc(project, "exp", "run", "--temp", "-n", "one", "-S", f"feedback.rounds={ONE}", "reward")
    assert "stages/reward.py --collected data/collected" in printed or "earlier_reward@0" in printed
    assert ran(dvc(project, "exp", "run", "-n", "two", "-S", f"feedback.rounds={TWO}", "reward"))[0] == "source"
    assert (project / "data/feedback/1").exists()
    assert ran(dvc(project, "exp", "run", "-n", "none", "-S", "feedback.rounds=[]", "reward")) == ["source"]
    assert not (project / "data/feedback/0").exists()


@pytest.mark.skipif(not SOAK, reason="runs reward and PPO twice more")
def test_the_rounds_of_the_real_stages(real):
    """What was the last is now the first: the same model of the same comparisons, and another after it."""
    last = (real / "models/reward/model.safetensors").read_bytes()
    assert rounds(real, ONE) == ["source", *of_round(0), "reward"]
    assert (real / "models/rounds/0/reward/model.safetensors").read_bytes() == last
    with_one = (real / "models/reward/model.safetensors").read_bytes()
    assert rounds(real, TWO) == ["source", *of_round(1), "reward"]
    assert (real / "models/rounds/1/reward/model.safetensors").read_bytes() == with_one != last
    comparisons, before, after = (
        read_jsonl(real / f"data/{name}/train.jsonl") for name in ("collected", "feedback/0", "feedback/1")
    )
    assert before[: len(comparisons)] == comparisons and after[: len(before)] == before
    assert len(comparisons) < len(before) < len(after)
    assert rounds(real, "[]") == ["source"]
    assert (real / "models/reward/model.safetensors").read_bytes() == last


@pytest.mark.skipif(not SOAK, reason="runs alignment and evaluation twice more")
def test_an_experiment_with_a_round_shows_what_it_bought(real):
    printed = dvc(real, "exp", "run", "--temp", "-n", "one", "-S", f"feedback.rounds={ONE}")
    assert ran(printed)[-4:] == ["reward", "ppo", "evaluate", "report"]
    dvc(real, "exp", "run", "-n", "two", "-S", f"feedback.rounds={TWO}")
    assert read_json(real / "metrics/evaluate.json")["rounds"].keys() == {"0", "1"}
    assert "## Rounds of feedback" in (real / "results/tables.md").read_text()


@pytest.mark.skipif(not SOAK, reason="runs reward and PPO once more")
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
