"""Which pairs teach a reward model most, and whether its report finds an annotators' bias again: the embedded world.

    dvc repro collect
    python benchmarks/votes.py rules bias draw             # draw: the tables, and docs/votes.png
    python benchmarks/votes.py rules bias --trunk trained --seeds 1 2 3 4 5

Reads params.yaml and what the pipeline made up to the candidates. A result is a row of benchmarks/votes_rules.csv or
votes_bias.csv, written when it is known; what is there already is not done again: to do it anew, delete the file. A
simulated annotator (world/annotators.py) gives each vote, the same one whichever rule asks. One thread.

The trunk of the reward models is the SFT model, `frozen`, with a logistic regression on its last hidden state, which
takes a moment, or `trained` as the pipeline does, which takes minutes for a row. An ensemble is three of them, trained
on votes drawn with replacement (Abe and Mamitsuka 1998), or from other seeds.

rules: a seed draws 300 posts and 100 random votes on their pairs. From then on a rule chooses by the reward models of
the votes so far, as `minirlhf label --rule` does, and they are trained anew at each number of votes; a quarter of the
new votes is random whatever the rule. Measured on held-out posts: the share of candidate pairs ordered as gold does,
and gold reached: the mean gold score of the best of 16 of SFT's summaries by the reward model, at temperature 0.7,
where SFT is best.

bias: annotators prefer by gold / T + slope x words; a model learns from 800 of their votes, and the report's shares of
the longer summary, by annotators and by the model, are set against the slope.
"""

import argparse
import csv
import itertools
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.votes_rewards import CANDIDATES, Comparison, N, Score, Summary, frozen, samples, sides, trained
from minirlhf.feedback.pairs import by_closeness, by_disagreement, candidate_pairs, spread
from minirlhf.feedback.votes import Pair
from minirlhf.runtime.files import read_csv
from minirlhf.settings.params import load_params
from minirlhf.statistics.intervals import mean_interval
from minirlhf.world.annotators import TEMPERATURE
from minirlhf.world.judge import judge

FILES = {what: Path(__file__).with_name(f"votes_{what}.csv") for what in ("rules", "bias")}
BUDGETS = (100, 200, 400, 800)
COLORS = {"random": "#4878a8", "closest": "#c8641e", "disagreement": "#3c8c50"}
TRUNKS = ("frozen", "trained")
SLOPES = (0.0, 0.1, 0.2)  # log odds a word
WHO = {"gold": "#777777", "annotators": "#4878a8", "model": "#c8641e"}
GOLD: dict[Summary, float] = {}  # of what was judged already
POSTS, ORDERED = 300, 100  # posts to ask about, and held-out ones whose pairs are to be ordered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rules", "bias", "draw"), nargs="+")
    parser.add_argument("--trunk", choices=TRUNKS, default="frozen")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(1, 16))
    args = parser.parse_args()
    params = load_params()
    fit = frozen if args.trunk == "frozen" else lambda rows, seed: trained(params, rows, seed)
    pairs = candidate_pairs(CANDIDATES) if {"rules", "bias"} & set(args.what) else []
    for seed in args.seeds if pairs else ():
        asked, held_out = split(pairs, seed)
        for what, work in {"rules": rules, "bias": bias}.items():
            if what in args.what:
                work(fit, {"trunk": args.trunk, "seed": seed}, asked, held_out)
    if "draw" in args.what:
        print(tables())
        draw(Path("docs/votes.png"))


def done(what: str, **of) -> list[dict]:
    """The rows of a table in which these columns hold these values."""
    rows = read_csv(FILES[what]) if FILES[what].exists() else []
    return [row for row in rows if of.items() <= row.items()]


