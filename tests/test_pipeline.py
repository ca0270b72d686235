"""The pipeline as its user runs it: dvc in a fresh clone of this checkout, on shrunken settings."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import SOAK
from tests.pipelines import SMALL, STAGES, change, copy_checkout, dvc, git, ran

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def test_every_stage_runs_once_and_leaves_what_the_readme_names(clone):
    folder, printed = clone
    assert ran(printed) == STAGES
    metrics = json.loads((folder / "details" / "evaluate.json").read_text())
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
    names = [p.suffix for p in (clone[0] / "models").rglob("*") if p.is_file() and not p.name.startswith(".git")]
    assert set(names) <= {".safetensors", ".json", ".md"}


def test_a_second_run_looks_at_the_sources_only(clone):
    assert ran(dvc(clone[0], "repro")) == ["source"]


def test_a_typo_in_ppo_shows_before_sft_starts(clone):
    folder, _ = clone
    good = (folder / "params.yaml").read_text()
    change(folder, {"ppo": {"kl_coeff": 0.1}, "seed": 2})
    printed = dvc(folder, "repro", fails=True)
    (folder / "params.yaml").write_text(good)
    assert "error: ppo.kl_coeff: unknown setting; did you mean kl_coef? (params.yaml)" in printed
    assert ran(printed) == ["source"] and "Traceback" not in printed


# Cut at the end of a line it may be a whole file of fewer stages: DVC then runs those, or takes them from its cache.
@pytest.mark.parametrize(
    "damage", [lambda lock: lock[: len(lock) // 2].rpartition(":")[0], lambda lock: lock.replace("md5: ", "md5: [")]
)
def test_a_damaged_lock_is_refused_by_its_name_and_comes_back_by_git(clone, damage):
    folder, _ = clone
    good = (folder / "dvc.lock").read_text()
    (folder / "dvc.lock").write_text(damage(good))
    printed = dvc(folder, "repro", fails=True)
    assert re.search("dvc.lock' (is invalid|validation failed)", printed) and ran(printed) == []
    git(folder, "checkout", "dvc.lock")
    assert (folder / "dvc.lock").read_text() == good and ran(dvc(folder, "repro")) == ["source"]


@pytest.mark.skipif(not SOAK, reason="runs the pipeline once more")
def test_elsewhere_under_nice_and_beside_other_work_it_gives_the_same_bytes(clone, tmp_path):
    folder = tmp_path / "elsewhere"
    copy_checkout(folder)
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        printed = dvc(folder, "repro", under=("nice", "-n", "5"))
    finally:
        for each in load:
            each.kill()
    assert ran(printed) == STAGES
    assert (folder / "dvc.lock").read_text() == (clone[0] / "dvc.lock").read_text()


@pytest.mark.parametrize("typed", [False, pytest.param(True, marks=pytest.mark.skipif(not SOAK, reason="make soak"))])
def test_without_dvc_the_stages_in_order_make_the_same_outputs(clone, tmp_path, monkeypatch, typed):
    """Called in this process, which has PyTorch imported already; in the soak by the command of docs/stages.md."""
    lock = YAML(typ="safe").load(clone[0] / "dvc.lock")["stages"]
    outs = [out["path"] for stage in lock.values() for out in stage["outs"]]
    folder = tmp_path / "by hand"
    shutil.copytree(clone[0], folder, ignore=shutil.ignore_patterns(".git", ".dvc", "dvc.lock", ".resume"))
    for path in [folder / out for out in outs]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.chdir(folder)
    if typed:
        [command] = re.findall(r"^    (for stage in .*)$", (ROOT / "docs" / "stages.md").read_text(), re.MULTILINE)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["sh", "-c", command], check=True, env={**os.environ, "PATH": path})
    else:
        for name in STAGES:
            importlib.import_module(f"stages.{name}").main([])
    for out in outs:
        expected = clone[0] / out
        for file in sorted(expected.rglob("*")) if expected.is_dir() else [expected]:
            if file.is_file():
                assert (folder / file.relative_to(clone[0])).read_bytes() == file.read_bytes(), file


@pytest.mark.skipif(not (SHARED / "data" / "tldr").is_dir(), reason="needs real posts in ../shared/data")
def test_real_posts(clone, tmp_path, monkeypatch):
    """The stages on real Reddit posts, with GPT-2's own tokenizer and a small GPT-2 made from its config.

    Called one after the other as DVC calls them, but in this process, which has PyTorch imported already.
    """
    folder = tmp_path / "own"
    shutil.copytree(clone[0], folder, ignore=shutil.ignore_patterns("cache", "models"))
    for source, target in (("data/tldr", "data/own/posts"), ("data/tldr_preference", "data/own/comparisons"),
                           ("models/gpt2-tokenizer", "models/own/gpt2")):  # fmt: skip
        shutil.copytree(SHARED / source, folder / target)
    shutil.copy(ROOT / "profiles" / "own-posts.yaml", folder / "params.yaml")
    change(folder, {**SMALL, "model": {"random_weights": {"n_layer": 1, "n_embd": 32, "n_head": 2}}})
    monkeypatch.chdir(folder)
    for name in STAGES:
        importlib.import_module(f"stages.{name}").main([])
    metrics = json.loads((folder / "details" / "evaluate.json").read_text())
    assert "gold" not in metrics["ppo"] and metrics["win_rate"]["judge"] != "gold"
    # Two steps from random weights: tokens at random, which seldom are words of the authors'.
    assert metrics["reference"]["rougeL"] == 1 and 0 <= metrics["sft"]["rougeL"] < 0.1
    assert 0 < metrics["ppo"]["length"] <= 53
