import subprocess
import sys

import pytest
from pydantic import ValidationError

from minirlhf.ppo import PPOConfig


def test_sizes():
    config = PPOConfig(episodes=640, batch_size=64, ppo_epochs=4, minibatches=2)
    assert (config.updates, config.minibatch_size, config.optimizer_steps) == (10, 32, 80)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"episodes": 100, "batch_size": 64}, r"episodes \(100\) must be a multiple of batch_size \(64\)"),
        ({"minibatches": 3}, r"minibatches \(3\) must divide batch_size \(64\)"),
        ({"temperature": 0.0}, "temperature"),
        ({"kl_coefficient": 0.1}, "kl_coefficient"),
        ({"ppo_epochs": "4"}, "ppo_epochs"),
        ({"kl_estimator": "k2"}, "kl_estimator"),
        ({"lora": {"rank": 0}}, "rank"),
        ({"deliver": "best"}, "eval_every and kl_coef above 0"),
        ({"deliver": "best", "eval_every": 1, "kl_coef": 0.0}, "eval_every and kl_coef above 0"),
    ],
)
def test_refusals_name_the_setting(settings, message):
    with pytest.raises(ValidationError, match=message):
        PPOConfig(**settings)


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        PPOConfig().kl_coef = 1.0


def test_every_setting_is_described():
    assert all(field.description for field in PPOConfig.model_fields.values())


def test_needs_no_torch():
    code = "import sys; from minirlhf.ppo import PPOConfig; PPOConfig(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
