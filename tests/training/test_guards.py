"""SFT and reward training that really go wrong: broken weights, absurd rates, overflowing gradients."""

import json

import pytest
import torch

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy, new_reward_model
from minirlhf.reward_modeling.train import train_reward_model
from minirlhf.runtime.errors import TrainingError
from minirlhf.settings.params import parse_params
from minirlhf.training.sft import train_sft

POSTS = [{"prompt": f"post {index}", "completion": f" summary {index}"} for index in range(16)]
COMPARISONS = [{"prompt": f"post {index}", "chosen": " good", "rejected": f" bad {index}"} for index in range(16)]


def train(stage, model, tiny_models, settings, tmp_path, **changes):
    settings[stage] |= {"steps": 6, "log_every": 6, "eval_every": 6} | changes
    params = parse_params(json.dumps(settings), "params.yaml")
    function, rows = {"sft": (train_sft, POSTS), "reward": (train_reward_model, COMPARISONS)}[stage]
    return function(model, load_tokenizer(tiny_models / "sft"), rows, rows[:4], params, tmp_path)


def make(stage, tiny_models):
    return (load_policy if stage == "sft" else new_reward_model)(tiny_models / "sft")


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_shows_the_text(stage, tiny_models, settings, tmp_path):
    model = make(stage, tiny_models)
    with torch.no_grad():
        model.base_model.wpe.weight[3] = torch.inf
    with pytest.raises(TrainingError, match="^step 1: the loss is nan on a batch that begins with 'post "):
        train(stage, model, tiny_models, settings, tmp_path)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_weights_that_a_step_broke_stop_it_before_they_are_evaluated(stage, tiny_models, settings, tmp_path):
    model = make(stage, tiny_models)
    message = r"^step 1: the weights \S+ are no longer finite; try a lower learning_rate$"
    with pytest.raises(TrainingError, match=message):
        train(stage, model, tiny_models, settings, tmp_path, learning_rate=1e39, warmup_steps=0, eval_every=1)


def test_a_gradient_that_is_not_finite_is_never_stepped_with(tiny_models, settings, tmp_path):
    model = load_policy(tiny_models / "sft")
    before = model.lm_head.weight.detach().clone()
    model.lm_head.weight.register_hook(lambda gradient: gradient * 1e38 * 1e38)
    with pytest.raises(TrainingError, match="^step 1: the gradient of .* is not finite; try a lower learning_rate$"):
        train("sft", model, tiny_models, settings, tmp_path)
    assert torch.equal(model.lm_head.weight, before)


def test_a_high_but_finite_rate_is_no_error(tiny_models, settings, tmp_path):
    rows = train("sft", load_policy(tiny_models / "sft"), tiny_models, settings, tmp_path, learning_rate=0.1)
    assert [row["step"] for row in rows] == [6]
