"""Experiments and sharing, as the documents describe them: dvc and minirlhf in fresh clones of a small pipeline."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from minirlhf.runtime.files import read_csv, read_json
from tests.browser import look
from tests.conftest import SOAK
from tests.pipelines import change, dvc, fresh_clone, git, ran, use_stand_ins

KL = ["0.1", "0.2", "0.3", "0.4", "0.5"] if SOAK else ["0.2", "0.4"]


def minirlhf(folder, *command, fails=False):
    """Run the minirlhf command there, as itself; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "minirlhf", *command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == (1 if fails else 0), done.stdout + done.stderr
    return done.stdout + done.stderr


def shown(printed):
    """The rows of `dvc exp show --csv`, by experiment."""
    return {row["Experiment"] or row["rev"]: row for row in csv.DictReader(io.StringIO(printed))}


@pytest.fixture(scope="module")
def project(clone, tmp_path_factory):
    """A fresh clone of the small pipeline, on its cache; in `make test` PPO and its evaluation are stand-ins."""
    source, _ = clone
    cache = f"[cache]\n    dir = {source}/.dvc/cache\n"
    folder = fresh_clone(source, tmp_path_factory.mktemp("project") / "clone", cache)
    dvc(folder, "checkout")
    if not SOAK:
        use_stand_ins(folder)
    return folder


@pytest.fixture(scope="module")
def sweep(project):
    """A queued grid of PPO settings, run two at a time: its experiments' logs, by name. One more fails."""
    dvc(project, "exp", "run", "--queue", "-n", "grid", "-S", f"ppo.kl_coef={','.join(KL)}")
    dvc(project, "exp", "run", "--queue", "-n", "bad", "-S", "ppo.kl_coef=-1")
    dvc(project, "exp", "run", "--run-all", "-j", "2")  # returns 0, which is documented as a trap
    return {f"grid-{number}": dvc(project, "queue", "logs", f"grid-{number}") for number in range(1, len(KL) + 1)}


def test_results_travel_through_a_shared_folder(project, tmp_path):
    remote = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path}/store\n"
    config = (project / ".dvc" / "config.local").read_text()
    (project / ".dvc" / "config.local").write_text(config + remote)
    dvc(project, "push")
    (project / ".dvc" / "config.local").write_text(config)
    whole = fresh_clone(project, tmp_path / "whole", remote)
    dvc(whole, "pull")
    assert ran(dvc(whole, "repro")) == ["source"]
    assert (whole / "models" / "sft" / "model.safetensors").exists()
    forgotten = whole / ".dvc" / "cache" / "files" / "md5" / "ab" / ("c" * 30)
    forgotten.parent.mkdir(exist_ok=True)
    forgotten.write_text("an output that no commit and no experiment names")
    dvc(whole, "gc", "--workspace", "--all-branches", "--all-experiments", "--force")
    assert not forgotten.exists() and ran(dvc(whole, "repro")) == ["source"]

    # Without a pull: a change in evaluate fetches what evaluate reads, and nothing else.
    part = fresh_clone(project, tmp_path / "part", remote)
    change(part, {"evaluate": {"bootstrap": 60}})
    dvc(part, "pull", *re.findall("^details/.*", dvc(part, "list", ".", "--dvc-only", "-R"), re.MULTILINE))
    assert ran(dvc(part, "repro", "--pull", "--allow-missing")) == ["source", "evaluate", "report"]
    assert (part / "models" / "ppo").exists()
    assert not (part / "data" / "prepared" / "comparisons").exists() and not (part / "data" / "collected").exists()


def test_a_sweep_of_ppo_settings_trains_sft_and_reward_once(clone, sweep):
    for log in sweep.values():
        assert ran(log) == ["source", "ppo", "evaluate", "report"]
    everything = ran(clone[1]) + [stage for log in sweep.values() for stage in ran(log)]
    assert (everything.count("sft"), everything.count("reward"), everything.count("ppo")) == (1, 1, 1 + len(KL))


def test_an_experiment_that_failed_is_seen_in_the_status_of_the_queue(project, sweep):
    state = dict(re.findall(r"^[0-9a-f]{7} +([\w-]+) .* (\w+)$", dvc(project, "queue", "status"), re.MULTILINE))
    assert state == {"bad": "Failed", **dict.fromkeys(sweep, "Success")}
    assert "error: ppo.kl_coef: " in dvc(project, "queue", "logs", "bad")


def test_experiments_are_shown_and_compared(project, sweep):
    rows = shown(dvc(project, "exp", "show", "--csv"))
    for name, kl in zip(sweep, KL, strict=True):
        assert rows[name]["ppo.kl_coef"] == kl
    documented = {"ppo.gold", "sft.gold", "kl", "best.win_rate.value", "seed", "reward_accuracy", "sft_loss"}
    assert documented <= rows["grid-1"].keys()
    assert "ppo.kl_coef" in dvc(project, "exp", "diff", "grid-1", "grid-2", "--md")
    dvc(project, "plots", "diff", "grid-1", "grid-2")
    page = look(project / "dvc_plots" / "index.html")
    assert not page.errors and not page.empty and all(marks for _, marks in page.views)


def test_what_changed_fits_a_screen(project, sweep):
    """Headlines in the tables, and of what the stages read two columns: the policy, and all that was measured."""
    columns = dvc(project, "exp", "show", "--csv", "--only-changed", "--hide-failed").splitlines()[0].split(",")
    assert {"ppo.kl_coef", "ppo.gold", "models/ppo", "details"} <= set(columns)
    assert not [name for name in columns if "/" in name and name != "models/ppo"]
    assert len(dvc(project, "exp", "show", "--csv").splitlines()[0].split(",")) <= 200
    assert all(len(numbers(read_json(file))) <= 12 for file in (project / "metrics").glob("*.json"))
    assert len(dvc(project, "metrics", "diff", "grid-1", "grid-2").splitlines()) <= 25


