"""`minirlhf follow` on tiny models, and the page that it made of the embedded ones, which is in docs/."""

import json
import re

import pytest

from minirlhf.commands.follow import follow
from minirlhf.runtime.files import write_jsonl
from minirlhf.settings.params import parse_params
from minirlhf.world import posts
from tests.pipelines import ROOT

KEPT = ROOT / "docs" / "follow.md"


def table(page: str) -> dict[str, list[float]]:
    """The columns of numbers of the table of tokens."""
    [rows] = re.findall(r"^(\| token .*?)\n\n", page, re.MULTILINE | re.DOTALL)
    head, _, *lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in rows.splitlines()]
    return {name.strip(): [float(line[at]) for line in lines] for at, name in enumerate(head) if at}


def check(page: str) -> None:
    """The page's own numbers agree with each other, to the digits that it shows."""
    columns = table(page)
    count = len(columns["log p"])
    [stated] = re.findall(r"maximises is (\S+) - (\S+) \(no EOS\) - (\S+) x (\S+) \(KL, nats\) = (-?[\d.]+)\.", page)
    score, penalty, kl_coef, kl, total = map(float, stated)
    rounding = 0.0006 * count + 0.001
    assert total == pytest.approx(score - penalty - kl_coef * kl, abs=rounding)
    assert sum(columns["KL"]) == pytest.approx(kl, abs=rounding)
    assert sum(columns["reward"]) == pytest.approx(total, abs=rounding)
    for before, reference, each in zip(columns["log p"], columns["reference"], columns["KL"], strict=True):
        assert before - reference == pytest.approx(each, abs=0.002)


@pytest.fixture
def params(settings):
    settings["ppo"] |= {"episodes": 16, "batch_size": 8, "max_new_tokens": 6, "learning_rate": 1e-2, "eval_every": 1}
    return parse_params(json.dumps(settings), "params.yaml")


def test_one_prompt_is_followed(params, tiny_models, tmp_path):
    write_jsonl(tmp_path / "train.jsonl", posts(1, "train", 8))
    page = follow(params, tmp_path, tiny_models / "sft", tiny_models / "reward", updates=1)
    check(page)
    assert any(ratio != 1 for ratio in table(page)["ratio"]) and any(table(page)["value"])


@pytest.mark.skipif(not KEPT.exists(), reason="minirlhf follow > docs/follow.md has not been run")
def test_the_page_in_docs_agrees_with_itself():
    check(KEPT.read_text())
