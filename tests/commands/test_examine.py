"""`minirlhf examine` by its real command line, on small models of two kinds."""

import json
import re
import subprocess
import sys

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from minirlhf.commands import cli
from minirlhf.hub.configs import read_tokenizer
from minirlhf.reward_modeling.quality import hits, margins, score_once, summaries_of
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json, write_jsonl


@pytest.fixture(scope="module")
def models(tiny_models, tiny_encoders, tmp_path_factory):
    """Folders of a decoder and of an encoder with a head, neither with a reward.json."""
    encoder = tmp_path_factory.mktemp("encoder")
    config = BertConfig.from_pretrained(tiny_encoders / "bert", num_labels=1)
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(encoder)
    read_tokenizer(tiny_encoders / "bert").save_pretrained(encoder)
    return {"decoder": str(tiny_models / "reward"), "encoder": str(encoder)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(count):
    """Comparisons of some posts, the first pair labelled three times, by two voters."""
    found = [
        {"prompt": f"my cat left {number // 3}.\n\nTL;DR:", "chosen": f"cat {number}", "rejected": f"dog left {number}",
         "judge": "<b>ann</b>"} for number in range(count)
    ]  # fmt: skip
    swapped = found[0] | {"chosen": found[0]["rejected"], "rejected": found[0]["chosen"]}
    return [row | {"voter": "v"} for row in found] + [found[0] | {"voter": "w"}, swapped | {"voter": "w"}]


def test_two_models_side_by_side_by_the_real_command(models, folder):
    write_jsonl(folder / "some.jsonl", [*rows(40), {"prompt": "x"}])
    command = [sys.executable, "-m", "minirlhf", "examine", "some.jsonl", "--models", *models.values()]
    done = subprocess.run([*command, "--slice", "judge", "--threads", "1"], capture_output=True, text=True, check=True)
    document, page = read_json("examine.json"), (folder / "examine.html").read_text()
    assert document["comparisons"] == 42 and document["refused"] == {"missing_field": 1}
    assert document["labels"]["agreement"]["agreement"]["value"] == 0.5  # v with w's two labels
    kept = [{name: f" {row[name]}" if name != "prompt" else row[name] for name in ("prompt", "chosen", "rejected")}
            for row in rows(40)]  # fmt: skip
    for name, form in zip(models, ("concat", "pair"), strict=True):
        reward = RewardModel.load(models[name], format=form)
        expected = hits(margins(kept, score_once(reward, summaries_of(kept)))).mean()
        found = document["models"][models[name]]
        assert found["accuracy"] == pytest.approx(expected, abs=1e-6)
        assert {part["group"] for part in found["slices"]} >= {"<b>ann</b>"}
        assert sum(row["count"] for row in found["tables"]["reward_margins"]) == 42
    assert "42 comparisons of 14 posts; rows left out: 1 missing_field." in done.stdout
    assert re.search(r"\| accuracy \| 0\.\d{3} \(0\.\d+ to [01]\.\d+\) \|", done.stdout)
    assert done.stdout.endswith("written: examine.html, examine.json\n")
    assert "<b>ann" not in page and "&lt;b&gt;ann" in page
    assert page.count("<svg ") == 5  # accuracies, and two panels a model
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page) and "<script" not in page
    assert page.count('id="calibration-0-') == len(set(re.findall(r'id="calibration-0-[^"]*"', page)))


def test_the_embedded_world_shows_the_ceiling_and_the_truth(models, folder, capsys):
    cli.command(["examine", "embedded", "--models", models["decoder"], "--limit", "30", "--threads", "1"])
    found = read_json("examine.json")["models"][models["decoder"]]
    assert {"ceiling", "gold"} <= set(found) and "in the truth's order" in capsys.readouterr().out


def test_votes_of_people_are_comparisons(models, folder):
    from minirlhf.feedback.votes import Pair, Summary, Vote, Votes, add, digest

    pairs = [Pair(prompt=f"p{n}", summaries=(Summary(text=" a"), Summary(text=" bb")), split="test") for n in range(6)]
    cast = [
        Vote(id=digest(f"{n}{voter}"), voter=voter, pair=pair.id, left=0, choice=choice, shown=pair.shown(0))
        for n, pair in enumerate(pairs)
        for voter, choice in (("ann", "left"), ("bob", "left" if n < 3 else "tie"))
    ]
    add(folder / "votes", Votes(), cast, {pair.id: pair for pair in pairs})
    cli.command(["examine", "votes", "--models", models["decoder"], "--threads", "1", "--json", "x/votes.json"])
    found = json.loads((folder / "x" / "votes.json").read_text())
    assert (found["comparisons"], found["refused"]["tie"]) == (9, 3)
    assert found["labels"]["agreement"] == {
        "pairs": 3,
        "agreement": {"value": 1, "low": 1, "high": 1},
        "ceiling": {"low": 1, "high": 1},
    }
    assert found["labels"]["position"]["first_chosen"]["value"] == 1


def test_wrong_arguments_end_in_a_line(models, folder):
    write_jsonl(folder / "a.jsonl", rows(3))
    for more, message in (
        (["--limit", "0"], "--limit: expected a number >= 1, got 0"),
        (["--json", "examine.html"], "--output and --json: the same file"),
        (["--models", "no/where/x"], "no/where/x: no such folder"),
        (["--models", models["decoder"], models["decoder"]], "one of them is named twice"),
        (["--models", models["encoder"], "--format", "concat"], "no EOS, which the format 'concat' needs"),
    ):
        with pytest.raises(UserError, match=message):
            cli.command(["examine", "a.jsonl", "--models", models["decoder"], "--threads", "1", *more])
    assert not (folder / "examine.html").exists()