def numbers(value):
    """Every number in a JSON value."""
    return [n for v in value.values() for n in numbers(v)] if isinstance(value, dict) else [value]


def test_an_experiment_is_kept_or_dropped_and_going_back_only_draws(project, sweep):
    before, settings = (project / "dvc.lock").read_bytes(), (project / "params.yaml").read_text()
    dvc(project, "exp", "apply", "grid-2")
    assert YAML(typ="safe").load(project / "params.yaml")["ppo"]["kl_coef"] == float(KL[1])
    assert KL[1] in dvc(project, "params", "diff")
    dvc(project, "exp", "branch", "grid-2", "kept")
    git(project, "rev-parse", "--verify", "refs/heads/kept")
    (project / "params.yaml").write_text(settings)
    assert ran(dvc(project, "repro")) == ["source", "report"]  # all but the drawing comes from the run cache
    assert (project / "dvc.lock").read_bytes() == before
    dvc(project, "exp", "remove", "grid-2")
    left = dvc(project, "exp", "list")
    assert "grid-1" in left and "grid-2" not in left
    git(project, "checkout", "--", ".")


def test_one_is_run_in_the_workspace_and_cleaned_up(project, sweep):
    printed = dvc(project, "exp", "run", "-n", "one", "-S", "ppo.kl_coef=0.25")
    assert ran(printed) == ["source", "ppo", "evaluate", "report"]
    assert "ppo.kl_coef" in dvc(project, "params", "diff") and "ppo.gold" in dvc(project, "metrics", "diff")
    git(project, "checkout", "--", ".")
    dvc(project, "checkout")
    dvc(project, "exp", "remove", "one")
    assert "one" not in dvc(project, "exp", "list").split()


def test_seeds_run_what_is_missing_and_leave_out_what_differs_in_more(project, sweep):
    printed = minirlhf(project, "seeds", "1", "2", "--from", "ppo")
    assert ran(printed)[-3:] == ["ppo", "evaluate", "report"] and "sft" not in ran(printed)
    assert f"left out: grid-1: ppo.kl_coef is {KL[0]}, here 0.05" in printed
    rows = read_csv(project / "metrics" / "seeds.csv")
    assert [row["seed"] for row in rows] == [1, 2]
    assert rows[0]["ppo_score"] == read_json(project / "metrics" / "evaluate.json")["ppo"]["gold"]
    assert rows[0]["sft_score"] == rows[1]["sft_score"] and rows[0]["ppo_score"] != rows[1]["ppo_score"]
    assert (project / "plots" / "images" / "seeds.png").exists()
    assert "Training seeds" in (project / "results" / "report.html").read_text()

    printed = minirlhf(project, "seeds", "1", "9", "--from", "ppo", "--collect", fails=True)
    assert "error: ppo_seed 9: no such run" in printed and ran(printed) == []
    git(project, "checkout", "--", ".")


@pytest.mark.skipif(not SOAK, reason="trains everything but the base model once more")
def test_seeds_run_from_sft_on(project):
    printed = minirlhf(project, "seeds", "1", "2")
    assert ran(printed)[-5:] == ["sft", "reward", "ppo", "evaluate", "report"] and "prepare" not in ran(printed)
    rows = read_csv(project / "metrics" / "seeds.csv")
    assert [row["seed"] for row in rows] == [1, 2] and rows[0]["sft_score"] != rows[1]["sft_score"]
    git(project, "checkout", "--", ".")


@pytest.mark.skipif(not SOAK, reason="runs the pipeline once more")
def test_reproduce_gives_the_same_bytes_and_notes_the_machine(clone, tmp_path):
    folder = fresh_clone(clone[0], tmp_path / "clone", "")
    assert "are the same bytes as committed, on this machine" in minirlhf(folder, "reproduce", "--record")
    assert json.loads((folder / "machine.json").read_text())["threads"] == "2"
    git(folder, "add", "-A")
    metrics = json.loads((folder / "metrics" / "evaluate.json").read_text())
    metrics["ppo"]["gold"] += 0.01
    (folder / "metrics" / "evaluate.json").write_text(json.dumps(metrics))
    git(folder, "commit", "-qam", "a result that nobody computed")
    printed = minirlhf(folder, "reproduce", fails=True)
    assert "not reproduced, on the kind of machine that made them: metrics/evaluate.json differ" in printed


@pytest.mark.skipif(not SOAK, reason="trains for a while, to be watched")
def test_a_running_stage_can_be_watched(clone, tmp_path):
    source, _ = clone
    folder = fresh_clone(source, tmp_path / "clone", f"[cache]\n    dir = {source}/.dvc/cache\n")
    change(folder, {"ppo": {"episodes": 800}})
    command = [sys.executable, "-m", "dvc", "repro", "ppo"]
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path}) as running:
        lines = []
        while running.poll() is None and len(lines) < 5:
            file = folder / "details" / "ppo.csv"
            lines = file.read_text().splitlines() if file.exists() else []
        printed = minirlhf(folder, "watch")
        dvc(folder, "plots", "show", "alignment reward")
        assert running.poll() is None, "the stage ended before it was looked at"
        assert "details/ppo.csv" in printed and "reward" in printed
        assert (folder / "dvc_plots" / "index.html").read_text().count("vegaEmbed(") >= 1
        assert running.wait() == 0
    assert len(read_csv(folder / "details" / "ppo.csv")) == 101
