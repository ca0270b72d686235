import json
import socket
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.evaluation.rouge import AnyScript, rouge
from tests.conftest import SHARED


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


SENTENCES = [
    "Моя кошка ушла во вторник",
    "我的猫星期二离开了",
    "私の猫は火曜日に出て行った",
    "früher wohnte er öfter an der Straße",
    "قطتي غادرت يوم الثلاثاء",
    "मेरी बिल्ली मंगलवार को चली गई",
    "แมวของฉันออกไปเมื่อวันอังคาร",
    "내 고양이가 화요일에 떠났다",
    "ο γάτος μου έφυγε",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_text_of_any_script_is_itself(text):
    decomposed = unicodedata.normalize("NFD", text)
    scores = rouge([text, text, text[: len(text) // 2]], [text, decomposed, text])
    for measure in ("rouge1", "rouge2", "rougeL"):
        assert scores[measure][:2].tolist() == [1.0, 1.0]
        assert 0 < scores[measure][2] < 1 or measure == "rouge2"


def test_words_of_another_script_count_whole():
    """früher is one word, not `fr` and `her`; Chinese is counted by the character, as it is written."""
    assert rouge(["früher"], ["fruher her fr"])["rouge1"].tolist() == [0.0]
    scores = rouge(["我的猫", "my 猫"], ["我的狗", "my 狗 dog"])
    assert scores["rouge1"].tolist() == pytest.approx([2 / 3, 2 * (1 / 2 * 1 / 3) / (1 / 2 + 1 / 3)])


@given(st.text(st.characters(max_codepoint=127)))
def test_words_in_ascii_are_those_of_rouge_score(text):
    from rouge_score.tokenizers import DefaultTokenizer

    assert AnyScript().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


def test_figures_of_real_english_summaries_are_those_of_rouge_score():
    path = SHARED / "data" / "tldr_preference" / "validation.jsonl"
    if not path.is_file():
        pytest.skip(f"real summaries are not at {path}")
    from rouge_score.rouge_scorer import RougeScorer

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:40]]
    rows = [row for row in rows if (row["chosen"] + row["rejected"]).replace("’", "'").isascii()]
    scores = rouge([row["rejected"] for row in rows], [row["chosen"] for row in rows])
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    theirs = [scorer.score(row["chosen"], row["rejected"]) for row in rows]
    for measure, ours in scores.items():
        assert ours.tolist() == [score[measure].fmeasure for score in theirs] and sum(ours) > 0
