import json
import shutil

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from minirlhf.commands import cli
from minirlhf.commands.export import chosen_temperature
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_json


@pytest.fixture
def project(tiny_models, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    for name in ("sft", "ppo"):
        shutil.copytree(tiny_models / name, f"models/{name}")
    write_json("params.yaml", settings)
    write_json("models/ppo/ppo.json", {"episodes": 8})
    write_json("details/evaluate.json", {"best": {"sft": {"temperature": 0.7}, "ppo": {"temperature": 0.0}}})
    return tmp_path


@pytest.mark.parametrize(("name", "temperature"), [("sft", 0.7), ("ppo", 0.0)])
def test_an_exported_policy_samples_as_evaluate_chose(project, capsys, name, temperature):
    (project / "models" / f"{name}.md").write_text(f'from_pretrained("models/{name}")')
    cli.command(["export", f"models/{name}", "own"])
    assert f"at temperature {temperature:g}" in capsys.readouterr().out
    found = GenerationConfig.from_pretrained("own")
    assert (found.do_sample, found.max_new_tokens) == (
        temperature > 0,
        json.loads((project / "params.yaml").read_text())["ppo"]["max_new_tokens"],
    )
    assert not temperature or (found.temperature, found.top_k, found.top_p) == (0.7, 0, 1.0)
    assert not (project / "own" / "ppo.json").exists()
    assert (project / "own" / "README.md").read_text() == 'from_pretrained("own")'
    AutoModelForCausalLM.from_pretrained("own")
    assert chosen_temperature(project / "own") == temperature


def test_what_is_not_known_or_in_the_way_is_one_line(project):
    with pytest.raises(UserError, match="models/ppo: is there already"):
        cli.command(["export", "models/sft", "models/ppo"])
    shutil.copytree("models/sft", "other")
    with pytest.raises(UserError, match="other: no temperature is known for it"):
        cli.command(["export", "other", "own"])


def test_summaries_are_drawn_at_the_temperature_that_suits_each_policy(project, capsys):
    cli.command(["summarize", "my cat left me for the neighbor and i am sad.", "--jsonl", "--reward", "none"])
    row = json.loads(capsys.readouterr().out)
    assert [found["temperature"] for found in row["summaries"].values()] == [0.7, 0.0]
