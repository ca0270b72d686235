import numpy as np
import pytest
from scipy.special import expit

from minirlhf.reward_modeling.weights import fit, held_out_losses, learn
from minirlhf.statistics.bootstrap import Bootstrap


def labelled(weights, count=4000, noise=0):
    """Differences whose labels follow Bradley and Terry with these weights; `noise` more columns say nothing."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(count, len(weights) + noise)) * [1.0, 5.0, *[1.0] * noise][: len(weights) + noise]
    first = rng.random(count) < expit(drawn[:, : len(weights)] @ weights)
    return drawn * np.where(first, 1, -1)[:, None]


def test_weights_that_made_the_labels_are_found():
    assert fit(labelled([1.0, -0.2])) == pytest.approx([1.0, -0.2], abs=0.06)


def test_a_difference_that_is_always_the_same_weighs_nothing():
    differences = labelled([1.0, -0.2])
    differences[:, 1] = 0.0
    assert fit(differences)[1] == 0.0


def test_held_out_loss_of_a_post_does_not_depend_on_its_own_labels():
    differences, posts = labelled([1.0, -0.2], 40), [f"post {row // 2}" for row in range(40)]
    other = differences.copy()
    other[:2] *= -1  # what the annotators said of the first post
    mean = differences[:2] @ fit(differences)  # only to know that the labels matter
    assert np.abs(mean).max() > 0
    first, second = held_out_losses(differences, posts), held_out_losses(other, posts)
    # log(1 + e^-m) and log(1 + e^m) differ by m, with the same weights in both.
    margins = second[:2] - first[:2]
    assert first[:2] == pytest.approx(np.logaddexp(0, -margins))


class Told:
    """A likelihood that knows the answer, or nothing."""

    def __init__(self, surprised):
        self.surprised = surprised

    def logprobs(self, prompts, responses, ended):
        return [np.array([-9.0 if self.surprised(text) else -1.0]) for text in responses]


ROWS = [
    {"prompt": f"p{n}", "chosen": f" good {n}", "rejected": f" evil {n}"} if n % 5 else
    {"prompt": f"p{n}", "chosen": f" evil {n}", "rejected": f" good {n}"} for n in range(300)
]  # fmt: skip


def scored(prompts, responses):
    """A reward that says what the label says, with less sureness than it deserves, and some noise."""
    pairs = zip(prompts, responses, strict=True)
    return [0.1 * text.startswith(" good") + 0.01 * (7 * int(prompt[1:]) % 10) for prompt, text in pairs]


def test_a_likelihood_that_tells_helps():
    def of_every_third_post(prompts, responses):
        pairs = zip(prompts, responses, strict=True)
        return [float(text.startswith(" good") and int(prompt[1:]) % 3 == 0) for prompt, text in pairs]

    found = learn(of_every_third_post, Told(lambda text: "evil" in text), ROWS, Bootstrap(0, 200))
    assert found.helps and found.weights["below -8"] < 0


def test_a_likelihood_that_tells_nothing_is_left_out():
    blind = learn(scored, Told(lambda text: False), ROWS, Bootstrap(0, 200))
    assert not blind.helps and set(blind.weights.values()) == {0.0}
    assert blind.scale < 0.1 / 1.0  # a tenth of a point is more than one of log-odds: four fifths are right
