"""How fast does an OpenAssistant-type reward model score? Our batches against padded ones in the order of arrival.

    OMP_NUM_THREADS=2 python benchmarks/reward_batching.py --layers 1

DeBERTa-v3-large's shapes (24 layers of 1024; fewer with --layers) with random weights, in fp32, on real posts with
their authors' summaries. The tokenizer is GPT-2's, which cuts English about as finely; inputs have at most 512 tokens.
Both sides run the same model on `--batch-size` texts at a time, padded to the longest among them: in the order of
arrival, and as `RewardModel` brings them together. Of each side's passes every n-th is timed, about `--passes` of them,
so that all lengths have their share; the sides take turns. Prints the seconds of every round, and the median of the
rounds' ratios.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.files import read_jsonl
from minirlhf.stage import quiet

SHARED = Path(__file__).resolve().parents[2] / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--texts", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--passes", type=int, default=6, help="timed on each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--posts", type=Path, default=SHARED / "data/tldr/train.jsonl")
    parser.add_argument("--tokenizer", default=str(SHARED / "models/gpt2-tokenizer"))
    args = parser.parse_args()
    rows = read_jsonl(args.posts)[: args.texts]

    quiet()
    from minirlhf.rewards.model import RewardModel

    tokenizer = make_tokenizer(args.tokenizer)
    reward = RewardModel(make_model(args.layers, len(tokenizer)), tokenizer, "pair", batch_size=args.batch_size)
    sequences = reward._encode_pairs(*([row[key] for row in rows] for key in ("prompt", "completion")))
    lengths = sorted(len(sequence["input_ids"]) for sequence in sequences)
    print(f"{len(rows)} texts of {lengths[0]} to {lengths[-1]} tokens, median {statistics.median(lengths):.0f}")
    indices = list(range(len(sequences)))
    by_length = sorted(indices, key=lambda index: -len(sequences[index]["input_ids"]))  # as RewardModel scores them
    sides = []
    for order in (indices, by_length):
        batches = [order[first : first + args.batch_size] for first in range(0, len(order), args.batch_size)]
        step = max(1, len(batches) // args.passes)
        sides.append(batches[step // 2 :: step])

    def seconds(batches: list[list[int]]) -> float:
        start = time.perf_counter()
        for batch in batches:
            reward._score([sequences[index] for index in batch])
        return time.perf_counter() - start

    seconds(sides[0][:1])  # warms up
    ratios = []
    for number in range(args.rounds):
        naive, ours = map(seconds, sides)
        ratios.append(naive / ours)
        print(f"round {number + 1}: arrival order {naive:.2f} s, by length {ours:.2f} s", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


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
        max_position_embeddings=512,
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
