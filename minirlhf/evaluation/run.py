"""The evaluate stage's work: temperatures are chosen, summaries sampled, scored and judged, the frontier followed."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minirlhf.evaluation.endpoint import Endpoint
from minirlhf.evaluation.evaluator import Evaluator
from minirlhf.evaluation.findings import POLICIES, Findings, Measured, put_together
from minirlhf.evaluation.pairwise import PairwiseJudge, checked
from minirlhf.evaluation.people import match
from minirlhf.evaluation.selection import best_of_n, choose_all
from minirlhf.feedback.votes import Votes
from minirlhf.hub.configs import load_tokenizer
from minirlhf.hub.functions import load_function
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.rewards.model import RewardModel
from minirlhf.rewards.text import RewardFunction
from minirlhf.runtime.device import choose_device
from minirlhf.runtime.files import numbered_folders
from minirlhf.sampling.summaries import Summaries, written
from minirlhf.settings.evaluation import PeopleJudge
from minirlhf.settings.params import Params
from minirlhf.text.prompts import encode_prompts


def evaluate(
    posts: Sequence[dict],
    validation: Sequence[dict],
    params: Params,
    sft: str | Path,
    ppo: str | Path,
    reward: str | Path,
    snapshots: Path,
    episodes: int,
    votes: Votes | None = None,
    rounds: Mapping[int, Path] | None = None,
) -> Findings:
    """Everything that the stage finds out.

    Args:
        posts: held-out rows of prompt and completion (and record, subreddit), on which systems are compared.
        validation: likewise, on which each policy's temperature is chosen.
        sft, ppo, reward: folders of the models.
        snapshots: folder of policies kept during PPO's training, one a subfolder whose name ends in the number of
            its episodes; may be missing.
        episodes: that the policy in `ppo` learnt from.
        votes: of people, on these policies' summaries or on others.
        rounds: folders of the policies of earlier rounds of feedback, by the round's number.

    Raises:
        UserError: a model is missing or does not fit, or a judge cannot be loaded.
    """
    device = choose_device(params.device, params.precision)
    tokenizer = load_tokenizer(sft)
    reward_model, judge = load_reward(reward, params, device), load_judge(params, device)
    evaluator = Evaluator(list(posts), params, tokenizer, reward_model, judge, device)
    if isinstance(judge, PairwiseJudge):  # one that cannot be asked fails now, not after all sampling
        judge.ask(evaluator.prompts[:1], evaluator.references[:1], evaluator.references[:1])
    policies = {"sft": evaluator.load(sft), "ppo": evaluator.load(ppo)}
    chosen_on = list(validation[: params.evaluate.selection_posts])
    chooser = Evaluator(chosen_on, params, tokenizer, reward_model, judge, device)
    choice = choose_all(chooser, policies)

    authors = written(tokenizer, evaluator.references)
    decodings = {
        "best": choice.best,
        "sampled": dict.fromkeys(POLICIES, params.ppo.temperature),
        "greedy": dict.fromkeys(POLICIES, 0.0),
    }
    drawn: dict[tuple[str, float], Summaries] = {}
    for of in decodings.values():
        for name, temperature in of.items():
            if (name, temperature) not in drawn:
                drawn[name, temperature] = evaluator.sample(policies[name], temperature)
    measured_once = {key: evaluator.measure(summaries) for key, summaries in drawn.items()}
    known = evaluator.measure(authors)  # the same whatever the decoding
    summaries = {
        decoding: {"reference": authors} | {name: drawn[name, t] for name, t in of.items()}
        for decoding, of in decodings.items()
    }
    measures = {
        decoding: {"reference": known} | {name: measured_once[name, t] for name, t in of.items()}
        for decoding, of in decodings.items()
    }
    sampled = summaries["sampled"]
    earlier = {
        number: evaluator.sample(evaluator.load(folder), params.ppo.temperature)
        for number, folder in sorted((rounds or {}).items())
    }
    measured = Measured(
        posts=posts,
        post_tokens=np.array([len(ids) for ids in encode_prompts(tokenizer, evaluator.prompts)]),
        summaries=summaries,
        measures=measures,
        choice=choice,
        best_of_n=best_of_n(evaluator, policies["sft"], choice),
        log_ratios=evaluator.kl(sampled["ppo"], policies["sft"]),
        verdicts=evaluator.compare(summaries["best"]),
        people=match(votes or Votes(), evaluator.prompts, summaries["best"]),
        frontier=evaluator.best_of_n_rows(policies["sft"])
        + path_of_ppo(evaluator, policies["sft"], sampled, snapshots, episodes)
        + [
            evaluator.policy_row(number, drawn.first(evaluator.frontier_count), policies["sft"], "round")
            for number, drawn in earlier.items()
        ],
        rounds={
            number: (evaluator.measure(drawn), evaluator.kl(drawn, policies["sft"]))
            for number, drawn in earlier.items()
        },
    )
    judges = evaluator.judges
    if params.evaluate.judge == PeopleJudge(kind="people") and not (measured.people and measured.people.decide):
        del judges["judge"]
        said = "nobody has voted on each pair of these systems' summaries yet; `minirlhf label results` opens the page"
        print(f"evaluate: {said}", file=sys.stderr)
    return put_together(measured, judges, evaluator.bootstrap, params.seed, params.algorithm.upper())


def load_reward(name: str | Path, params: Params, device: str, **options) -> RewardFunction:
    """A reward model of a folder or a hub name; the one that PPO was trained on knows its own format and scale."""
    options |= {"device": device, "precision": params.precision, "desc": "evaluate: scoring"}
    return RewardModel.load(name, batch_size=params.evaluate.batch_size, **options)


def load_judge(params: Params, device: str) -> RewardFunction | PairwiseJudge | None:
    """The judge that the params name, if they do: one that scores, or one that compares."""
    judge = params.evaluate.judge
    if judge is None or judge.kind == "people":  # their votes are there already, or not yet
        return None
    if judge.kind == "function":
        return load_function(judge.name)
    if judge.kind == "pairwise_function":
        return PairwiseJudge(checked(load_function(judge.name), judge.name))
    if judge.kind == "endpoint":
        return PairwiseJudge(Endpoint(judge.url, judge.name, judge.timeout), judge.max_posts)
    return load_reward(judge.name, params, device, revision=judge.revision, format=judge.format)


def path_of_ppo(
    evaluator: Evaluator, sft: TrunkAndHead, sampled: dict[str, Summaries], snapshots: Path, episodes: int
) -> list[dict]:
    """Points from the SFT policy over PPO's snapshots, in order, to the policy delivered, after so many episodes."""
    count = evaluator.frontier_count
    rows = [evaluator.policy_row(0, sampled["sft"].first(count), sft)]
    for point, folder in sorted(numbered_folders(snapshots).items()):
        if point < episodes:
            drawn = evaluator.sample(evaluator.load(folder), evaluator.params.ppo.temperature, count)
            rows.append(evaluator.policy_row(point, drawn, sft))
    return [*rows, evaluator.policy_row(episodes, sampled["ppo"].first(count), sft)]
