"""Which pairs teach a reward model most, and whether its report finds an annotators' bias again: the embedded world.

    dvc repro collect
    python benchmarks/votes.py rules --seeds 1 2 3 4 5     # random, closest, disagreement
    python benchmarks/votes.py bias --seeds 1 2 3          # annotators who like length
    python benchmarks/votes.py table

Reads params.yaml and what the pipeline made up to the candidates. Each result is a line of benchmarks/votes.jsonl,
written when it is known; what is there already is not done again. A simulated annotator gives each vote
(world/annotators.py).

rules: from 100 random votes on, each rule chooses the next ones, up to 200 and 400; a reward model is trained anew on
all so far. Measured on the held-out candidates: share of pairs ordered as gold does, and the gold score of the
candidate of a post that it likes best ("best of 4"). `disagreement` asks three models, of three seeds; a quarter of the
new votes is random whatever the rule, as on the page.

bias: annotators prefer by gold / T + slope x words; a model learns from 1,000 of their votes, and the report's shares
of the longer summary, by annotators and by the model, are set against the slope.
"""

import argparse
import json
import math
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.feedback.pairs import by_closeness, by_disagreement, candidate_pairs
from minirlhf.feedback.votes import Pair
from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.stage import set_up
from minirlhf.settings.params import Params, load_params
from minirlhf.statistics.intervals import mean_interval
from minirlhf.world.annotators import TEMPERATURE
from minirlhf.world.judge import judge

RESULTS = Path(__file__).with_suffix(".jsonl")
BUDGETS = (100, 200, 400)
RULES = ("random", "closest", "disagreement")
SLOPES = (0.0, 0.1, 0.2)  # log odds a word
STEPS, EPOCHS = 30, 3  # of training: at least so many steps, and so many passes
Comparison = dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rules", "bias", "table"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    args = parser.parse_args()
    if args.what == "table":
        print(table())
        return
    params = load_params()
    set_up(params.seed, params.threads, params.arithmetic)
    pairs = candidate_pairs(Path("data/collected/candidates.jsonl"))
    work = rules if args.what == "rules" else bias
    for seed in args.seeds:
        work(params, pairs, seed)


def done() -> list[dict]:
    return read_jsonl(RESULTS) if RESULTS.exists() else []


