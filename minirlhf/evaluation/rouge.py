"""ROUGE-1/2/L against the authors' summaries, through the `evaluate` library and without a network.

`evaluate.load("rouge")` downloads a script from the hub; the metric below is the same thing made here: rouge_score's
F-measure (Lin 2004) with Porter stemming, but keeping the score of each summary, which intervals over posts need, and
with words of any script: rouge_score's own are runs of a-z and 0-9, of which Russian has none, and `früher` two.
"""

import tempfile
import unicodedata
from functools import cache

import numpy as np
import regex

from minirlhf.evaluation.text import ONE, RUN

MEASURES = ("rouge1", "rouge2", "rougeL")
_WORD = regex.compile(f"{ONE}|{RUN}", regex.V1)


def rouge(predictions: list[str], references: list[str]) -> dict[str, np.ndarray]:
    """The F-measure (0..1) of each summary: {"rouge1": [B], "rouge2": [B], "rougeL": [B]}."""
    # The library makes a folder for its tables even when it keeps them in memory.
    with tempfile.TemporaryDirectory() as folder:
        metric = metric_class()(keep_in_memory=True, cache_dir=folder, seed=0)
        scores = metric.compute(predictions=predictions, references=references)
    return {measure: np.array(scores[measure]) for measure in MEASURES}


class AnyScript:
    """A tokenizer for rouge_score: words of any script, those in ASCII as its own tokenizer has them, stemmed."""

    def __init__(self):
        from rouge_score.tokenizers import DefaultTokenizer

        self._english = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text.

        >>> AnyScript().tokenize("Dogs früher! 猫が")
        ['dog', 'früher', '猫', 'が']
        """
        words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
        return [part for word in words for part in (self._english.tokenize(word) if word.isascii() else [word])]


@cache
def metric_class() -> type:
    """The `evaluate.Metric` (its import takes seconds, so it waits until it is asked for)."""
    import datasets
    import evaluate
    from rouge_score import rouge_scorer

    class Rouge(evaluate.Metric):
        """ROUGE F-measure of each prediction, with stemming."""

        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=self.__doc__,
                citation="Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries",
                inputs_description="predictions and references: lists of strings",
                features=datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")}),
            )

        def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
            scorer = rouge_scorer.RougeScorer(list(MEASURES), tokenizer=AnyScript())
            pairs = zip(references, predictions, strict=True)
            scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
            return {measure: [score[measure].fmeasure for score in scores] for measure in MEASURES}

    return Rouge
