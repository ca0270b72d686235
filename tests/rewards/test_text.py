import math

import numpy as np
import pytest
import torch

from minirlhf.rewards.text import RewardError, call_reward

PROMPTS, RESPONSES, ENDED, IDS = ["p one", "p two"], [" r one", " r two"], [True, False], [[1, 2, 3], [4, 5]]


def call(reward):
    return call_reward(reward, PROMPTS, RESPONSES, ENDED, IDS)


@pytest.mark.parametrize("scores", [[1, 2.5], (1, 2.5), torch.tensor([1, 2.5]), np.array([1, 2.5])])
def test_scores_may_be_a_list_a_tensor_or_an_array(scores):
    assert call(lambda prompts, responses: scores) == [1, 2.5]


def test_optional_inputs_are_passed_to_those_that_name_them():
    def both(prompts, responses, ended, response_ids):
        assert (prompts, responses, ended, response_ids) == (PROMPTS, RESPONSES, ENDED, IDS)
        return [0.0, 0.0]

    class Stopped:
        def __call__(self, prompts, responses, *, ended):
            return [float(flag) for flag in ended]

    call(both)
    assert call(Stopped()) == [1.0, 0.0]
    assert call(lambda prompts, responses, **everything: [len(everything), 0]) == [2, 0]


def test_a_score_a_token():
    assert call(lambda prompts, responses, response_ids: [[1.0, 2.0, 3.0], torch.tensor([4.0, 5.0])]) == [
        [1, 2, 3],
        [4, 5],
    ]


def raises(prompts, responses):
    raise KeyError("lost")


@pytest.mark.parametrize(
    "reward, message",
    [
        (raises, r"reward raises raised KeyError\('lost'\).*' r one'"),
        (lambda prompts, responses: [1.0], "1 scores for 2 responses.*' r one'"),
        (lambda prompts, responses: [1.0, math.nan], "returned nan for response ' r two' to prompt 'p two'"),
        (lambda prompts, responses: [math.inf, 1.0], "returned inf for response ' r one'"),
        (lambda prompts, responses: [None, 1.0], "returned None for response ' r one'"),
        (lambda prompts, responses: ["1", 1.0], "returned '1' for response ' r one'"),
        (lambda prompts, responses: 1.0, "returned float, not a list"),
        (lambda prompts, responses: torch.zeros(2, 1), "only one that takes response_ids may"),
        (
            lambda prompts, responses, response_ids: [[1.0], [1.0, 2.0]],
            "1 scores for the 3 tokens of response ' r one'",
        ),
        (lambda prompts, responses, response_ids: [[1.0, 2.0, math.nan], [1.0, 2.0]], "returned nan"),
        (lambda prompts, responses, response_ids: [1.0, [1.0, 2.0]], "mixes"),
    ],
)
def test_what_is_no_score_is_refused_with_the_text_at_fault(reward, message):
    with pytest.raises(RewardError, match=message):
        call(reward)


def test_the_function_cannot_change_the_trainers_lists():
    def greedy(prompts, responses):
        prompts.clear()
        responses.clear()
        return [0.0, 0.0]

    call(greedy)
    assert PROMPTS == ["p one", "p two"] and RESPONSES == [" r one", " r two"]
