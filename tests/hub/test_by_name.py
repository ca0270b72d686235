"""Models and data by their names on the hub: at the commit that is noted, kept for the next run, network or none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from minirlhf.commands import cli
from minirlhf.data import shapes
from minirlhf.data.sources import Source
from minirlhf.hub.configs import find_model, load_config, load_tokenizer
from minirlhf.hub.fingerprint import fingerprint
from minirlhf.hub.locate import hub_dataset
from minirlhf.models.loading import load_policy, new_reward_model, random_policy
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json, read_jsonl
from minirlhf.settings.data import DataParams
from minirlhf.settings.params import parse_params
from stages.source import look
from tests.hub.conftest import FEEDBACK, GPT2, REWARD, as_parquet, feedback, preference, tldr

ROOT = Path(__file__).parents[2]
POSTS = ["SUBREDDIT: r/pets\n\nTITLE: help\n\nPOST: my cat left.\n\nTL;DR:", "cat", "left " * 90]
SUMMARIES = [" cat left", " a dog left, and then a cat", " left"]


def test_a_policy_and_its_tokenizer(stocked, hub, tiny_models):
    tokenizer = load_tokenizer(GPT2)
    assert not any("/cdn/" in request for request in hub.requests)  # its weights are not asked for
    policy = load_policy(GPT2)
    local = load_policy(str(tiny_models / "sft"))
    assert all(torch.equal(weights, local.state_dict()[name]) for name, weights in policy.state_dict().items())
    assert tokenizer.get_vocab() == load_tokenizer(str(tiny_models / "sft")).get_vocab()
    assert not any(part in request for request in hub.requests for part in (".bin", "onnx", "README"))
    random = random_policy(GPT2, stocked[GPT2], {"n_layer": 2}, seed=1)
    assert random.config.n_layer == 2


def test_what_was_loaded_before_needs_no_hub(stocked, hub, monkeypatch):
    load_policy(GPT2)
    hub.requests.clear()
    load_policy(GPT2, stocked[GPT2])
    assert hub.requests == []
    hub.stop()
    load_policy(GPT2, stocked[GPT2])
    load_tokenizer(GPT2)  # main, where it was last
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load_policy(GPT2, stocked[GPT2])


def test_the_note_is_the_commit(hub, gpt2_files):
    first = hub.commit("model", GPT2, gpt2_files, "main", "v1", "refs/pr/1")
    assert fingerprint(GPT2, None, "model") == {"kind": "hub", "name": GPT2, "commit": first}
    assert fingerprint(GPT2, None, "model")["commit"] == first  # nothing changed
    second = hub.commit("model", GPT2, gpt2_files | {"README.md": b"new"}, "main", "tries")
    revisions = {None: second, "main": second, "tries": second, "v1": first, "refs/pr/1": first, first: first}
    assert {revision: fingerprint(GPT2, revision, "model")["commit"] for revision in revisions} == revisions


def test_a_revision_is_the_model_that_was_there(hub, gpt2_files):
    config = json.loads(gpt2_files["config.json"])
    first = hub.commit("model", GPT2, gpt2_files, "main", "v1")
    hub.commit("model", GPT2, gpt2_files | {"config.json": json.dumps(config | {"n_positions": 9}).encode()})
    assert load_config(GPT2).n_positions == 9
    assert load_config(GPT2, "v1").n_positions == load_config(GPT2, first).n_positions == 1024


@pytest.mark.parametrize(
    ("what", "name", "expected"),
    [
        ("posts", "trl-lib/tldr", tldr),
        ("posts", "OpenAI/summarize_tldr", tldr),
        ("comparisons", "trl-lib/tldr-preference", preference),
        ("comparisons", FEEDBACK, None),
    ],
)
def test_data_sets(stocked, hub, settings, what, name, expected):
    data = DataParams(**settings["data"] | {"posts": "a/b", "comparisons": "a/b"} | {what: name})
    note = fingerprint(name, None, "dataset")
    assert note["commit"] == stocked[hub_dataset(name)]

    def read():
        source = Source(what, data, note)
        columns = {"posts": shapes.POSTS, "comparisons": shapes.COMPARISONS}[what]
        splits = ("train", "validation", "test")
        return {split: [shapes.to_shape(row, columns) for row in source.rows(split)] for split in splits}

    rows = read()
    if expected is not None:
        assert rows["train"] == [expected("train", number) for number in range(12)]
    else:
        assert rows["train"][1] == preference("train", 1) | {"chosen": " left", "rejected": " a cat"}
        assert rows["train"][2]["chosen"] == " a cat"
        assert not any("axis" in request for request in hub.requests)
    assert len(rows["validation"]) + len(rows["test"]) == 12 and rows["test"]
    hub.stop()
    assert read() == rows


def test_news_articles_among_the_comparisons_are_refused(hub, settings):
    """Their posts are null; so is TITLE in some rows."""
    article = feedback("validation", 1)
    article["info"] |= {"post": None, "subreddit": None, "site": "cnn", "article": "A cat left."}
    rows = {"train": [feedback("train", 0)], "validation": [article, feedback("validation", 2)]}
    files = {f"comparisons/{split}/0000.parquet": as_parquet(rows[split]) for split in rows}
    hub.commit("dataset", FEEDBACK, files, "refs/convert/parquet")
    data = DataParams(**settings["data"] | {"posts": "a/b", "comparisons": FEEDBACK})
    source = Source("comparisons", data, fingerprint(FEEDBACK, None, "dataset"))
    found = [shapes.to_shape(row, shapes.COMPARISONS) for split in ("validation", "test") for row in source.rows(split)]
    assert sorted(row if isinstance(row, str) else row["chosen"] for row in found) == [" a cat", "not_a_post"]


def test_a_reward_model_with_its_own_tokenizer(stocked, hub):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    reward = RewardModel.load(REWARD, format=None)
    assert reward.format == "pair" and reward.max_length == 64
    folder = find_model(REWARD, None, ("*",))
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    scores = reward(POSTS, SUMMARIES, [True] * 3)
    with torch.no_grad():
        for post, summary, score in zip(POSTS, SUMMARIES, scores, strict=True):
            inputs = tokenizer(post, summary, truncation="only_first", max_length=64, return_tensors="pt")
            assert score == pytest.approx(model(**inputs).logits.item(), abs=1e-5)


def test_a_reward_model_is_examined_by_name(stocked, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.command(["examine", FEEDBACK, "--models", REWARD, "--slice", "batch", "--threads", "1"])
    found = read_json(tmp_path / "examine.json")
    assert (found["comparisons"], found["posts"]) == (12, 12)  # of the validation split
    # The choice was the second of those shown in every other one.
    assert found["labels"]["position"]["first_chosen"]["value"] == 0.5
    assert found["models"][REWARD]["position"]["accuracy_first_chosen"] is not None


def test_a_reward_model_is_trained_from_the_commit_that_is_noted(stocked, hub, settings):
    settings["reward"]["base"] = GPT2
    settings["model"]["base"] = GPT2
    note = look(parse_params(json.dumps(settings), "params.yaml"))["reward"]
    assert note == {"kind": "hub", "name": GPT2, "commit": stocked[GPT2]}
    model = new_reward_model(GPT2, note["commit"])
    trunk = load_policy(GPT2, note["commit"]).base_model.state_dict()
    assert all(torch.equal(weights, trunk[name]) for name, weights in model.base_model.state_dict().items())
    with pytest.raises(UserError, match="no revision v9 on the hub"):
        new_reward_model(GPT2, "v9")


def test_the_post_is_shortened_whatever_the_limit_never_the_summary(stocked):
    reward = RewardModel.load(REWARD, format=None)
    tokenizer = reward.tokenizer
    for limit in range(13, 70):
        reward.max_length = limit
        for post in POSTS:
            summary = tokenizer(SUMMARIES[0], add_special_tokens=False)["input_ids"]
            [encoded] = reward._encode_pairs([post], SUMMARIES[:1])
            ids = encoded["input_ids"]
            assert len(ids) <= limit and ids[-1] == tokenizer.sep_token_id
            assert ids[-1 - len(summary) : -1] == summary
            assert tokenizer(post)["input_ids"][: len(ids) - len(summary) - 2] == ids[: -len(summary) - 2]
    reward.max_length = len(summary) + 3
    with pytest.raises(UserError, match="does not fit"):
        reward(POSTS[:1], SUMMARIES[:1], [True])


def run_stages(folder, *names, **environment):
    """Run stages one after the other in one process of their own, which is quicker than one each."""
    run = "sys.argv = [script]; runpy.run_path(script, run_name='__main__')"
    code = f"import runpy, sys\nfor script in sys.argv[1:]: {run}"
    command = [sys.executable, "-c", code, *(str(ROOT / "stages" / f"{name}.py") for name in names)]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)


def test_stages_by_names_alone_then_without_the_hub(stocked, hub, environment, settings, tmp_path):
    settings["data"] |= {"posts": "openai/summarize_tldr", "comparisons": FEEDBACK}
    settings["model"]["base"] = GPT2
    settings["reward"] |= {"pretrained": REWARD, "format": None}
    project = tmp_path / "project"
    project.mkdir()
    (project / "params.yaml").write_text(json.dumps(settings))

    def run(*names, **environment):
        result = run_stages(project, *names, **environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    printed = run("source", "prepare", "reward")
    names = {"posts": "trl-lib/tldr", "comparisons": FEEDBACK, "base": GPT2, "reward": REWARD}
    notes = {what: read_json(project / f"data/sources/{what}.json") for what in names}
    assert notes == {what: {"kind": "hub", "name": name, "commit": stocked[name]} for what, name in names.items()}
    rows = read_jsonl(project / "data/prepared/posts/train.jsonl")
    assert [row["prompt"] for row in rows] == [tldr("train", number)["prompt"] for number in range(12)]
    reward = read_json(project / "models/reward/reward.json")
    assert reward | {"mean": 0} == {"model": REWARD, "revision": stocked[REWARD], "format": "pair", "mean": 0}

    hub.stop()
    assert run("source", "prepare", HF_HUB_OFFLINE="1") == printed
    assert notes == {name: read_json(project / f"data/sources/{name}.json") for name in notes}
