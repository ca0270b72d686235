import json
import subprocess
from pathlib import Path

import pytest

from minirlhf.commands import cli
from minirlhf.commands.profiles import use_profile
from minirlhf.runtime.errors import UserError
from minirlhf.settings.params import load_params, parse_params


def git(*arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(settings, tmp_path, monkeypatch):
    """A git repository with params.yaml and the profiles one (seed 1) and two (seed 2)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    for seed, name in ((1, "one"), (2, "two")):
        (tmp_path / "profiles" / f"{name}.yaml").write_text(json.dumps(settings | {"seed": seed}))
    (tmp_path / "params.yaml").write_text(json.dumps(settings | {"seed": 3}))
    git("init")
    git("add", ".")
    git("commit", "-m", "start")
    return tmp_path


def test_a_profile_takes_the_place_of_committed_params(project, capsys):
    cli.command(["profile", "two"])
    cli.command(["profile", "one"])  # what is overwritten now is not committed, but a profile
    assert (project / "params.yaml").read_text() == (project / "profiles" / "one.yaml").read_text()
    cli.command(["profile"])
    assert capsys.readouterr().out.splitlines()[-2:] == ["one", "two"]


def test_edits_are_not_lost(project):
    (project / "params.yaml").write_text("seed: 4")
    with pytest.raises(UserError, match="params.yaml: has edits that are not committed"):
        use_profile("one")
    assert (project / "params.yaml").read_text() == "seed: 4"
    git("add", "params.yaml")
    with pytest.raises(UserError, match="not committed"):
        use_profile("one")


def test_unknown_and_invalid_profiles_are_refused(project):
    before = (project / "params.yaml").read_text()
    with pytest.raises(UserError, match=r"profile \.\./one: expected one of one, two"):
        use_profile("../one")
    (project / "profiles" / "two.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match="ppo_seed: missing"):
        use_profile("two")
    assert (project / "params.yaml").read_text() == before


ROOT = Path(__file__).parents[2]


def test_gpt2_medium_is_gpt2_but_for_memory():
    small, medium = (load_params(ROOT / "profiles" / f"{name}.yaml").model_dump() for name in ("gpt2", "gpt2-medium"))
    halved = [("sft", "micro_batch_size"), ("reward", "micro_batch_size"), ("ppo", "micro_batch_size"),
              ("ppo", "rollout_batch_size"), ("rloo", "micro_batch_size"), ("grpo", "micro_batch_size"),
              ("dpo", "micro_batch_size"), ("evaluate", "batch_size")]  # fmt: skip
    for section, key in halved:
        small[section][key] //= 2
    for section in ("sft", "reward"):
        small[section]["gradient_checkpointing"] = True
    small["model"]["base"] += "-medium"
    assert medium == small


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium"])
def test_a_pretrained_reward_model_is_one_setting(name):
    text = (ROOT / "profiles" / f"{name}.yaml").read_text()
    reward = "OpenAssistant/reward-model-deberta-v3-large-v2"
    assert reward in text
    changed = parse_params(text.replace("\n  pretrained: null", f"\n  pretrained: {reward}"), name)
    assert (changed.reward.pretrained, changed.reward.format) == (reward, None)  # its format is found out


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("profiles/*.yaml"))], ids=lambda p: p.name)
def test_shipped_settings_are_valid(path):
    assert load_params(path)
