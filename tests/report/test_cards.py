import json
import re

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from minirlhf.report.alarms import run_checks
from minirlhf.report.cards import code, front_matter, write_cards
from minirlhf.report.inputs import read_inputs

EMBEDDED = {
    "posts": {"kind": "embedded"},
    "comparisons": {"kind": "embedded"},
    "base": {"kind": "folder", "name": "models/base", "sha256": "a1b2"},
    "reward": {"kind": "trained"},
}
HUB = {
    "posts": {"kind": "hub", "name": "trl-lib/tldr", "commit": "c0"},
    "comparisons": {"kind": "hub", "name": "trl-lib/tldr-preference", "commit": "c1"},
    "base": {"kind": "hub", "name": "openai-community/gpt2", "commit": "c2"},
    "reward": {"kind": "hub", "name": "OpenAssistant/deberta", "commit": "c3"},
}
NASTY = 'x"\n---\nlicense: "gpl`` `\n```\n| a | <script>alert(1)</script>: [*'


def cards_of(inputs, settings, sources=EMBEDDED):
    return write_cards(inputs, run_checks(inputs), settings, sources, {"torch": "2.8"})


@pytest.fixture
def truthless(real):
    return read_inputs(real / "details", real / "metrics" / "seeds.csv")


def test_the_front_matter_is_the_hubs(inputs, settings):
    cards = {name: ModelCard(text).data.to_dict() for name, text in cards_of(inputs, settings).items()}
    assert list(cards) == ["sft", "reward", "ppo"]
    assert {card["library_name"] for card in cards.values()} == {"transformers"}
    assert {card["license"] for card in cards.values()} == {"mit"}
    assert [cards[name]["pipeline_tag"] for name in cards] == ["text-generation", "text-classification",
                                                               "text-generation"]  # fmt: skip
    assert not any("base_model" in card or "datasets" in card for card in cards.values())


def test_what_is_on_the_hub_is_linked(truthless, settings):
    texts = cards_of(truthless, settings, HUB)
    cards = {name: ModelCard(text).data for name, text in texts.items()}
    assert cards["sft"].base_model == cards["ppo"].base_model == "openai-community/gpt2"
    assert cards["reward"].base_model == "OpenAssistant/deberta" and cards["reward"].datasets is None
    assert cards["ppo"].datasets == ["trl-lib/tldr", "trl-lib/tldr-preference"]
    assert {card.license for card in cards.values()} == {"unknown"}
    assert "`openai-community/gpt2` at commit `c2`" in texts["sft"] and "holds no weights" in texts["reward"]
    settings["model"]["random_weights"] = {"n_layer": 2}
    sft = cards_of(truthless, settings, HUB)["sft"]
    assert ModelCard(sft).data.base_model is None and "random weights in the architecture of `openai" in sft


def test_a_reward_model_from_another_base_says_so(truthless, settings):
    settings["reward"]["base"] = "nreimers/MiniLM"
    minilm = {"kind": "hub", "name": "nreimers/MiniLM", "commit": "c4"}
    text = cards_of(truthless, settings, HUB | {"reward": minilm})["reward"]
    card = ModelCard(text).data
    assert card.base_model == "nreimers/MiniLM" and card.datasets == ["trl-lib/tldr", "trl-lib/tldr-preference"]
    assert "`nreimers/MiniLM` at commit `c4` with a head that gives one score, trained on comparisons" in text
    assert "| reward model | trained here, from `nreimers/MiniLM` at commit `c4` |" in text
    assert "holds no weights" not in text


def test_the_numbers_are_those_that_were_measured(inputs, settings):
    cards = cards_of(inputs, settings)
    for name in ("sft", "ppo"):
        row = inputs.measure(name, "gold")
        assert f"| gold score | {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |" in cards[name]
    assert "| accuracy on held-out comparisons | 0.700 (0.600 to 0.800) |" in cards["reward"]
    assert "| wrong facts | 80.0% (70.0% to 90.0%) | 0.50 (0.40 to 0.60) | 2.00 |" in cards["reward"]
    assert "| ppo.kl_coef | `0.05` |" in cards["ppo"] and "| sft.steps |" not in cards["ppo"]
    assert all("torch 2.8." in card and "nan" not in card.lower() for card in cards.values())


