"""The work that `ppo_vs_trl.py` gives to both trainers: shapes, prompts, tokenizer, models. Needs no minirlhf.

Weights are random. Words w0, w1, ... are tokens, so text and ids turn into each other without loss and a reward model
over text reads exactly the tokens that one over ids reads.
"""

import random
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """A row of the benchmark's table."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int
    episodes: int  # a batch
    prompt_tokens: tuple[int, int]  # shortest, longest
    response_tokens: int
    ppo_epochs: int
    micro_batch: int

    def flops_per_episode(self, separate_critic: bool) -> float:
        """Multiply-adds (counted twice) of one episode that no implementation of this recipe can leave out.

        Forward passes: the policy while sampling, the reference, the reward model, a separate critic once; each
        epoch of the update takes one forward and two backward passes through policy and critic. Heads count at
        response positions only; attention counts half its square, as causal.
        """
        prompt, response = sum(self.prompt_tokens) / 2, self.response_tokens
        tokens = prompt + response
        trunk = tokens * 2 * 12 * self.layers * self.width**2 + 2 * self.layers * self.width * tokens**2
        head = response * 2 * self.width * self.vocabulary
        update = 3 * self.ppo_epochs * (trunk + head + separate_critic * trunk)
        return 2 * (trunk + head) + trunk + separate_critic * trunk + update


WORKS = {
    "gpt2": Work(12, 768, 12, 50_257, 1024, 8, (128, 256), 53, 1, 4),
    "small": Work(4, 128, 4, 2_048, 256, 64, (64, 128), 48, 4, 16),
    # for trying things out in seconds
    "tiny": Work(2, 32, 2, 64, 64, 8, (8, 16), 8, 1, 4),
}


def make_prompts(work: Work, count: int, seed: int = 0) -> list[list[int]]:
    """Random prompts, lengths uniform between the two bounds; the last two ids (padding, EOS) do not occur."""
    draw = random.Random(seed)
    return [
        [draw.randrange(work.vocabulary - 2) for _ in range(draw.randint(*work.prompt_tokens))] for _ in range(count)
    ]


def make_tokenizer(work: Work):
    """Words w0, w1, ... as tokens; the last two ids are padding and EOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [f"w{index}" for index in range(work.vocabulary - 2)] + ["<pad>", "<eos>"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def make_models(work: Work, classifiers: int):
    """A policy, and so many sequence classifiers of the same shape, with random weights."""
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=work.layers,
        n_embd=work.width,
        n_head=work.heads,
        vocab_size=work.vocabulary,
        n_positions=work.positions,
        num_labels=1,
        bos_token_id=work.vocabulary - 1,
        eos_token_id=work.vocabulary - 1,
        pad_token_id=work.vocabulary - 2,
    )
    return GPT2LMHeadModel(config), [GPT2ForSequenceClassification(config) for _ in range(classifiers)]


def report(seconds: list[float], versions: dict[str, str]) -> dict:
    """What a worker prints: seconds of each step, peak memory in GB, versions."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {"seconds": seconds, "peak_gb": peak / 1e9, "versions": versions}
