import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.ppo import PPOConfig
from minirlhf.ppo.advantages import (
    adapted_kl_coef,
    explained_variance,
    generalized_advantages,
    kl_per_token,
    leave_one_out,
    token_rewards,
    whiten,
)
from minirlhf.ppo.trajectory import mask_of


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, torch.as_tensor(expected), **tolerance)


def test_generalized_advantages_by_hand():
    """Three tokens, then two; gamma 0.5, lambda 0.8, so gamma x lambda = 0.4."""
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.0, 4.0, 99.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 2.0, 99.0]])
    advantages, returns = generalized_advantages(rewards, values, mask_of(torch.tensor([3, 2]), 3), 0.5, 0.8)
    # First row: delta_2 = 2 - 1.5 = 0.5; delta_1 = 0 + 0.75 - 1 = -0.25; delta_0 = 1 + 0.5 - 0.5 = 1
    #   A_2 = 0.5; A_1 = -0.25 + 0.4 x 0.5 = -0.05; A_0 = 1 + 0.4 x -0.05 = 0.98
    # Second row: delta_1 = 4 - 2 = 2; delta_0 = 0 + 1 - 1 = 0; A_1 = 2; A_0 = 0.8
    close(advantages, [[0.98, -0.05, 0.5], [0.8, 2.0, 0.0]])
    close(returns, [[1.48, 0.95, 2.0], [1.8, 4.0, 0.0]])


@given(
    st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=6), min_size=1, max_size=4),
    st.floats(0.1, 1.0),
    st.floats(0.0, 1.0),
)
def test_generalized_advantages_are_sums_of_discounted_residuals(rows, gamma, lam):
    """A_t = sum_k (gamma lambda)^k delta_{t+k}, a row at a time, whatever the padding holds."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max()) + 2
    rewards = torch.full((len(rows), width), 7.0, dtype=torch.float64)
    for index, row in enumerate(rows):
        rewards[index, : len(row)] = torch.tensor(row)
    values = torch.sin(rewards * 3 + torch.arange(width))
    advantages, returns = generalized_advantages(rewards, values, mask_of(lengths, width), gamma, lam)
    for index, row in enumerate(rows):
        v = [*values[index, : len(row)].tolist(), 0.0]
        deltas = [row[t] + gamma * v[t + 1] - v[t] for t in range(len(row))]
        for t in range(len(row)):
            expected = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
            assert advantages[index, t].item() == pytest.approx(expected, abs=1e-6)
            assert returns[index, t].item() == pytest.approx(expected + v[t], abs=1e-6)
        assert advantages[index, len(row) :].eq(0).all()


def test_leave_one_out_by_hand():
    """Two prompts of two episodes, then one of three; what stands in the padding counts for nothing."""
    rewards = torch.tensor([[1.0, 2.0], [5.0, 9.0], [0.0, 4.0], [-1.0, 9.0]])
    mask = mask_of(torch.tensor([2, 1, 2, 1]), 2)
    close(leave_one_out(rewards, mask, 2).masked_fill(~mask, 0), [[1.0, -3.0], [2.0, 0.0], [0.0, 5.0], [-5.0, 0.0]])
    three = torch.tensor([[1.0], [2.0], [6.0]])
    close(leave_one_out(three, mask_of(torch.tensor([1, 1, 1]), 1), 3), [[-3.0], [-1.5], [4.5]])


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.lists(st.floats(-50, 50), min_size=2, max_size=2))
def test_leave_one_out_forgets_the_level_of_a_prompt(rewards, levels):
    """Whatever is added to all episodes of a prompt; and a prompt's episodes come to 0 together."""
    mask = mask_of(torch.ones(6, dtype=torch.long), 1)
    given_rewards = torch.tensor(rewards, dtype=torch.float64)[:, None]
    shifted = given_rewards + torch.tensor(levels, dtype=torch.float64).repeat_interleave(3)[:, None]
    found = leave_one_out(given_rewards, mask, 3)
    close(leave_one_out(shifted, mask, 3), found, rtol=0, atol=1e-9)
    close(found.view(2, 3).sum(1), [0.0, 0.0], rtol=0, atol=1e-9, check_dtype=False)


