"""Pretrain the base model of the embedded world and write it to a folder: `python -m minirlhf.world.pretrain`.

The corpus holds posts with summaries of mixed quality, from records that no stage of the pipeline ever sees. Its
writers have no habit in common, unlike the authors of `authors.py`, whom fine-tuning imitates. Half of the summaries
are followed by a reader's reply that checks every stated fact against the post ("REPLY: sister right, laptop wrong."),
as threads on Reddit do: this is where the model learns to compare a summary with its post, which a few thousand
comparisons do not teach a model of this size. The summaries that replies check hold more wrong facts than writers
write, so they are read only: their tokens have no loss.
"""

import argparse
import math
import random
from collections.abc import Iterator
from pathlib import Path

from minirlhf.world.grammar import FILLER_CLAUSES, SLOTS
from minirlhf.world.judge import read_clause
from minirlhf.world.posts import Record, join_clauses, other_value, state_facts, stories

VOCABULARY = 1024
POSITIONS = 256
END = "<|endoftext|>"
# Share of the summaries, chance to leave out a slot, numbers of wrong facts and of fillers, chance to repeat.
WRITERS = (
    {"share": 0.20, "omit": 0.00, "wrong": (0,), "filler": (0,), "repeat": 0.0},  # concise and complete
    {"share": 0.30, "omit": 0.45, "wrong": (0,), "filler": (0,), "repeat": 0.0},  # terse
    {"share": 0.25, "omit": 0.25, "wrong": (0,), "filler": (1, 2, 3), "repeat": 0.3},  # rambling
    {"share": 0.25, "omit": 0.15, "wrong": (1, 1, 2), "filler": (0, 1), "repeat": 0.0},  # careless
)
# Weights of a token's loss: the post itself is mostly noise, its summary and the verdicts are what is to be learnt.
POST_WEIGHT, SUMMARY_WEIGHT, REPLY_WEIGHT = 0.3, 1.0, 2.0


def documents(seed: int) -> Iterator[tuple[str, str, str]]:
    """Endless (prompt, summary, reply) texts; the reply is empty for half of them."""
    for rng, record, prompt, _, distractions in stories(seed, "pretraining", 10**12):
        if rng.random() < 0.5:
            yield prompt, " " + mixed_summary(rng, record, distractions), ""
        else:
            yield prompt, *checked_summary(rng, record, distractions)


def mixed_summary(rng: random.Random, record: Record, distractions: Record) -> str:
    """A summary of a quality that depends on the writer drawn (see WRITERS)."""
    writer = rng.choices(WRITERS, [writer["share"] for writer in WRITERS])[0]
    told = dict(record)
    for slot in rng.sample(SLOTS, rng.choice(writer["wrong"])):
        misread = slot in distractions and rng.random() < 0.5
        told[slot] = distractions[slot] if misread else other_value(rng, slot, record[slot])
    for slot in SLOTS:
        if rng.random() < writer["omit"]:
            del told[slot]
    clauses = state_facts(rng, told)
    if rng.random() < writer["repeat"]:
        clauses.append(rng.choice(state_facts(rng, told)))
    for _ in range(rng.choice(writer["filler"])):
        clauses.insert(rng.randint(0, len(clauses)), rng.choice(FILLER_CLAUSES))
    return join_clauses(rng, clauses)


def checked_summary(rng: random.Random, record: Record, distractions: Record) -> tuple[str, str]:
    """A summary with up to three wrong facts, and the reply that says of each fact whether it is right."""
    told = dict(record)
    for slot in rng.sample(SLOTS, rng.randint(0, 3)):
        misread = slot in distractions and rng.random() < 0.5
        told[slot] = distractions[slot] if misread else other_value(rng, slot, record[slot])
    clauses = state_facts(rng, told)
    stated = [fact for clause in clauses for fact in (read_clause(clause) or {}).items()]
    verdicts = [f"{value} {'right' if record[slot] == value else 'wrong'}" for slot, value in stated]
    return " " + ". ".join(clauses) + ".", "\n\nREPLY: " + ", ".join(verdicts) + "."


def train_tokenizer(seed: int, count: int = 20_000):
    """A byte-level BPE tokenizer as GPT-2's: one special token, which ends a text."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    corpus = documents(seed)
    bpe = ByteLevelBPETokenizer()
    texts = ("".join(next(corpus)) for _ in range(count))
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, unk_token=END, model_max_length=POSITIONS
    )


def encode_document(tokenizer, prompt: str, summary: str, reply: str) -> tuple[list[int], list[float]]:
    """Token ids of one document and the weight of each token's loss."""
    ids, weights = [], []
    summary_weight = 0.0 if reply else SUMMARY_WEIGHT
    for text, weight in ((prompt, POST_WEIGHT), (summary, summary_weight), (reply, REPLY_WEIGHT)):
        piece = tokenizer(text)["input_ids"] if text else []
        ids += piece
        weights += [weight] * len(piece)
    return ids + [tokenizer.eos_token_id], weights + [SUMMARY_WEIGHT]


def pretrain(seed: int, steps: int, batch_size: int, learning_rate: float, layers: int, width: int):
    """Train from scratch; returns (model, tokenizer)."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from minirlhf.runtime.progress import Progress

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(seed)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=width, n_layer=layers, n_head=width // 32,
        # GPT-2's own "gelu_new" is the same function, 1.2 to 1.6 times slower on a CPU.
        activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    corpus = documents(seed)
    with Progress(steps, unit="steps", desc="pretraining") as progress:
        for step in range(steps):
            rate = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = learning_rate * max(rate, 0.02)
            batch = [encode_document(tokenizer, *next(corpus)) for _ in range(batch_size)]
            length = max(len(ids) for ids, _ in batch)
            ids = torch.tensor([ids + [end] * (length - len(ids)) for ids, _ in batch])
            weights = torch.tensor([w + [0.0] * (length - len(w)) for _, w in batch])
            logits = model(input_ids=ids).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            loss = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.update(1, loss=loss.item())
    return model, tokenizer


def main(argv: list[str] | None = None) -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("models/base"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = vars(parser.parse_args(argv))
    output, _ = args.pop("output"), torch.set_num_threads(args.pop("threads"))
    model, tokenizer = pretrain(**args)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


if __name__ == "__main__":
    main()
