"""A folder as the stages leave it, with summaries made up so that the outcome is known: PPO's are right more often."""

import json
import random
import shutil

import numpy as np
import pytest


def made_up(posts, right):
    """Summaries that state all facts with this chance, and otherwise as many that are wrong: equally long."""
    from minirlhf.sampling.summaries import Summaries
    from minirlhf.world.posts import join_clauses, other_value, state_facts

    rng = random.Random(1)
    texts = []
    for post in posts:
        told = dict(post["record"])
        if rng.random() > right:
            told = {slot: other_value(rng, slot, value) for slot, value in told.items()}
        texts.append(" " + join_clauses(rng, state_facts(rng, told)))
    return Summaries(texts, np.ones(len(texts), bool), tokens(texts), np.full(len(texts), -9.0))


def authors(posts):
    from minirlhf.sampling.summaries import Summaries

    texts = [post["completion"] for post in posts]
    return Summaries(texts, np.ones(len(texts), bool), tokens(texts))


def tokens(texts):
    return [[1] * (len(text.split()) + 1) for text in texts]


def find(posts, judges, scorer=None, compare=None, vote=None):
    """What evaluate finds on these posts, by the library's own code; the params' judge scores or compares, people vote.

    Args:
        vote: (posts, systems' summaries) -> the votes of people.
    """
    from minirlhf.evaluation.findings import PAIRS, Measured, put_together
    from minirlhf.evaluation.measures import measure
    from minirlhf.evaluation.people import match
    from minirlhf.evaluation.tables import frontier_row
    from minirlhf.evaluation.temperatures import BestOfN, Choice
    from minirlhf.statistics.bootstrap import Bootstrap
    from minirlhf.world import judge

    bootstrap = Bootstrap(0, 100)
    summaries = {"reference": authors(posts), "sft": made_up(posts, 0.3), "ppo": made_up(posts, 0.9)}
    records = [post["record"] for post in posts] if "gold" in judges else None
    measures = {}
    for name, found in summaries.items():
        rewards = [judge(text, post["record"]).score / 4 - 1 for text, post in zip(found.texts, posts, strict=True)]
        given = (judge, records) if records else ()
        measures[name] = measure([p["prompt"] for p in posts], [p["completion"] for p in posts], found, rewards, *given)
        if scorer:
            measures[name]["judge"] = np.array([scorer(text) for text in found.texts])
    prompts = [post["prompt"] for post in posts]
    pairs = {(a, b): (summaries[a].texts, summaries[b].texts) for a, b in PAIRS} if compare else {}
    scores = {kl: bootstrap.mean(np.arange(3.0) + kl) for kl in (0.0, 2.0)}
    judged = scores if records or scorer else {}
    path = [frontier_row("ppo", at, kl, scores[kl], judged.get(kl)) for at, kl in ((0, 0.0), (64, 2.0))]
    scoring = next(name for name in judges if name in measures["ppo"])
    at = {name: {0.0: measures[name][scoring], 1.0: measures[name][scoring] - 1} for name in ("sft", "ppo")}
    measured = Measured(
        posts=posts,
        post_tokens=np.arange(len(posts), dtype=float),
        summaries=dict.fromkeys(("best", "sampled", "greedy"), summaries),
        measures=dict.fromkeys(("best", "sampled", "greedy"), measures),
        choice=Choice(at),
        best_of_n=BestOfN(16, 0.5, len(posts), bootstrap.mean(measures["sft"][scoring] + 0.5)),
        log_ratios=np.linspace(1.0, 3.0, len(posts)),
        frontier=path,
        verdicts={pair: compare.compare(prompts, *texts) for pair, texts in pairs.items()},
        people=match(vote(posts, summaries), prompts, summaries) if vote else None,
    )
    return put_together(measured, judges, bootstrap, seed=0)


