"""How fast does an OpenAssistant-type reward model score? Our batches against what one writes without much thought.

    OMP_NUM_THREADS=2 python benchmarks/reward_batching.py --layers 1

DeBERTa-v3-large's shapes (24 layers of 1024; fewer with --layers) with random weights, in fp32, on real posts with
their authors' summaries. The tokenizer is GPT-2's, which cuts English about as finely; inputs have at most 512 tokens.
All score the same texts by the same model (weights, threads, kernels), from texts to numbers, in turns: batches of
`--batch-size` in the order of arrival, each padded to its longest text or all of them to 512 tokens; one text at a
time, with no padding; and `RewardModel`. Prints the seconds of every round, and how many times as fast `RewardModel`
was as each: the median of the rounds' ratios. Fails if the scores differ. On a machine with other work, take one thread
and `--processor-time`.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.stage import quiet

SHARED = Path(__file__).resolve().parents[2] / "shared"
LONGEST = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor-time", action="store_true", help="in place of the time that passes")
    parser.add_argument("--posts", type=Path, default=SHARED / "data/tldr/train.jsonl")
    parser.add_argument("--tokenizer", default=str(SHARED / "models/gpt2-tokenizer"))
    args = parser.parse_args()

    quiet()
    import torch

    from minirlhf.rewards.model import RewardModel

    rows = read_jsonl(args.posts)[: args.texts]
    prompts, responses = ([row[key] for row in rows] for key in ("prompt", "completion"))
    tokenizer = make_tokenizer(args.tokenizer)
    model = make_model(args.layers, len(tokenizer))
    reward = RewardModel(model, tokenizer, "pair", batch_size=args.batch_size, device=args.device)

    @torch.no_grad()
    def naive(size: int, padding: str) -> list[float]:
        scores = []
        for first in range(0, len(rows), size):
            pairs = prompts[first : first + size], responses[first : first + size]
            options = {"truncation": "only_first", "max_length": LONGEST, "return_tensors": "pt"}
            inputs = tokenizer(*pairs, padding=padding, **options).to(args.device)
            scores += model(**inputs).logits[:, 0].tolist()
        return scores

    ours = "RewardModel"
    ways = {
        f"batches of {args.batch_size}, each padded to its longest": lambda: naive(args.batch_size, "longest"),
        f"batches of {args.batch_size}, padded to {LONGEST} tokens": lambda: naive(args.batch_size, "max_length"),
        "one at a time": lambda: naive(1, "longest"),
        ours: lambda: reward(prompts, responses, [True] * len(rows)),
    }
    lengths = [len(sequence["input_ids"]) for sequence in reward._encode_pairs(prompts, responses)]
    print(f"{len(rows)} texts of {min(lengths)} to {max(lengths)} tokens, median {statistics.median(lengths):.0f}")
    naive(1, "max_length")  # warms up
    clock = time.process_time if args.processor_time else time.perf_counter
    seconds, scores = {way: [] for way in ways}, {}
    for number in range(args.rounds):
        for way, score in ways.items():
            start = clock()
            scores[way] = score()
            seconds[way].append(clock() - start)
        taken = ", ".join(f"{way} {times[-1]:.2f} s" for way, times in seconds.items())
        print(f"round {number + 1}: {taken}", flush=True)
    for way in ways:
        torch.testing.assert_close(scores[ours], scores[way], rtol=1e-3, atol=1e-5)
        ratios = [theirs / own for theirs, own in zip(seconds[way], seconds[ours], strict=True)]
        if way != ours:
            print(f"{statistics.median(ratios):.2f} times as fast as {way} ({min(ratios):.2f} to {max(ratios):.2f})")


def make_tokenizer(name: str):
    """GPT-2's tokenizer with the special tokens of DeBERTa's pairs: [CLS] post [SEP] summary [SEP]."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"})
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    return tokenizer


def make_model(layers: int, vocabulary: int):
    """A classifier of DeBERTa-v3-large's shapes, as its config has them, with random weights."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=vocabulary,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=LONGEST,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        num_labels=1,
    )
    return DebertaV2ForSequenceClassification(config)


if __name__ == "__main__":
    main()