def keep(row: dict) -> None:
    with open(RESULTS, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def gold(pair: Pair, side: int) -> float:
    summary = pair.summaries[side]
    return judge(summary.text, pair.record, summary.ended).score


def voted(pair: Pair, rng: random.Random, slope: float = 0.0) -> Comparison:
    """What an annotator says of a pair, who likes length by `slope`."""
    words = [len(side.text.split()) for side in pair.summaries]
    odds = (gold(pair, 0) - gold(pair, 1)) / TEMPERATURE + slope * (words[0] - words[1])
    first = rng.random() < 1 / (1 + math.exp(-odds))
    chosen, rejected = pair.summaries if first else pair.summaries[::-1]
    return {"prompt": pair.prompt, "chosen": chosen.text, "rejected": rejected.text, "record": pair.record,
            "chosen_ended": chosen.ended, "rejected_ended": rejected.ended}  # fmt: skip


def train(params: Params, rows: list[Comparison], seed: int):
    """A reward model trained on some comparisons, from the SFT model."""
    import torch

    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.models.loading import new_reward_model
    from minirlhf.reward_modeling.train import train_reward_model
    from minirlhf.rewards.model import RewardModel

    steps = max(STEPS, EPOCHS * len({row["prompt"] for row in rows}) // params.reward.batch_size)
    settings = params.reward.model_copy(update={"steps": steps, "eval_every": steps, "log_every": steps})
    own = params.model_copy(update={"seed": seed, "reward": settings})
    sft = Path("models/sft")
    torch.manual_seed(seed)
    model, tokenizer = new_reward_model(sft, None), read_tokenizer(sft, None)
    with tempfile.TemporaryDirectory() as folder:
        train_reward_model(model, tokenizer, rows, rows[-len(rows) // 10 :], own, Path(folder))
    return RewardModel(model.eval(), tokenizer)


def margins(reward, pairs: Sequence[Pair]) -> list[float]:
    """Score of the first minus score of the second summary of each pair."""
    from minirlhf.reward_modeling.quality import score_once

    sides = [[(p.prompt, p.summaries[side].text, p.summaries[side].ended) for p in pairs] for side in (0, 1)]
    scores = score_once(reward, sides[0] + sides[1])
    return [scores[one] - scores[other] for one, other in zip(*sides, strict=True)]


def worth(reward, pairs: list[Pair]) -> dict[str, float]:
    """On held-out pairs: share ordered as gold does (its ties left out), gold of the candidate that it likes best."""
    found = margins(reward, pairs)
    truth = [gold(pair, 0) - gold(pair, 1) for pair in pairs]
    right = [0.5 + 0.5 * math.copysign(1, m) * math.copysign(1, t) for m, t in zip(found, truth, strict=True) if t]
    wins: dict[str, dict] = {}
    for pair, margin in zip(pairs, found, strict=True):
        for side, won in ((0, margin > 0), (1, margin < 0)):
            best = wins.setdefault(pair.prompt, {}).setdefault(pair.summaries[side], [0, gold(pair, side)])
            best[0] += won
    best = [max(of.values(), key=lambda found: found[0])[1] for of in wins.values()]
    return {"agreement": sum(right) / len(right), "best": sum(best) / len(best)}


def rules(params: Params, pairs: list[Pair], seed: int) -> None:
    """One seed: every rule, from the same first votes on."""
    known = {(row["rule"], row["seed"], row["votes"]) for row in done() if row["what"] == "rules"}
    pool, held_out = [p for p in pairs if p.split == "train"], [p for p in pairs if p.split == "test"]
    for rule in RULES:
        if all((rule, seed, budget) in known for budget in BUDGETS):
            continue
        rng = random.Random(f"votes/{seed}")
        left = rng.sample(pool, len(pool))
        rows, models = [], []
        for budget in BUDGETS:
            new = budget - len(rows)
            chosen = [] if rule == "random" or not rows else choose(rule, models, left, new - new // 4)
            taken = {pair.id for pair in chosen}
            chosen += [pair for pair in left if pair.id not in taken][: new - len(chosen)]
            taken = {pair.id for pair in chosen}
            left = [pair for pair in left if pair.id not in taken]
            rows += [voted(pair, random.Random(f"{seed}/{pair.id}")) for pair in chosen]
            count = 3 if rule == "disagreement" else 1
            models = [train(params, rows, seed + 100 * number) for number in range(count)]
            if (rule, seed, budget) not in known:
                keep({"what": "rules", "rule": rule, "seed": seed, "votes": budget, **worth(models[0], held_out)})


def choose(rule: str, models: list, left: list[Pair], count: int) -> list[Pair]:
    found = [margins(model, left) for model in models]
    order = by_closeness(found[0]) if rule == "closest" else by_disagreement(found)
    return [left[index] for index in order[:count]]


def bias(params: Params, pairs: list[Pair], seed: int) -> None:
    """One seed: annotators of each slope, and what the reward model's report says of length."""
    from minirlhf.reward_modeling.quality import length_bias, score_once, summaries_of
    from minirlhf.reward_modeling.quality import margins as of
    from minirlhf.statistics.bootstrap import Bootstrap

    known = {(row["slope"], row["seed"]) for row in done() if row["what"] == "bias"}
    pool, held_out = [p for p in pairs if p.split == "train"], [p for p in pairs if p.split == "test"]
    for slope in SLOPES:
        if (slope, seed) in known:
            continue
        rng = random.Random(f"bias/{seed}")
        reward = train(params, [voted(pair, rng, slope) for pair in rng.sample(pool, 1000)], seed)
        rows = [voted(pair, rng, slope) for pair in held_out]
        summaries = summaries_of(rows)
        scores, lengths = score_once(reward, summaries), {s: float(len(s[1].split())) for s in summaries}
        report = length_bias(rows, scores, lengths, Bootstrap(seed, 200))
        golds = {s: judge(s[1], record_of(rows)[s[0]], s[2]).score for s in summaries}
        by_gold = length_bias(rows, golds, lengths, Bootstrap(seed, 200))["longer_by_model"]
        hits = [float(m > 0) for m in of(rows, scores)]
        shares = {who: report[f"longer_by_{who}"]["value"] for who in ("annotators", "model")}
        keep({"what": "bias", "slope": slope, "seed": seed, "accuracy": sum(hits) / len(hits), **shares,
              "gold": by_gold["value"]})  # fmt: skip


def record_of(rows: list[Comparison]) -> dict[str, dict]:
    return {row["prompt"]: row["record"] for row in rows}


def table() -> str:
    """Means over seeds with t intervals, in Markdown."""
    rows = done()
    lines = ["| rule | votes | seeds | ordered as gold | gold, best of 4 |", "| --- | ---: | ---: | ---: | ---: |"]
    for rule in RULES:
        for budget in BUDGETS:
            of = [r for r in rows if r["what"] == "rules" and (r["rule"], r["votes"]) == (rule, budget)]
            if of:
                cells = [say([r[name] for r in of]) for name in ("agreement", "best")]
                lines.append(f"| {rule} | {budget} | {len(of)} | {' | '.join(cells)} |")
    names = ("annotators", "model", "gold", "accuracy")
    lines += ["", "| slope, log odds a word | seeds | longer by annotators | by the model | by gold | accuracy |",
              "| ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for slope in SLOPES:
        of = [r for r in rows if r["what"] == "bias" and r["slope"] == slope]
        if of:
            lines.append(f"| {slope} | {len(of)} | {' | '.join(say([r[name] for r in of]) for name in names)} |")
    return "\n".join(lines)


def say(values: list[float]) -> str:
    mean = mean_interval(values)
    ends = "" if mean["low"] is None else f" ({mean['low']:.3f} to {mean['high']:.3f})"
    return f"{mean['value']:.3f}{ends}"


if __name__ == "__main__":
    main()