def test_leave_one_out_needs_others():
    with pytest.raises(ValueError, match="samples_per_prompt above 1"):
        PPOConfig(leave_one_out=True)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("length", [2, 4])
def test_credit_lands_on_the_last_generated_token(length, ended):
    """Defects 2 and 5: on EOS and on the last token of a cut response alike, with no extra factor lambda."""
    scores = torch.zeros(1, 4)
    scores[0, length - 1] = 5.0
    mask = mask_of(torch.tensor([length]), 4)
    rewards = token_rewards(scores, torch.zeros(1, 4), torch.tensor([ended]), mask, 0.1, 0.0)
    advantages, _ = generalized_advantages(rewards, torch.zeros(1, 4), mask, 1.0, 0.5)
    close(advantages[0, :length], [5.0 * 0.5 ** (length - 1 - t) for t in range(length)])
    assert advantages[0, length:].eq(0).all()


def test_the_eos_penalty_is_subtracted_from_the_score():
    """Defect 4: it does not replace it."""
    scores = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    kl = torch.tensor([[0.5, 1.0, 9.0], [0.0, 0.5, 1.0]])
    mask = mask_of(torch.tensor([2, 3]), 3)
    rewards = token_rewards(scores, kl, torch.tensor([True, False]), mask, kl_coef=0.1, missing_eos_penalty=1.0)
    close(rewards, [[-0.05, 2.9, 0.0], [0.0, -0.05, 3.0 - 1.0 - 0.1]])


def test_kl_estimators_by_hand():
    logprobs, reference = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
    close(kl_per_token(logprobs, reference, "k1"), [math.log(2), -math.log(2)])
    close(kl_per_token(logprobs, reference, "k3"), [0.5 - 1 + math.log(2), 2 - 1 - math.log(2)])


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_kl_estimators_have_the_kl_as_their_mean(policy, reference):
    p = torch.log_softmax(torch.tensor(policy, dtype=torch.float64), 0)
    q = torch.log_softmax(torch.tensor(reference, dtype=torch.float64), 0)
    exact = (p.exp() * (p - q)).sum().item()
    for estimator in ("k1", "k3"):
        assert (p.exp() * kl_per_token(p, q, estimator)).sum().item() == pytest.approx(exact, abs=1e-9)
    assert kl_per_token(p, q, "k3").ge(-1e-12).all()


def test_whitening():
    """Defect 13: shift_mean=True centres the values, False keeps their mean."""
    values = torch.tensor([[1.0, 2.0, 77.0], [6.0, 77.0, 77.0]])
    mask = mask_of(torch.tensor([2, 1]), 3)
    # mean 3, unbiased variance ((-2)^2 + (-1)^2 + 3^2) / 2 = 7
    expected = torch.tensor([[-2.0, -1.0, 0.0], [3.0, 0.0, 0.0]]) / math.sqrt(7)
    close(whiten(values, mask), expected)
    close(whiten(values, mask, shift_mean=False), (expected + 3.0).masked_fill(~mask, 0))
    assert whiten(values, mask)[mask].mean().abs() < 1e-6


def test_whitening_of_one_or_of_equal_values_is_finite():
    one = torch.ones(1, 1, dtype=torch.bool)
    assert torch.isfinite(whiten(torch.tensor([[3.0]]), one)).all()
    assert torch.isfinite(whiten(torch.full((2, 2), 3.0), torch.ones(2, 2, dtype=torch.bool))).all()


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1.0)
    assert explained_variance(torch.zeros(3), returns) == pytest.approx(0.0)
    assert explained_variance(torch.zeros(3), torch.ones(3)) == 0.0


def test_adaptive_kl_coefficient():
    config = PPOConfig(batch_size=64, adaptive_kl_target=6.0, adaptive_kl_horizon=640)
    assert adapted_kl_coef(0.1, 6.0, config) == pytest.approx(0.1)
    assert adapted_kl_coef(0.1, 6.6, config) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert adapted_kl_coef(0.1, 60.0, config) == pytest.approx(0.1 * (1 + 0.2 * 0.1))  # the error is clipped
    assert adapted_kl_coef(0.1, -9.0, config) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
    assert adapted_kl_coef(0.1, 60.0, PPOConfig()) == 0.1
