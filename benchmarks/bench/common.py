"""What the scripts beside this one share: options, prompts, tokenizer, models, a report. TRL's Python runs it as well.

Weights are random. Words w0, w1, ... are tokens, so text and ids turn into each other without loss and a reward model
over text reads exactly the tokens that one over ids reads.
"""

import argparse
import json
import random
import sys
import time

import torch

from minirlhf.commands.bench_work import WORKS, Work


def clock_options(description: str | None) -> argparse.ArgumentParser:
    """A parser with what `minirlhf bench` says to every script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="measure that in the place of time on the clock")
    return parser


def set_clock(args: argparse.Namespace) -> None:
    """Set threads, and what a second is: for this script, and for the trainer that it runs."""
    torch.set_num_threads(args.threads)
    if args.processor_time:
        time.perf_counter = time.process_time


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with what `minirlhf bench` says to every trainer."""
    parser = clock_options(description)
    parser.add_argument("--work", choices=WORKS, default="tiny")
    parser.add_argument("--episodes", type=int, help="a batch; default: the work's")
    parser.add_argument("--steps", type=int, default=3, help="updates, the first of which warms up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    return parser


def work_of(args: argparse.Namespace) -> Work:
    """The work that was asked for; sets the clock."""
    set_clock(args)
    return WORKS[args.work].of(args.episodes)


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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )


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


class Clock:
    """Prints a line of JSON after every update: whoever is ended at a deadline has said what was found till then."""

    def __init__(self, **known):
        self.known, self.seconds, self.last = known, [], time.perf_counter()

    def start(self) -> None:
        """The first update begins."""
        self.last = time.perf_counter()

    def tick(self, **found) -> None:
        """An update has ended. Peak memory is the device's on a GPU, else the largest resident set of the process."""
        import resource

        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated()
        say(self.known | {"seconds": self.seconds, "peak_gb": peak / 1e9, **found})


def say(found: dict) -> None:
    """Print a line of JSON on standard output, whatever has taken its place."""
    print(json.dumps(found), file=sys.__stdout__, flush=True)
