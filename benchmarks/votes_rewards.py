"""The reward models that benchmarks/votes.py compares: a trained one, and heads on the frozen SFT model."""

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from minirlhf.feedback.pairs import candidate_pairs
from minirlhf.feedback.votes import Pair
from minirlhf.runtime.files import read_jsonl, write_jsonl
from minirlhf.runtime.stage import set_up
from minirlhf.settings.params import Params
from minirlhf.world.judge import judge

CANDIDATES, SFT = Path("data/collected/candidates.jsonl"), Path("models/sft")
HELD_OUT, N = 60, 16  # held-out posts for best-of-n; its n
STEPS, EPOCHS = 20, 2  # of training: at least so many steps, and so many passes
PENALTY = 0.01  # C of the logistic regression on standardised features
Comparison = dict
Summary = tuple[str, str, bool]  # prompt, text, whether it ended by itself
Score = Callable[[Iterable[Summary]], dict[Summary, float]]


def sides(pair: Pair) -> list[Summary]:
    """The two summaries of a pair."""
    return [(pair.prompt, side.text, side.ended) for side in pair.summaries]


def trained(params: Params, rows: list[Comparison], seed: int) -> Score:
    """A reward model trained on some comparisons, from the SFT model."""
    set_up(seed, 1, params.arithmetic)
    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.models.loading import new_reward_model
    from minirlhf.reward_modeling.quality import score_once
    from minirlhf.reward_modeling.train import train_reward_model
    from minirlhf.rewards.model import RewardModel

    steps = max(STEPS, EPOCHS * len(rows) // params.reward.batch_size)
    settings = params.reward.model_copy(update={"steps": steps, "eval_every": steps, "log_every": steps})
    own = params.model_copy(update={"seed": seed, "reward": settings})
    model, tokenizer = new_reward_model(SFT, None), read_tokenizer(SFT, None)
    with tempfile.TemporaryDirectory() as folder:
        train_reward_model(model, tokenizer, rows, rows[:1], own, Path(folder))
    return lambda summaries: score_once(RewardModel(model.eval(), tokenizer), summaries)


def frozen(rows: list[Comparison], seed: int) -> Score:
    """A head on the frozen SFT model; of all rows for a seed below 100, else of rows drawn with replacement."""
    from sklearn.linear_model import LogisticRegression

    from minirlhf.reward_modeling.quality import sides as sides_of

    if seed >= 100:
        rows = random.Random(seed).choices(rows, k=len(rows))
    known = features()
    apart = np.array([known[chosen] - known[rejected] for chosen, rejected in map(sides_of, rows)])
    views, labels = np.vstack([apart, -apart]), np.repeat([1, 0], len(rows))
    weights = LogisticRegression(C=PENALTY, fit_intercept=False, max_iter=1000).fit(views, labels).coef_[0]
    return lambda summaries: {summary: float(known[summary] @ weights) for summary in summaries}


def kept(name: str) -> Path:
    """Where something that follows from the candidates and the SFT model is kept, since it takes a minute."""
    of = hashlib.blake2b(CANDIDATES.read_bytes() + (SFT / "model.safetensors").read_bytes(), digest_size=8)
    Path(".resume").mkdir(exist_ok=True)
    return Path(f".resume/votes-{of.hexdigest()}-{name}")


@cache
def features() -> dict[Summary, np.ndarray]:
    """The SFT model's hidden state at the last token of every summary, standardised."""
    asked = [side for pair in candidate_pairs(CANDIDATES) if pair.split != "validation" for side in sides(pair)]
    summaries = list(dict.fromkeys(asked + samples()[0]))
    if not (file := kept("features.npy")).exists():
        np.save(file, hidden_states(summaries))
    hidden = np.load(file)
    return dict(zip(summaries, (hidden - hidden.mean(0)) / hidden.std(0), strict=True))


def hidden_states(summaries: list[Summary]) -> np.ndarray:
    """[summaries, width] of the SFT model, after post and summary."""
    set_up(1, 1, "native")
    import torch

    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.models.loading import new_reward_model
    from minirlhf.rewards.model import RewardModel, pad

    reward = RewardModel(new_reward_model(SFT, None), read_tokenizer(SFT, None))
    prompts, texts, ended = map(list, zip(*summaries, strict=True))
    sequences = reward.encode(prompts, texts, ended)
    order = sorted(range(len(summaries)), key=lambda index: len(sequences[index]["input_ids"]))
    hidden = np.zeros((len(summaries), reward.model.config.hidden_size), np.float32)
    with torch.no_grad():
        for group in (order[start : start + 32] for start in range(0, len(order), 32)):
            batch = pad([sequences[index] for index in group])
            states = reward.model.base_model(input_ids=batch["input_ids"], use_cache=False)[0]
            hidden[group] = states[torch.arange(len(group)), batch["lengths"] - 1].numpy()
    return hidden


@cache
def samples() -> tuple[list[Summary], np.ndarray]:
    """N of SFT's summaries of each held-out post, and their gold scores [posts, N]."""
    posts = read_jsonl("data/prepared/posts/test.jsonl")[-HELD_OUT:]  # no candidates were sampled for these
    if not (file := kept("samples.jsonl")).exists():
        write_jsonl(file, sampled([post["prompt"] for post in posts]))
    rows, of = read_jsonl(file), [post for post in posts for _ in range(N)]
    told = [(post["prompt"], row["text"], row["ended"]) for post, row in zip(of, rows, strict=True)]
    scores = [judge(text, post["record"], ended).score for (_, text, ended), post in zip(told, of, strict=True)]
    return told, np.array(scores).reshape(-1, N)


def sampled(prompts: list[str]) -> list[dict]:
    """N summaries of each prompt by SFT, at the temperature at which it is best."""
    set_up(1, 1, "native")
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.models.trunk import TrunkAndHead
    from minirlhf.sampling.summaries import FIRST_BEST_OF_N_EPISODE, sample

    found = sample(
        TrunkAndHead(load_policy(SFT).eval()), load_tokenizer(SFT), prompts, temperature=0.7, max_new_tokens=53, seed=1,
        samples_per_prompt=N, first_episode=FIRST_BEST_OF_N_EPISODE,
    )  # fmt: skip
    return [{"text": text, "ended": ended} for text, ended in zip(found.texts, found.ended.tolist(), strict=True)]