def test_another_judge_is_named_with_its_scores(request, settings):
    cards = {}
    for results in ("scored", "compared"):
        folder = request.getfixturevalue(results)
        inputs = read_inputs(folder / "details", folder / "metrics" / "seeds.csv")
        cards[results] = cards_of(inputs, settings, HUB)
    for name in ("sft", "ppo"):
        assert "| score by models/own/another-reward-model, in its own units | " in cards["scored"][name]
        assert "score by" not in cards["compared"][name]  # it gives none
    assert " by models/own/another-reward-model, the authors' " in cards["scored"]["sft"]
    assert re.search(r"beat the authors' \d+% \(.*\) of the time by judge-7b\.", cards["compared"]["sft"])
    assert "| win rate against SFT, by judge-7b | " in cards["compared"]["ppo"]


def test_limits_follow_from_what_was_measured(inputs, truthless, settings):
    assert "sees every fault" in cards_of(inputs, settings)["reward"]
    for row in inputs.plots["reward_probes"]:
        if row["probe"] == "misread":
            row |= {"value": 0.5, "low": 0.4, "high": 0.6}
    inputs.metrics["ppo"]["stopped"] = "KL above its ceiling"
    inputs.metrics["reward"]["reward_length"]["longer_by_model"] = {"value": 0.95, "low": 0.9, "high": 0.99}
    cards = cards_of(inputs, settings)
    assert "blind to misread facts" in cards["reward"] and "blind to misread facts" in cards["ppo"]
    assert "the longer summary more often than the annotators: 95% (90% to 99%)" in cards["reward"]
    assert "KL above its ceiling" in cards["ppo"]
    assert "not known: that needs posts with a known truth" in cards_of(truthless, settings, HUB)["reward"]
    assert "shows optimization, not quality" in cards_of(truthless, settings, HUB)["ppo"]


def test_text_of_params_and_names_breaks_nothing(inputs, settings):
    settings["model"]["base"] = settings["data"]["posts"] = settings["reward"]["pretrained"] = NASTY
    sources = {key: {"kind": "hub", "name": NASTY, "commit": NASTY} for key in HUB}
    inputs.metrics["ppo"]["stopped"] = NASTY
    for text in cards_of(inputs, settings, sources).values():
        _, front, body = text.split("---\n", 2)
        fields = YAML(typ="safe").load(front)
        assert fields["license"] == "unknown" and fields["base_model"] == NASTY
        assert ModelCard(text).data.base_model == NASTY
        fences = [line for line in body.splitlines() if line.startswith("```")]
        assert fences == ["```python", "```"]
        assert not any(line.startswith("license") for line in body.splitlines())


@pytest.mark.parametrize("text", ["no", "0x10", "a: b", "#", "\u0085\u2028\x7f", "\N{GRINNING FACE}"])
def test_any_text_survives_the_front_matter(text):
    written = front_matter({"base_model": text, "tags": [text]})
    assert YAML(typ="safe").load(written) == {"base_model": text, "tags": [text]}
    assert written.count("\n") == 3


def test_code_holds_backticks():
    assert (code("a"), code("a`b"), code("``"), code("a\nb"), code("")) == ("`a`", "``a`b``", "``` `` ```", "`a b`", "")


def test_no_date_and_no_place_of_this_machine(inputs, settings, tmp_path):
    settings["model"]["base"] = settings["reward"]["pretrained"] = str(tmp_path / "gpt2")
    sources = EMBEDDED | {key: {"kind": "folder", "name": str(tmp_path / "gpt2"), "sha256": "d4"}
                          for key in ("base", "reward")}  # fmt: skip
    inputs.metrics["ppo"]["stopped"] = f"see {tmp_path}/log"
    cards = cards_of(inputs, settings, sources)
    assert cards == cards_of(inputs, settings, sources)
    for text in cards.values():
        assert str(tmp_path) not in text and not re.search(r"\b20\d\d-\d\d", text)
    assert "`gpt2` with SHA-256 `d4`" in cards["sft"]


@pytest.mark.parametrize("name", ["sft", "reward", "ppo"])
def test_the_lines_that_load_a_model_do(inputs, settings, tiny_models, tmp_path, monkeypatch, name):
    (tmp_path / "models").symlink_to(tiny_models)
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```python\n(.*?)```", cards_of(inputs, settings)[name], re.DOTALL).group(1)
    assert lines.count("\n") == 3
    found = {}
    exec(lines, found)
    assert len(found["scores"]) == 1 if name == "reward" else found["model"].config.model_type == "gpt2"


def test_settings_are_shown_as_they_stand(inputs, settings):
    shown = dict(re.findall(r"^\| ([\w.]+) \| `([^`]*)` \|$", cards_of(inputs, settings)["sft"], re.MULTILINE))
    assert shown["seed"] == "1" and shown["data.max_posts"] == json.dumps(settings["data"]["max_posts"])
    assert shown["model.revision"] == "null"