def keep(what: str, row: dict) -> None:
    """Add a row to a table."""
    row = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
    is_new = not FILES[what].exists()
    with open(FILES[what], "a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def golds(pair: Pair) -> list[float]:
    """The gold scores of both summaries."""
    for side, summary in zip(sides(pair), pair.summaries, strict=True):
        if side not in GOLD:
            GOLD[side] = judge(summary.text, pair.record, summary.ended).score
    return [GOLD[side] for side in sides(pair)]


def voted(pair: Pair, seed: int, slope: float = 0.0) -> Comparison:
    """What an annotator says of a pair, who likes length by `slope`."""
    words = [len(side.text.split()) for side in pair.summaries]
    gold = golds(pair)
    odds = (gold[0] - gold[1]) / TEMPERATURE + slope * (words[0] - words[1])
    first = random.Random(f"{seed}/{pair.id}").random() < 1 / (1 + math.exp(-odds))
    chosen, rejected = pair.summaries if first else pair.summaries[::-1]
    return {"prompt": pair.prompt, "chosen": chosen.text, "rejected": rejected.text, "record": pair.record,
            "chosen_ended": chosen.ended, "rejected_ended": rejected.ended}  # fmt: skip


def margins(score: Score, pairs: Sequence[Pair]) -> np.ndarray:
    """Score of the first minus score of the second summary of each pair."""
    compared = [sides(pair) for pair in pairs]
    scores = score([side for both in compared for side in both])
    return np.array([scores[first] - scores[second] for first, second in compared])


def worth(score: Score, held_out: Sequence[Pair]) -> dict[str, float]:
    """Share of held-out pairs ordered as gold does (its ties left out), and gold of the best of N by the model."""
    from minirlhf.reward_modeling.quality import hits

    truth = np.array([first - second for first, second in map(golds, held_out)])
    right = hits(margins(score, held_out), truth)[truth != 0]
    told, gold = samples()
    scores = score(told)
    best = np.array([scores[one] for one in told]).reshape(-1, N).argmax(1)
    return {"agreement": float(right.mean()), "best_of_16": float(gold[np.arange(len(best)), best].mean())}


def split(pairs: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs of a seed's train posts, by lot; those of the first held-out posts."""
    rng = random.Random(f"votes/{seed}")
    posts = {name: list(dict.fromkeys(p.prompt for p in pairs if p.split == name)) for name in ("train", "test")}
    asked, test = set(rng.sample(posts["train"], POSTS)), set(posts["test"][:ORDERED])
    return spread([pair for pair in pairs if pair.prompt in asked], rng), [p for p in pairs if p.prompt in test]


def rules(fit: Callable, of: dict, pool: list[Pair], held_out: list[Pair]) -> None:
    """One seed: every rule, from the same first votes on."""
    for rule in COLORS:
        known = {row["votes"] for row in done("rules", rule=rule, **of)}
        if known >= set(BUDGETS):
            continue
        left, rows, models = pool, [], []
        for budget in BUDGETS:
            new = ask(rule, models, left, budget - len(rows))
            taken = {pair.id for pair in new}
            left = [pair for pair in left if pair.id not in taken]
            rows += [voted(pair, of["seed"]) for pair in new]
            models = [fit(rows, of["seed"] + 100 * number) for number in range(3 if rule == "disagreement" else 1)]
            if budget not in known:
                keep("rules", {"rule": rule, **of, "votes": budget, **worth(models[0], held_out)})


def ask(rule: str, models: list[Score], left: list[Pair], count: int) -> list[Pair]:
    """The next pairs by a rule; every fourth is random."""
    if rule == "random" or not models:
        return left[:count]
    found = [margins(model, left) for model in models]
    order = by_closeness(found[0]) if rule == "closest" else by_disagreement(found)
    ranked, by_lot = iter(spread([left[index] for index in order])), iter(left)
    taken: dict[str, Pair] = {}
    while len(taken) < count:
        pair = next(by_lot if len(taken) % 4 == 3 else ranked)
        taken[pair.id] = pair
    return list(taken.values())


def bias(fit: Callable, of: dict, pool: list[Pair], held_out: list[Pair]) -> None:
    """One seed: annotators of each slope, and what the reward model's report says of length."""
    from minirlhf.reward_modeling.quality import gold_scores, length_bias, summaries_of
    from minirlhf.statistics.bootstrap import Bootstrap

    for slope in SLOPES:
        if done("bias", slope=slope, **of):
            continue
        score = fit([voted(pair, of["seed"], slope) for pair in pool[: BUDGETS[-1]]], of["seed"])
        rows = [voted(pair, of["seed"], slope) for pair in held_out]
        lengths = {summary: float(len(summary[1].split())) for summary in summaries_of(rows)}
        bootstrap = Bootstrap(of["seed"], 100)
        by_gold, report = (length_bias(rows, s, lengths, bootstrap) for s in (gold_scores(rows), score(lengths)))
        shares = {"gold": by_gold["longer_by_model"], "annotators": report["longer_by_annotators"],
                  "model": report["longer_by_model"]}  # fmt: skip
        found = {who: share["value"] for who, share in shares.items()}
        keep("bias", {"slope": slope, **of, **found, "spearman": report["spearman"]})


def tables() -> str:
    """Means over seeds with t intervals, in Markdown; less random: means of the differences within a seed."""
    lines = ["| trunk | rule | votes | seeds | ordered as gold | less random | gold, best of 16 | less random |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for trunk, rule, budget in itertools.product(TRUNKS, COLORS, BUDGETS):
        base = {row["seed"]: row for row in done("rules", trunk=trunk, rule="random", votes=budget)}
        rows = [row for row in done("rules", trunk=trunk, rule=rule, votes=budget) if row["seed"] in base]
        cells = []
        for name in ("agreement", "best_of_16"):
            cells.append(say([row[name] for row in rows]))
            cells.append(say([row[name] - base[row["seed"]][name] for row in rows]) if rule != "random" else "")
        if rows:
            lines.append(f"| {trunk} | {rule} | {budget} | {len(rows)} | {' | '.join(cells)} |")
    lines += ["", "| trunk | slope | seeds | longer by gold | by annotators | by the model | Spearman's |",
              "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for trunk, slope in itertools.product(TRUNKS, SLOPES):
        if rows := done("bias", trunk=trunk, slope=slope):
            cells = [say([row[name] for row in rows]) for name in (*WHO, "spearman")]
            lines.append(f"| {trunk} | {slope} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def say(values: list[float]) -> str:
    if not values:
        return ""
    mean = mean_interval(values)
    ends = "" if mean["low"] is None else f" ({mean['low']:.2f} to {mean['high']:.2f})"
    return f"{mean['value']:.2f}{ends}"


def draw(path: Path) -> None:
    """Gold reached against the number of votes by rule; shares of the longer summary against the slope."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for shift, (rule, color) in zip((0.97, 1.0, 1.03), COLORS.items(), strict=True):
        of = [[row["best_of_16"] for row in done("rules", trunk="frozen", rule=rule, votes=b)] for b in BUDGETS]
        curve(left, [shift * budget for budget in BUDGETS], of, rule, color)
    left.set(xscale="log", xlabel="votes", ylabel="gold, best of 16 of SFT, points of 6")
    left.set_xticks(BUDGETS, map(str, BUDGETS))
    left.set_xticks([], minor=True)
    left.legend(frameon=False, loc="center right")
    left.axhline(samples()[1].mean(), color="#777777", linewidth=1, linestyle="--")
    left.annotate("any of SFT's", (BUDGETS[0], samples()[1].mean()), xytext=(0, 3), textcoords="offset points")
    for shift, (who, color) in zip((-0.002, 0.0, 0.002), WHO.items(), strict=True):
        of = [[row[who] for row in done("bias", trunk="frozen", slope=slope)] for slope in SLOPES]
        curve(right, [shift + slope for slope in SLOPES], of, who, color)
    right.set(xlabel="annotators' bias, log odds a word", ylabel="share: prefers the longer summary")
    right.set_xticks(SLOPES)
    right.legend(frameon=False)
    figure.savefig(path, dpi=150)


def curve(ax, x: list[float], of: list[list[float]], label: str, color: str) -> None:
    means = [mean_interval(values) for values in of]
    ax.vlines(x, [mean["low"] for mean in means], [mean["high"] for mean in means], color=color, alpha=0.5, linewidth=2)
    ax.plot(x, [mean["value"] for mean in means], "o-", color=color, label=label, markersize=4)


if __name__ == "__main__":
    main()
