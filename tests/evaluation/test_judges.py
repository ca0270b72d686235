from types import SimpleNamespace

from minirlhf.evaluation.judges import judge_names


def test_gold_decides_before_a_named_judge_and_that_before_the_training_reward():
    named = SimpleNamespace(name="another/reward-model")
    assert list(judge_names(True, named)) == ["gold", "judge", "reward"]
    assert judge_names(False, named) == {"judge": "another/reward-model", "reward": "training reward"}
    assert judge_names(False, None) == {"reward": "training reward"}