def reward_tables(truth):
    """What the reward stage says of a reward model that sees every fault; with the truth known or not."""
    probes = ("wrong", "misread", "missing", "filler", "repeated", "ungrammatical", "cut")
    ends = {"difference": 0.5, "difference_low": 0.4, "difference_high": 0.6}
    shares = [{"margin": 0.1 * at, "value": 0.5 + 0.1 * at, "low": 0.45, "high": 0.95, "count": 9} for at in (1, 2, 3)]
    return {
        "reward_margins": shares,
        "gold_margins": [{"who": who} | row for who in ("model", "annotators") for row in shares] if truth else [],
        "reward_probes": [
            {"probe": probe, "value": 0.8, "low": 0.7, "high": 0.9, "count": 20, **ends, "gold": 2.0}
            for probe in probes
            if truth
        ],
    }


def reward_metrics(truth):
    share = {"value": 0.7, "low": 0.6, "high": 0.8}
    gold = {"reward_gold": {"model": share, "annotators": share, "spearman": 0.5}} if truth else {}
    length = {"pearson": 0.1, "spearman": 0.2, "longer_by_model": share, "longer_by_annotators": share}
    intervals = {"accuracy": share}
    return {"reward_accuracy": 0.7, "reward_length": length, **gold, "reward_intervals": intervals}


def write(folder, posts, judges, settings, **judge):
    from minirlhf.evaluation.seeds import seed_row
    from minirlhf.evaluation.tables import COLUMNS
    from minirlhf.runtime.files import write_csv, write_json, write_jsonl

    found = find(posts, judges, **judge)
    for name, rows in found.plots.items():
        write_csv(folder / "details" / f"{name}.csv", rows, COLUMNS.get(name))
    write_json(folder / "details" / "evaluate.json", found.metrics)
    write_jsonl(folder / "details" / "summaries.jsonl", found.summaries)
    (folder / "details" / "summaries.md").write_text(found.page)
    names = ("reward", "kl", "length", "ended", "entropy", "policy_loss", "value_loss", "clip_fraction")
    names += ("explained_variance", "policy_grad_norm", "eval_reward", "eval_kl", "eval_length", "eval_ended")
    ppo = [{"update": u, "episodes": 64 * u} | {name: 0.1 * u for name in names} for u in range(5)]
    ppo[0] |= {name: None for name in names if not name.startswith("eval_")}
    tables = {
        "sft": [{"step": 2, "train_loss": 1.5, "eval_loss": None}, {"step": 4, "train_loss": 1.0, "eval_loss": 1.1}],
        "reward": [{"step": 2, "train_loss": 0.6, "eval_loss": 0.65, "eval_accuracy": 0.7}] * 2,
        "calibration": [{"predicted": share, "observed": share + 0.05, "count": 9} for share in (0.25, 0.75)],
        "lengths": [
            {"source": "posts", "column": column, "tokens": at, "share": 0.5}
            for column in ("prompt", "completion")
            for at in (10, 20)
        ],
        "ppo": ppo,
        **reward_tables("gold" in judges),
    }
    own = seed_row(1, found.metrics)
    seeds = [own, {name: value + (1 if name == "seed" else 0.1) for name, value in own.items()}]
    write_csv(folder / "metrics" / "seeds.csv", seeds)
    for name, rows in tables.items():
        write_csv(folder / "details" / f"{name}.csv", rows)
    write_json(folder / "details" / "reward.json", reward_metrics("gold" in judges))
    write_json(folder / "details" / "ppo.json", {"stopped": None})
    for name in ("prepare", "sft"):
        write_json(folder / "details" / f"{name}.json", {})
    for name in ("posts", "comparisons"):
        write_json(folder / "data" / "sources" / f"{name}.json", {"kind": "embedded"})
    write_json(folder / "data" / "sources" / "base.json", {"kind": "folder", "name": "models/base", "sha256": "a1b2"})
    write_json(folder / "data" / "sources" / "reward.json", {"kind": "trained"})
    (folder / "params.yaml").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def some_posts():
    """Enough posts for slices."""
    from minirlhf.world import posts

    return list(posts(4, "test", 36))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, some_posts, make_settings):
    """Results of the embedded world."""
    judges = {"gold": "gold", "reward": "training reward"}
    return write(tmp_path_factory.mktemp("embedded"), some_posts, judges, make_settings())


@pytest.fixture(scope="session")
def real(tmp_path_factory, some_posts, make_settings):
    """Results on posts without a truth, judged by the training reward alone."""
    folder = tmp_path_factory.mktemp("real")
    return write(folder, some_posts, {"reward": "training reward"}, make_settings())


