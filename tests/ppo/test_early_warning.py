"""The alarm that rings while PPO trains: by hand, and in a run that is over-optimized on purpose."""

import pytest

from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.ppo.early_warning import EPISODES, KL, Alarm, first_alarm
from tests.ppo.conftest import count_w7, make_policy

SETTINGS = {"episodes": 32 * 12, "batch_size": 32, "max_new_tokens": 8, "ppo_epochs": 2, "kl_coef": 0.0}


def history(values, batch_size=64):
    rows = [{"update": 0, "episodes": 0, "eval_kl": 0.0}]  # the evaluation before the first
    return rows + [
        {"update": number, "episodes": number * batch_size, "kl": value} for number, value in enumerate(values, 1)
    ]


def test_it_rings_at_the_first_update_that_is_so_far_away():
    assert EPISODES == 64
    assert first_alarm([], 64) is None and first_alarm(history([0.0, KL - 0.01]), 64) is None
    found = first_alarm(history([0.0, 5.0, KL, KL + 9, 1.0]), 64)
    assert found == Alarm(3, 192, KL)
    assert str(found).startswith(f"alarm at update 3 (192 episodes): KL {KL:.3g} nats a response; from {KL:g} on, ")


def test_it_listens_to_as_many_episodes_whatever_the_batch():
    assert first_alarm(history([0.0, KL], 512), 512).episodes == 1024
    few = history([0.0] * 4 + [KL + 3, KL + 3, KL - 3], 16)
    assert first_alarm(few, 16) is None  # four updates are a mean
    found = first_alarm([*few, {"update": 8, "episodes": 128, "kl": KL - 2}], 16)
    assert found == Alarm(8, 128, pytest.approx(KL + 0.25))


def trainer(tokenizer, prompts, folder=None, **changes):
    config = PPOConfig(**{**SETTINGS, "learning_rate": 2e-2, **changes})
    options = {"folder": folder, "resume_minutes": 0, "device": "cpu"}
    policy = make_policy(initializer_range=0.4)  # sure of what it says, so that w7 is far from it
    return PPOTrainer(config, policy, tokenizer, count_w7, prompts, **options)


def test_a_run_says_so_and_stops_where_asked(tokenizer, prompts, capsys):
    told = trainer(tokenizer, prompts)
    rows = told.train()
    assert told.warning.alarm is not None and told.stopped is None and len(rows) == 12
    assert told.warning.alarm == first_alarm(rows, 32) and told.warning.alarm.update < 12
    assert capsys.readouterr().err.count(f"ppo: {told.warning.alarm}\n") == 1

    stopped = trainer(tokenizer, prompts, stop_on_alarm=True)
    assert stopped.train() == rows[: told.warning.alarm.update]
    assert stopped.warning.alarm == told.warning.alarm and stopped.stopped == f"stop_on_alarm: {told.warning.alarm}"


def test_a_healthy_run_does_not_ring(tokenizer, prompts, capsys):
    healthy = trainer(tokenizer, prompts, learning_rate=1e-4, kl_coef=0.2, stop_on_alarm=True)
    assert len(healthy.train()) == 12 and healthy.warning.alarm is None and healthy.stopped is None
    assert "alarm" not in capsys.readouterr().err


def test_the_progress_says_since_when(tokenizer, prompts, capsys, monkeypatch):
    monkeypatch.setattr("minirlhf.runtime.progress.Progress.__init__.__defaults__", (0.0,))
    trainer(tokenizer, prompts).train()
    first, *_, last = [line for line in capsys.readouterr().err.splitlines() if "episodes/s" in line]
    assert "alarm" not in first and ", alarm at update " in last


def test_a_run_that_goes_on_has_rung_already(tokenizer, prompts, tmp_path, capsys):
    class Killed(Exception):
        pass

    first = trainer(tokenizer, prompts, tmp_path)

    def kill(row):
        if first.warning.alarm is not None:
            raise Killed

    first.callbacks = [kill]
    with pytest.raises(Killed):
        first.train()
    assert capsys.readouterr().err.count("ppo: alarm at update") == 1
    again = trainer(tokenizer, prompts, tmp_path)
    again.train()
    assert again.warning.alarm == first.warning.alarm and "ppo: alarm at update" not in capsys.readouterr().err
