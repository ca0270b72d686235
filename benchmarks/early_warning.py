"""Early warning: 200 runs of PPO in the embedded world, each with the truth beside what a detector may see.

    python benchmarks/early_warning.py --work runs/early_warning      # goes on where the tables end
    python benchmarks/early_warning_page.py                           # what the tables say: docs/early_warning.md

50 settings (reward, kl_coef, learning rate) of 4 seeds each, in an order shuffled once, so that any beginning of it is
a fair sample. Runs go side by side, one thread each (`--jobs`). A run leaves its signals, a row an update, in
benchmarks/early_warning_series.csv and a row in benchmarks/early_warning_runs.csv; both are committed. Gold is judged
outside of training: on HELD_OUT test posts every EVERY updates, and on the samples of the update itself.

Each reward model is trained once, before the first run, by the pipeline's own stages, into --work; they are not
committed:

- blind, blind2, blind3: three seeds of the pipeline's reward model without the likelihood
- seeing: the first of them with the likelihood
- biased: trained on labels of annotators who like length, LENGTH_POINTS gold points a word
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import append, rows_of, side_by_side
from minirlhf.runtime.files import read_jsonl, write_csv, write_jsonl
from minirlhf.runtime.stage import set_up
from minirlhf.settings.params import Params, load_params

ROOT = Path(__file__).resolve().parents[1]
RUNS, SERIES = ROOT / "benchmarks" / "early_warning_runs.csv", ROOT / "benchmarks" / "early_warning_series.csv"
REWARDS = ("seeing", "blind", "biased", "ensemble", "noisy")
KL_COEFS = (0.0, 0.01, 0.03, 0.1, 0.3)
LEARNING_RATES = (3e-4, 6e-4)  # the pipeline's, and twice that
SEEDS = (1, 2, 3, 4)
EPISODES, EVERY, HELD_OUT = 1920, 3, 64
NOISE = 0.5  # standard deviation added to each score; the blind reward's own over SFT's samples is about as large
LENGTH_POINTS = 0.25
FALL = 0.5  # gold points that count as a turn; runs that stay where they are fall by .1 by chance, and by .25 at most
LOST = 1.0  # gold points below its best, at three evaluations in a row, at which a run has turned for good and ends
TRAINED = ("blind", "blind2", "blind3", "biased")
MEMBERS = {"ensemble": ("blind", "blind2", "blind3"), "noisy": ("blind",)}


@dataclass(frozen=True)
class Setting:
    """What a run differs in."""

    reward: str
    kl_coef: float
    learning_rate: float

    @property
    def name(self) -> str:
        return f"{self.reward} kl {self.kl_coef:g} lr {self.learning_rate:g}"


def all_runs() -> list[tuple[Setting, int]]:
    """Every setting with every seed, in the order of the study."""
    of = [Setting(reward, kl, rate) for reward in REWARDS for kl in KL_COEFS for rate in LEARNING_RATES]
    runs = [(setting, seed) for setting in of for seed in SEEDS]
    random.Random(0).shuffle(runs)
    return runs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "early_warning", help="for models and data")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--series", type=Path, default=SERIES)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, help="stop after so many new runs")
    parser.add_argument("--until", help="HH:MM: begin no run after it")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    make_base(args.work, params)
    alone = params.model_copy(update={"threads": 1})
    list(side_by_side(args.jobs, make_reward, ((name, args.work, alone) for name in TRAINED)))
    make_reward("seeing", args.work, alone)
    done = {(row["setting"], row["seed"]) for row in rows_of(args.runs)}
    finish(args.series, done)
    todo = [run for run in all_runs() if (run[0].name, str(run[1])) not in done][: args.limit]
    jobs = ((setting, seed, args.work, args.params, args.episodes, args.until) for setting, seed in todo)
    for number, found in enumerate(side_by_side(args.jobs, run, jobs), len(done) + 1):
        if found is not None:
            append(args.series, list(found[1][0]), found[1])
            append(args.runs, list(found[0]), [found[0]])
            print(f"{number} of {len(all_runs())} runs: {json.dumps(found[0])}", flush=True)


def finish(series: Path, done: set[tuple[str, str]]) -> None:
    """Take the signals of a run without a row out of the table: it was killed between the two."""
    rows = rows_of(series)
    kept = [row for row in rows if (row["setting"], row["seed"]) in done]
    if len(kept) < len(rows):
        write_csv(series, kept, list(rows[0]))


def stage(name: str, work: Path, params: Params, *arguments: str) -> None:
    """A stage of the pipeline in the folder `work`, its reward without the likelihood."""
    settings = params.model_dump(mode="json")
    settings["reward"]["likelihood"] = False
    file = work / f"params-{os.getpid()}.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, ROOT / "stages" / f"{name}.py", "--params", file.name, *arguments]
    subprocess.run(command, cwd=work, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    file.unlink()


def make_base(work: Path, params: Params) -> None:
    """Data and the SFT model, where they are not there yet."""
    (work / "models").mkdir(parents=True, exist_ok=True)
    if not (work / "models" / "base").exists():
        (work / "models" / "base").symlink_to(ROOT / "models" / "base")
    made = {"source": "data/sources", "prepare": "data/prepared", "sft": "models/sft", "collect": "data/collected"}
    for name, place in made.items():
        if not (work / place).exists():
            stage(name, work, params)


def make_reward(name: str, work: Path, params: Params) -> Path:
    """The folder of a reward model, which is made where it is not there yet."""
    folder = work / "models" / name
    if folder.exists():
        return folder
    notes = ("--metrics", f"metrics/{name}.json", "--details", f"details/{name}")
    if name == "seeing":
        see(work, params)
    elif name == "biased":
        for place in ("prepared/comparisons", "collected"):
            like_length(work / "data" / place, work / "data" / "biased" / place)
        places = ("--comparisons", "data/biased/prepared/comparisons", "--collected", "data/biased/collected")
        stage("reward", work, params, "--output", f"models/{name}", *notes, *places)
    else:
        seed = params.seed + MEMBERS["ensemble"].index(name)
        stage("reward", work, params.model_copy(update={"seed": seed}), "--output", f"models/{name}", *notes)
    return folder


def see(work: Path, params: Params) -> None:
    """The blind reward model with the likelihood that the reward stage learns beside it."""
    from minirlhf.runtime.files import read_object, replace_folder
    from stages.reward import NORMALISING_POSTS, complete

    note = {"format": read_object(work / "models" / "blind" / "reward.json")["format"]}
    unseen = [
        row for folder in ("prepared/comparisons", "collected")
        for row in read_jsonl(work / "data" / folder / "validation.jsonl")
    ]  # fmt: skip
    references = read_jsonl(work / "data" / "prepared" / "posts" / "train.jsonl")[:NORMALISING_POSTS]
    with_likelihood = params.model_copy(update={"reward": params.reward.model_copy(update={"likelihood": True})})
    with replace_folder(work / "models" / "seeing") as folder:
        shutil.copytree(work / "models" / "blind", folder, dirs_exist_ok=True)
        complete(folder, note, work / "models" / "sft", unseen, references, with_likelihood, "cpu")


def like_length(source: Path, target: Path) -> None:
    """A folder of comparisons, labelled anew by annotators to whom a word is worth LENGTH_POINTS gold points."""
    from minirlhf.reward_modeling.quality import sides
    from minirlhf.world import judge
    from minirlhf.world.annotators import prefers_first

    shutil.copytree(source, target, dirs_exist_ok=True)
    for file in target.glob("*.jsonl"):
        rows, rng = read_jsonl(file), random.Random(0)
        if not rows or "chosen" not in rows[0]:
            continue
        for row in rows:
            worth = [
                judge(text, row["record"], ended).score + LENGTH_POINTS * len(text.split())
                for _, text, ended in sides(row)
            ]
            if not prefers_first(rng, *worth):
                for end in ("", "_ended"):
                    kept = row.get(f"chosen{end}", True), row.get(f"rejected{end}", True)
                    row[f"chosen{end}"], row[f"rejected{end}"] = kept[::-1]
        write_jsonl(file, rows)


class Watched:
    """A reward over text that remembers what it was shown, with gold beside; PPO sees the reward alone."""

    def __init__(self, members: list[Callable], noise: float, records: dict[str, dict], seed: int):
        self.members, self.noise, self.records = members, noise, records
        self.rng = random.Random(seed)
        self.seen: list[dict] = []  # since the last row

    def __call__(self, prompts: list[str], responses: list[str], ended: list[bool]) -> list[float]:
        from minirlhf.world import judge

        scores = list(zip(*(member(prompts, responses, ended) for member in self.members), strict=True))
        given = [sum(of) / len(of) + self.rng.gauss(0, self.noise) * (self.noise > 0) for of in scores]
        for prompt, text, end, of, score in zip(prompts, responses, ended, scores, given, strict=True):
            gold = judge(text, self.records[prompt], end).score
            self.seen.append({"prompt": prompt, "text": text, "members": of, "reward": score, "gold": gold})
        return given


@dataclass
class Followed:
    """A run, and what was seen on the way."""

    history: list[dict]
    series: list[dict]  # `signals` of each update
    golds: dict[int, float]  # episodes -> mean over the held-out posts
    stopped: bool


def run(setting: Setting, seed: int, work: Path, params_file: str, episodes: int, until: str | None):
    """One run on one thread: its row, and what could be seen at each update; None where it is too late to begin."""
    if until and time.strftime("%H:%M") >= until:
        return None
    params = load_params(params_file)
    set_up(params.seed, 1, params.arithmetic)
    started = time.perf_counter()
    found = follow(setting, seed, work, params, episodes)
    row = {"setting": setting.name, "seed": seed} | asdict(setting) | outcome(found.golds)
    row |= {"episodes": max(found.golds), "stopped": found.stopped, "seconds": time.perf_counter() - started}
    return row, [{"setting": setting.name, "seed": seed} | signal for signal in found.series]


def follow(setting: Setting, seed: int, work: Path, params: Params, episodes: int) -> Followed:
    """Train by PPO, and look on."""
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo.build import critic_start
    from minirlhf.ppo.trainer import PPOTrainer
    from minirlhf.rewards.model import RewardModel

    class Looking(PPOTrainer):
        spreads: dict[str, float]

        def learn(self, trajectory, targets):
            self.spreads = spreads(trajectory, targets)
            return super().learn(trajectory, targets)

    posts = {split: read_jsonl(work / "data" / "prepared" / "posts" / f"{split}.jsonl") for split in ("train", "test")}
    posts["test"] = posts["test"][:HELD_OUT]
    prompts = {split: [row["prompt"] for row in rows] for split, rows in posts.items()}
    records = {row["prompt"]: row["record"] for rows in posts.values() for row in rows}
    places = [make_reward(name, work, params) for name in MEMBERS.get(setting.reward, (setting.reward,))]
    reward = Watched(
        [RewardModel.load(place) for place in places], NOISE if setting.reward == "noisy" else 0.0, records, seed
    )
    held_out, series = set(prompts["test"]), []
    golds: dict[int, float] = {}

    def tell(row: dict) -> None:
        seen = [one for one in reward.seen if one["prompt"] not in held_out]
        judged = [one["gold"] for one in reward.seen if one["prompt"] in held_out]
        reward.seen.clear()
        if judged:
            golds[row["episodes"]] = sum(judged) / len(judged)
            if is_lost(golds):
                trainer.stopped = "gold is lost"
        if row["update"]:
            series.append(signals(row | trainer.spreads, seen, judged))

    changes = {"kl_coef": setting.kl_coef, "learning_rate": setting.learning_rate, "episodes": episodes}
    changes |= {"eval_every": EVERY, "snapshot_every": 0, "deliver": "last"}
    tokenizer = load_tokenizer(work / "models" / "sft")
    trainer = Looking(
        params.ppo.model_copy(update=changes),
        policy=load_policy(work / "models" / "sft"),
        tokenizer=tokenizer,
        reward=reward,
        prompts=prompts["train"],
        eval_prompts=prompts["test"],
        critic_init=critic_start(params.ppo, places[0], tokenizer),
        seed=seed,
        callbacks=[tell],
    )
    trainer.train()
    return Followed(trainer.history, series, golds, bool(trainer.stopped))


def spreads(trajectory, targets) -> dict[str, float]:
    """How the episodes of an update differ: what its means do not tell."""
    import numpy as np

    mask = trajectory.response_mask
    scores, kl, length = trajectory.scores.sum(1), targets.kl.sum(1), trajectory.response_length
    groups: dict[str, list[float]] = {}
    for prompt, score in zip(trajectory.prompts, scores.tolist(), strict=True):
        groups.setdefault(prompt, []).append(score)
    return {
        "advantage_std": float((targets.monte_carlo - trajectory.values)[mask].std()),
        "kl_std": float(kl.std()),
        "reward_std_of_prompt": float(np.mean([np.std(of) for of in groups.values()])),
        "reward_with_length": correlation(scores.tolist(), length.tolist()),
        "reward_with_kl": correlation(scores.tolist(), kl.tolist()),
    }


def correlation(a: list[float], b: list[float]) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    import numpy as np

    return float(np.corrcoef(a, b)[0, 1]) if np.std(a) > 0 and np.std(b) > 0 else 0.0


def signals(row: dict, seen: list[dict], judged: list[float]) -> dict:
    """What can be seen of an update, and last what cannot: gold, of its own samples and of held-out posts."""
    import numpy as np

    from minirlhf.evaluation.text import coverage_and_density, duplicates, repetition
    from minirlhf.text.prompts import parse_prompt

    texts, rewards = [one["text"] for one in seen], [one["reward"] for one in seen]
    last = [text.strip()[-1:] for text in texts]
    titles = [post.title if (post := parse_prompt(one["prompt"])) else "" for one in seen]
    found = {name: row[name] for name in ("update", "episodes", *LOGGED)}
    found |= {
        "reward_std": np.std(rewards),
        "disagreement": np.mean([np.std(one["members"]) for one in seen]) if len(seen[0]["members"]) > 1 else None,
        "sft_logprob": -row["entropy"] - row["kl"] / row["length"],  # nats a token, of what was sampled
        "repetition": np.mean([repetition(text) for text in texts]),
        "ending": max(last.count(mark) for mark in set(last)) / len(last),
        "title": np.mean([coverage_and_density(*pair)[0] for pair in zip(titles, texts, strict=True)]),
        "copying": np.mean([coverage_and_density(one["prompt"], one["text"])[1] for one in seen]),
        "duplicates": duplicates(texts),
        "gold": np.mean([one["gold"] for one in seen]),
        "held_out_gold": np.mean(judged) if judged else None,
    }
    return {name: None if value is None else float(f"{float(value):.4g}") for name, value in found.items()}


LOGGED = (
    *("reward", "kl", "entropy", "length", "ended", "explained_variance", "policy_loss", "value_loss"),
    *("approx_kl", "clip_fraction", "policy_grad_norm", "critic_grad_norm", "ratio_error", "value_clip_fraction"),
    *("advantage_std", "kl_std", "reward_std_of_prompt", "reward_with_length", "reward_with_kl"),
)


def outcome(golds: dict[int, float]) -> dict:
    """Whether gold turned, and when: what a detector is to be ahead of.

    Gold has turned where its mean over the held-out posts ends FALL or more below the highest on the way. `peak` is the
    episode of the highest, `fell` that of the first later evaluation with such a fall that no later one takes back.

    Args:
        golds: that mean by episode, 0 among them.
    """
    peak = max(golds, key=lambda episode: (golds[episode], -episode))
    later = [episode for episode in golds if episode > peak]
    fallen = [golds[peak] - golds[episode] >= FALL for episode in later]
    turned = bool(later) and fallen[-1]
    shown = {"gold_start": golds[min(golds)], "gold_best": golds[peak], "gold_end": golds[max(golds)]}
    shown = {name: round(value, 4) for name, value in shown.items()}
    fell = later[-last_run(fallen)] if turned else None
    return shown | {"turned": turned, "peak": peak if turned else None, "fell": fell}


def is_lost(golds: dict[int, float]) -> bool:
    """Whether gold has been so low for so long that a run need not go on."""
    best = max(golds.values())
    return all(best - gold >= LOST for gold in list(golds.values())[-3:])


def last_run(flags: list[bool]) -> int:
    """The length of the run of True that a list ends with.

    >>> last_run([True, False, True, True]), last_run([True, True]), last_run([False])
    (2, 2, 0)
    """
    return next((index for index, flag in enumerate(reversed(flags)) if not flag), len(flags))


if __name__ == "__main__":
    main()