NAMED = "models/own/another-reward-model"


@pytest.fixture(scope="session")
def scored(tmp_path_factory, some_posts, make_settings):
    """Results on posts without a truth, judged by a second reward model."""
    judges = {"judge": NAMED, "reward": "training reward"}
    return write(tmp_path_factory.mktemp("scored"), some_posts, judges, make_settings(), scorer=lambda text: len(text))


@pytest.fixture(scope="session")
def compared(tmp_path_factory, some_posts, make_settings):
    """Results on posts without a truth, judged by a model that compares, likes the first place and refuses some."""
    from minirlhf.evaluation.pairwise import NotJudged, PairwiseJudge

    def ask(prompts, first, second):
        seen = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        answers = [1.0 if len(a) + 8 > len(b) else 0.0 for a, b in zip(first, second, strict=True)]
        return [NotJudged("refused") if seen[p] == 3 else a for p, a in zip(prompts, answers, strict=True)]

    judges = {"judge": "judge-7b", "reward": "training reward"}
    folder, judge = tmp_path_factory.mktemp("compared"), PairwiseJudge(ask, max_posts=30)
    return write(folder, some_posts, judges, make_settings(), compare=judge)


def votes_of_two(posts, summaries):
    """Two people vote on a third of the pairs: anna by the words of the post, ben by lot half the time."""
    from minirlhf.feedback.pairs import SYSTEMS, pair_of
    from minirlhf.feedback.votes import Pair, Summary, Vote, Votes, digest

    votes, rng = Votes(), random.Random(2)
    for row, post in enumerate(posts):
        for names in SYSTEMS:
            one, other = ((name, summaries[name].texts[row].strip(), True) for name in names)
            if one[1] == other[1] or row % 3:
                continue
            pair = pair_of(post["prompt"], one, other)
            votes.pairs[pair.id] = pair
            words = [len(set(text.split()) & set(post["prompt"].split())) for _, text, _ in (one, other)]
            for voter in ("anna", "ben"):
                choice = "left" if words[0] > words[1] else "right"
                choice = rng.choice(["left", "right", "tie"]) if voter == "ben" and rng.random() < 0.5 else choice
                key = digest(voter, pair.id)
                votes.take(Vote(id=key, voter=voter, pair=pair.id, left=0, choice=choice, shown=pair.shown(0)))
    check = Pair(prompt="known", summaries=(Summary(text="a"), Summary(text="b")), known=0)
    votes.pairs[check.id] = check
    votes.take(Vote(id=digest("c"), voter="anna", pair=check.id, left=0, choice="left", shown=check.shown(0)))
    return votes


@pytest.fixture(scope="session")
def voted(tmp_path_factory, some_posts, make_settings):
    """Results on posts without a truth, judged by people."""
    judges = {"judge": "people", "reward": "training reward"}
    return write(tmp_path_factory.mktemp("voted"), some_posts, judges, make_settings(), vote=votes_of_two)


@pytest.fixture(scope="session")
def in_rounds(tmp_path_factory, embedded):
    """Results after two rounds of feedback, the first of which was no better than SFT and saw nothing."""
    from minirlhf.report.inputs import read_inputs
    from minirlhf.runtime.files import read_csv, read_json, write_csv, write_json

    folder = shutil.copytree(embedded, tmp_path_factory.mktemp("rounds") / "run")
    metrics = read_json(folder / "details/evaluate.json")
    first = metrics["intervals"]["sft"] | {"kl": {"value": 1.25, "low": 1.0, "high": 1.5}}
    write_json(folder / "details/evaluate.json", metrics | {"rounds": {"0": first}})
    probes = read_csv(folder / "details/reward_probes.csv")
    write_csv(folder / "details/rounds/0/reward/reward_probes.csv", [row | {"value": 0.5} for row in probes])
    return read_inputs(folder / "details", folder / "metrics" / "seeds.csv")


@pytest.fixture
def inputs(embedded):
    from minirlhf.report.inputs import read_inputs

    return read_inputs(embedded / "details", embedded / "metrics" / "seeds.csv")
