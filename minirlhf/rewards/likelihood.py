"""What the likelihood of a response says of it, as a number that is added to a reward model's score.

A reward model trained on some thousand comparisons sees what is missing and what is filler, but not that a fact is
another one than the post's, that words are shuffled, or that a clause stands twice. The language model that wrote the
responses does: such tokens are unlikely to it. Its likelihood alone would be no more than a lower temperature in
disguise, so comparisons decide what it weighs (`minirlhf.reward_modeling.weights`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy
from minirlhf.models.logprobs import response_logprobs
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.runtime.memory import BatchSize
from minirlhf.text.prompts import encode_all, encode_prompts

# Of the tokens' likelihood: their sum, and how many are less likely than each of these, in nats. A weight for each is a
# function of a token's surprise that is learnt and not chosen.
THRESHOLDS = (-2, -3, -4, -5, -6, -8)
FEATURES = ("total", *(f"below {threshold}" for threshold in THRESHOLDS))


def describe(logprobs: np.ndarray) -> np.ndarray:
    """The `FEATURES` of one response, of its tokens' log-probabilities [R] in nats.

    >>> describe(np.array([-1.0, -5.5])).tolist()
    [-6.5, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    """
    return np.array([logprobs.sum(), *(np.sum(logprobs < threshold) for threshold in THRESHOLDS)], float)


class Likelihood:
    """The likelihood of responses under a language model, at temperature 1: token by token, or as a weighted number.

    Args:
        policy, tokenizer: the language model, as it wrote the responses that were compared.
        weights: of the FEATURES by name, for a call; one that is not named counts nothing.
        batch_size: most sequences in one pass; halves where memory runs out.
        precision: "fp32" or "bf16".
    """

    def __init__(
        self,
        policy: torch.nn.Module,
        tokenizer: Any,
        weights: Mapping[str, float] | None = None,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
    ):
        self.parts, self.tokenizer = TrunkAndHead(policy.to(device)), tokenizer
        self.weights = np.array([(weights or {}).get(name, 0.0) for name in FEATURES])
        self.batch_size = BatchSize(batch_size, "likelihood: batch_size", "bf16 or shorter prompts")
        self.device, self.precision = torch.device(device), precision

    @classmethod
    def load(cls, folder: Path, weights: Mapping[str, float] | None = None, **options: Any) -> Self:
        """The language model of a folder."""
        return cls(load_policy(folder), load_tokenizer(folder), weights, **options)

    def logprobs(self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool]) -> list[np.ndarray]:
        """Of each of B responses the log-probabilities [R] of its tokens; of EOS too, where it ended by itself."""
        prompt_ids, response_ids = encode_prompts(self.tokenizer, prompts), encode_all(self.tokenizer, responses)
        end = self.tokenizer.eos_token_id
        response_ids = [[*ids, end] if done else ids for ids, done in zip(response_ids, ended, strict=True)]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            found = response_logprobs(self.parts, prompt_ids, response_ids, 1.0, self.batch_size)
        return [row.numpy() for row in found]

    def __call__(self, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool]) -> list[float]:
        """B weighted sums of features."""
        return [float(describe(row) @ self.weights) for row in self.logprobs(prompts, responses, ended)]
