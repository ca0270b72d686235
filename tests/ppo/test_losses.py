import math

import pytest
import torch

from minirlhf.ppo.losses import policy_losses, policy_statistics, value_losses, value_statistics


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected))


# ratio, advantage, loss and d loss / d logprob at clip range 0.2. Where the clipped term rules, the gradient is 0.
POLICY = [
    (1.0, 2.0, -2.0, -2.0),  # inside
    (1.1, 2.0, -2.2, -2.2),
    (1.5, 2.0, -2.4, 0.0),  # too likely already, and it was good: nothing more to gain
    (0.5, 2.0, -1.0, -1.0),  # less likely although it was good: full gradient back
    (1.5, -2.0, 3.0, 3.0),  # more likely although it was bad: full gradient back
    (0.5, -2.0, 1.6, 0.0),  # unlikely already, and it was bad
]


@pytest.mark.parametrize("ratio, advantage, loss, gradient", POLICY)
def test_policy_loss_by_hand(ratio, advantage, loss, gradient):
    old = torch.tensor([-1.5], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_()
    losses = policy_losses(logprobs, old, torch.tensor([advantage], dtype=torch.float64), 0.2)
    losses.sum().backward()
    assert losses.item() == pytest.approx(loss)
    assert logprobs.grad.item() == pytest.approx(gradient)


# value, old value, return, loss and d loss / d value at clip range 0.5
VALUE = [
    (1.2, 1.0, 2.0, 0.5 * 0.8**2, -0.8),  # inside
    (1.8, 1.0, 3.0, 0.5 * 1.5**2, 0.0),  # clipped to 1.5, which is worse: no gradient towards the return
    (3.0, 1.0, 0.0, 0.5 * 3.0**2, 3.0),  # moved away from the return: full gradient back
    (0.0, 1.0, 0.25, 0.5 * 0.25**2, 0.0),  # clipped to 0.5, as far from the return
]


@pytest.mark.parametrize("value, old, target, loss, gradient", VALUE)
def test_value_loss_by_hand(value, old, target, loss, gradient):
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    losses = value_losses(values, torch.tensor([old]).double(), torch.tensor([target]).double(), 0.5)
    losses.sum().backward()
    assert losses.item() == pytest.approx(loss)
    if value != 0.0:  # at a tie the gradient is any mixture of the two
        assert values.grad.item() == pytest.approx(gradient)


def test_statistics_by_hand():
    ratios = torch.tensor([row[0] for row in POLICY], dtype=torch.float64)
    advantages = torch.tensor([row[1] for row in POLICY], dtype=torch.float64)
    values = torch.tensor([1.2, 1.8, 3.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    old_values = torch.ones(6, dtype=torch.float64)
    returns = torch.tensor([2.0, 3.0, 0.0, 0.25, 1.0, 9.0], dtype=torch.float64)
    seen = policy_statistics(ratios.log(), torch.zeros(6), advantages, 0.2)
    seen |= value_statistics(values, old_values, returns, 0.5)
    close(seen["ratio"], ratios.sum())
    close(seen["approx_kl"], (ratios - 1 - ratios.log()).sum())
    assert seen["clip_fraction"] == 2 and seen["value_clip_fraction"] == 1
