import pytest

from minirlhf.rewards.combine import Ensemble, WeightedSum
from minirlhf.rewards.text import RewardError, call_reward
from minirlhf.runtime.errors import UserError


def length(prompts, responses):
    return [float(len(response)) for response in responses]


def stopped(prompts, responses, ended):
    return [2.0 * flag for flag in ended]


def per_token(prompts, responses, response_ids):
    return [[1.0] * len(ids) for ids in response_ids]


ARGUMENTS = (["p", "q"], ["abc", "a"], [True, False], [[1, 2], [3, 4, 5, 6]])


def test_weighted_sum_of_functions_with_different_signatures():
    reward = WeightedSum((length, 0.5), (stopped, -1.0), (per_token, 10.0))
    assert call_reward(reward, *ARGUMENTS) == [1.5 - 2.0 + 20.0, 0.5 + 40.0]


@pytest.mark.parametrize(
    "how, expected", [("mean", [2.5, 0.5]), ("min", [2.0, 0.0]), ("mean_minus_std", [2.5 - 2 * 0.5, 0.5 - 2 * 0.5])]
)
def test_ensembles(how, expected):
    assert call_reward(Ensemble([length, stopped], how, k=2.0), *ARGUMENTS) == pytest.approx(expected)


def test_an_error_names_the_member():
    def broken(prompts, responses):
        return [float("nan")] * len(responses)

    with pytest.raises(RewardError, match="reward broken returned nan"):
        call_reward(Ensemble([length, broken]), *ARGUMENTS)


def test_refusals():
    with pytest.raises(UserError, match="at least one"):
        Ensemble([])
    with pytest.raises(UserError, match="how is 'max'"):
        Ensemble([length], how="max")
