import math

import numpy as np
import pytest
import torch

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy
from minirlhf.rewards.likelihood import FEATURES, Likelihood, describe
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json, write_json
from minirlhf.text.prompts import encode

PROMPTS, RESPONSES, ENDED = ["a post TL;DR:", "another TL;DR:"], [" my cat left", " my"], [True, False]


@pytest.fixture
def likelihood(tiny_models):
    return Likelihood.load(tiny_models / "sft")


def test_log_probabilities_are_the_models_own(likelihood, tiny_models):
    """Token by token from the logits of the whole text, EOS only where the response ended."""
    model, tokenizer = load_policy(tiny_models / "sft").eval(), load_tokenizer(tiny_models / "sft")
    found = likelihood.logprobs(PROMPTS, RESPONSES, ENDED)
    for prompt, response, ended, logprobs in zip(PROMPTS, RESPONSES, ENDED, found, strict=True):
        before = encode(tokenizer, prompt)
        after = encode(tokenizer, response) + [tokenizer.eos_token_id] * ended
        with torch.no_grad():
            expected = model(torch.tensor([before + after])).logits[0].double().log_softmax(-1)
        wanted = [expected[len(before) + at - 1, token].item() for at, token in enumerate(after)]
        assert logprobs == pytest.approx(wanted, abs=1e-4)


def test_features_by_hand_and_of_nothing():
    assert describe(np.array([-1.0, -2.5, -9.0])).tolist() == [-12.5, 2, 1, 1, 1, 1, 1]
    assert describe(np.array([])).tolist() == [0.0] * len(FEATURES)


def test_a_call_weighs_the_features_that_are_named(tiny_models):
    weighed = Likelihood.load(tiny_models / "sft", {"total": 0.5, "below -2": -1.0})
    rows = [describe(row) for row in weighed.logprobs(PROMPTS, RESPONSES, ENDED)]
    assert weighed(PROMPTS, RESPONSES, ENDED) == pytest.approx([0.5 * row[0] - row[1] for row in rows])


def test_a_reward_model_adds_it_to_its_own_score_before_it_is_scaled(tiny_models, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_models / "reward", tmp_path / "reward")
    shutil.copytree(tiny_models / "sft", folder / "likelihood")
    weights = {"total": 0.1}
    note = {"format": "concat", "mean": 0.0, "scale": 1.0}
    write_json(folder / "reward.json", note)
    alone = RewardModel.load(folder)(PROMPTS, RESPONSES, ENDED)
    write_json(folder / "reward.json", note | {"mean": 2.0, "scale": 4.0, "likelihood": weights})
    both = RewardModel.load(folder)(PROMPTS, RESPONSES, ENDED)
    added = Likelihood.load(tiny_models / "sft", weights)(PROMPTS, RESPONSES, ENDED)
    assert both == pytest.approx([(one + more - 2.0) / 4.0 for one, more in zip(alone, added, strict=True)], rel=1e-5)
    assert math.isfinite(sum(both)) and read_json(folder / "reward.json")["scale"] == 4.0
    shutil.rmtree(folder / "likelihood")
    with pytest.raises(UserError, match="no folder likelihood in it, which its reward.json weighs"):
        RewardModel.load(folder)
