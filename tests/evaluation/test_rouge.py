import socket

import pytest

from minirlhf.evaluation.rouge import rouge


def test_hand_counted_example(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("ROUGE reached for the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    # 3 of 4 and 3 of 6 words shared: F = 2 * (3/4 * 3/6) / (3/4 + 3/6) = 0.6; bigrams "the cat": 1 of 3 and 1
    # of 5; longest common subsequence "the cat mat": 3.
    scores = rouge(["the cat ate mat", "dogs", ""], ["the cat is on a mat", "dog", "something"])
    assert scores["rouge1"].tolist() == pytest.approx([0.6, 1.0, 0.0])  # stemming: dogs = dog
    assert scores["rouge2"].tolist() == pytest.approx([2 * (1 / 3 * 1 / 5) / (1 / 3 + 1 / 5), 0.0, 0.0])
    assert scores["rougeL"].tolist() == pytest.approx([0.6, 1.0, 0.0])
