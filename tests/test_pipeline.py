"""The pipeline as its user runs it: dvc in a fresh clone of this checkout, on shrunken settings."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
STAGES = ["source", "prepare", "sft", "reward", "ppo", "evaluate", "report"]
SMALL = {
    "data": {"max_posts": 64, "max_comparisons": 32, "max_validation": 8, "max_test": 24},
    "sft": {"steps": 2, "batch_size": 8, "micro_batch_size": 8, "eval_every": 1, "log_every": 1},
    "reward": {"steps": 2, "batch_size": 8, "micro_batch_size": 8, "eval_every": 1, "log_every": 1,
               "candidate_posts": 8},
    "ppo": {"episodes": 16, "batch_size": 8, "minibatches": 1, "micro_batch_size": 8, "rollout_batch_size": 8,
            "eval_every": 1, "snapshot_every": 1},
    "evaluate": {"bootstrap": 50, "best_of_n": 2, "frontier_posts": 8},
}  # fmt: skip


def dvc(folder: Path, *command: str, fails: bool = False) -> str:
    """Run dvc there with this very Python first on the path; returns what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(printed: str) -> list[str]:
    """The stages that really ran, in order."""
    return re.findall(r"^Running stage '(\w+)'", printed, re.MULTILINE)


def git(folder: Path, *command: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)


def change(folder: Path, settings: dict) -> None:
    """Change settings of params.yaml."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for section, values in settings.items():
        if isinstance(values, dict):
            params[section].update(values)
        else:
            params[section] = values
    yaml.dump(params, folder / "params.yaml")


def copy_checkout(folder: Path) -> None:
    """A committed copy of this checkout, without its results, on shrunken settings."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    results = ("metrics/", "plots/", "results/", "dvc.lock", "tests/")
    for name in listed.splitlines():
        if not name.startswith(results) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "profiles" / "embedded.yaml", folder / "params.yaml")
    change(folder, SMALL)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of this checkout, run once; and what `dvc repro` printed."""
    folder = tmp_path_factory.mktemp("pipeline") / "clone"
    copy_checkout(folder)
    printed = dvc(folder, "repro")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "results")
    return folder, printed


def test_every_stage_runs_once_and_leaves_what_the_readme_names(clone):
    folder, printed = clone
    assert ran(printed) == STAGES
    metrics = json.loads((folder / "metrics" / "evaluate.json").read_text())
    for system in ("reference", "sft", "ppo"):
        named = [metrics[system][name] for name in ("reward", "rouge1", "rouge2", "rougeL", "length", "gold")]
        assert all(isinstance(value, float) for value in named)
    assert metrics["win_rate"]["judge"] == "gold"
    for rate in ("ppo_vs_sft", "ppo_vs_reference"):
        assert metrics["win_rate"][rate].keys() == {"value", "low", "high"}
    assert isinstance(metrics["kl"], float)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (folder / "models/ppo").iterdir()}
    assert (folder / "plots/images/overview.png").exists() and (folder / "results/report.html").exists()


def test_delivered_folders_hold_nothing_executable(clone):
    names = [p.suffix for p in (clone[0] / "models").rglob("*") if p.is_file() and p.name != ".gitignore"]
    assert set(names) <= {".safetensors", ".json", ".md"}


def test_a_second_run_looks_at_the_sources_only(clone):
    assert ran(dvc(clone[0], "repro")) == ["source"]


def test_a_ppo_setting_reruns_ppo_evaluate_and_report_and_going_back_computes_nothing(clone):
    folder, _ = clone
    before = (folder / "dvc.lock").read_bytes()
    printed = dvc(folder, "exp", "run", "-n", "warm", "-S", "ppo.kl_coef=0.4")
    assert ran(printed) == ["source", "ppo", "evaluate", "report"]
    assert "warm" in dvc(folder, "exp", "show", "--csv")
    assert "0.4" in dvc(folder, "params", "diff")
    change(folder, {"ppo": {"kl_coef": YAML(typ="safe").load(ROOT / "profiles" / "embedded.yaml")["ppo"]["kl_coef"]}})
    assert ran(dvc(folder, "repro")) == ["source"]
    assert (folder / "dvc.lock").read_bytes() == before


def test_a_typo_in_ppo_shows_before_sft_starts(clone):
    folder, _ = clone
    good = (folder / "params.yaml").read_text()
    change(folder, {"ppo": {"kl_coeff": 0.1}, "seed": 2})
    printed = dvc(folder, "repro", fails=True)
    (folder / "params.yaml").write_text(good)
    assert "error: ppo.kl_coeff: unknown setting; did you mean kl_coef? (params.yaml)" in printed
    assert ran(printed) == ["source"] and "Traceback" not in printed


def test_plots_render_without_a_network(clone):
    folder, _ = clone
    dvc(folder, "plots", "show")
    page = (folder / "dvc_plots" / "index.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.https?:", page)
    assert page.count("vegaEmbed(") > 3


@pytest.mark.skipif(not (SHARED / "data" / "tldr").is_dir(), reason="needs real posts in ../shared/data")
def test_real_posts(clone, tmp_path):
    """The stages on real Reddit posts, with GPT-2's own tokenizer and a small GPT-2 made from its config."""
    folder = tmp_path / "own"
    shutil.copytree(clone[0], folder, ignore=shutil.ignore_patterns("cache", "models"))
    for source, target in (("data/tldr", "data/own/posts"), ("data/tldr_preference", "data/own/comparisons"),
                           ("models/gpt2-tokenizer", "models/own/gpt2")):  # fmt: skip
        shutil.copytree(SHARED / source, folder / target)
    shutil.copy(ROOT / "profiles" / "own-posts.yaml", folder / "params.yaml")
    change(folder, {**SMALL, "model": {"random_weights": {"n_layer": 1, "n_embd": 32, "n_head": 2}}})
    assert ran(dvc(folder, "repro")) == STAGES
    metrics = json.loads((folder / "metrics" / "evaluate.json").read_text())
    assert "gold" not in metrics["ppo"] and metrics["win_rate"]["judge"] != "gold"
    assert 0 < metrics["sft"]["rougeL"] < 1
