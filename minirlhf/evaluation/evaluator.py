"""The evaluate stage's work, in phases: sample, score, judge, follow the frontier, and put the numbers together."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minirlhf.evaluation import tables
from minirlhf.evaluation.endpoint import Endpoint
from minirlhf.evaluation.findings import PAIRS, POLICIES, Findings, Measured, put_together
from minirlhf.evaluation.frontier import best_of_n, best_of_n_kl
from minirlhf.evaluation.judges import judge_names, load_function
from minirlhf.evaluation.measures import Measures, measure
from minirlhf.evaluation.pairwise import PairwiseJudge, Verdicts, checked
from minirlhf.evaluation.people import match
from minirlhf.feedback.votes import Votes
from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import check_vocabulary, load_policy
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.rewards.model import RewardModel
from minirlhf.rewards.text import RewardFunction, call_reward
from minirlhf.runtime.device import choose_device
from minirlhf.runtime.progress import Progress
from minirlhf.sampling.summaries import FIRST_BEST_OF_N_EPISODE, Summaries, log_probabilities, sample, written
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.text.prompts import encode_all
from minirlhf.world import judge as gold_judge
from minirlhf.world.grammar import SLOTS

if TYPE_CHECKING:
    from minirlhf.settings.params import Params


@dataclass
class Evaluator:
    """Held-out posts and everything needed to summarize and to score them."""

    posts: list[dict]
    params: "Params"
    tokenizer: object
    reward: RewardFunction
    judge: RewardFunction | PairwiseJudge | None = None  # a second opinion, evaluate.judge of the params
    device: str = "cpu"
    prompts: list[str] = field(init=False)
    references: list[str] = field(init=False)
    bootstrap: Bootstrap = field(init=False)
    judges: dict[str, str] = field(init=False)  # measure -> its name for readers; the first decides

    def __post_init__(self):
        self.prompts = [post["prompt"] for post in self.posts]
        self.references = [post["completion"] for post in self.posts]
        self.bootstrap = Bootstrap(self.params.seed, self.params.evaluate.bootstrap)
        self.judges = judge_names(self.has_gold, self.params.evaluate.judge)

    @property
    def has_gold(self) -> bool:
        """Whether every post carries the record of its truth, whole."""
        records = [post.get("record") for post in self.posts]
        return all(isinstance(record, dict) and record.keys() == set(SLOTS) for record in records)

    @property
    def scorer(self) -> RewardFunction | None:
        """The params' judge, if it gives scores."""
        return None if isinstance(self.judge, PairwiseJudge) else self.judge

    @property
    def frontier_count(self) -> int:
        """Posts of the frontier: the first ones."""
        return min(self.params.evaluate.frontier_posts, len(self.posts))

    # Phase 1: summaries

    def load(self, folder: Path) -> TrunkAndHead:
        """A policy, on the device."""
        model = load_policy(folder).to(self.device).eval()
        check_vocabulary(model, self.tokenizer, folder)
        return TrunkAndHead(model)

    def sample(self, policy: TrunkAndHead, temperature: float, count: int | None = None, **options) -> Summaries:
        """A policy's summaries of the first `count` posts, all by default; options as of `systems.sample`."""
        prompts = self.prompts[:count]
        total = len(prompts) * options.get("samples_per_prompt", 1)
        with Progress(total, "summaries", "evaluate: sampling") as progress:
            return sample(
                policy,
                self.tokenizer,
                prompts,
                temperature=temperature,
                max_new_tokens=self.params.ppo.max_new_tokens,
                seed=self.params.seed,
                batch_size=self.params.evaluate.batch_size,
                progress=progress.update,
                **options,
            )

    # Phase 2: scores

    def score(self, function: RewardFunction, prompts: Sequence[str], summaries: Summaries) -> list[float]:
        """One score a summary, by a reward function; scores of tokens are added up."""
        scores = call_reward(function, prompts, summaries.texts, summaries.ended.tolist(), summaries.token_ids)
        return [sum(score) if isinstance(score, list) else score for score in scores]

    def measure(self, summaries: Summaries) -> Measures:
        """Everything that is measured on one system's summaries of all posts."""
        records = [post["record"] for post in self.posts] if self.has_gold else None
        found = measure(
            self.prompts,
            self.references,
            summaries,
            self.score(self.reward, self.prompts, summaries),
            gold_judge if self.has_gold else None,
            records,
        )
        if self.scorer is not None:
            found["judge"] = np.array(self.score(self.scorer, self.prompts, summaries), float)
        return found

    def compare(self, systems: dict[str, Summaries]) -> dict[tuple[str, str], Verdicts]:
        """What the params' judge says of each pair of systems, if it compares."""
        if not isinstance(self.judge, PairwiseJudge):
            return {}
        return {
            (one, other): self.judge.compare(self.prompts, systems[one].texts, systems[other].texts)
            for one, other in PAIRS
        }

    def judged(self, prompts: Sequence[str], summaries: Summaries, posts: Sequence[dict]) -> np.ndarray | None:
        """Scores of any summaries by the first judge apart from the training reward; None if there is none."""
        if self.has_gold:
            triples = zip(summaries.texts, posts, summaries.ended.tolist(), strict=True)
            return np.array([gold_judge(text, post["record"], ended).score for text, post, ended in triples])
        return None if self.scorer is None else np.array(self.score(self.scorer, prompts, summaries))

    def kl(self, summaries: Summaries, sft: TrunkAndHead) -> np.ndarray:
        """[B] log ratio of each sampled summary under its policy and under SFT, nats: its mean estimates the KL."""
        prompt_ids = encode_all(self.tokenizer, self.prompts[: len(summaries.texts)])
        size, temperature = self.params.evaluate.batch_size, self.params.ppo.temperature
        return summaries.logprobs - log_probabilities(sft, prompt_ids, summaries.token_ids, temperature, size)

    # Phase 3: the frontier

    def best_of_n_rows(self, sft: TrunkAndHead) -> list[dict]:
        """Points of best-of-n, n = 1, 2, 4, ... by the training reward, from one set of samples of the SFT policy."""
        largest, count = self.params.evaluate.best_of_n, self.frontier_count
        if largest == 1:
            return []
        drawn = self.sample(
            sft,
            self.params.ppo.temperature,
            count,
            samples_per_prompt=largest,
            first_episode=FIRST_BEST_OF_N_EPISODE,
        )
        prompts = [prompt for prompt in self.prompts[:count] for _ in range(largest)]
        posts = [post for post in self.posts[:count] for _ in range(largest)]
        proxy = np.array(self.score(self.reward, prompts, drawn)).reshape(count, largest)
        gold = self.judged(prompts, drawn, posts)
        sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest] + [largest]
        return [
            tables.frontier_row(
                "best-of-n",
                n,
                best_of_n_kl(n),
                self.bootstrap.mean(best_of_n(proxy, proxy, n)),
                None if gold is None else self.bootstrap.mean(best_of_n(proxy, gold.reshape(count, largest), n)),
            )
            for n in sizes
        ]

    def policy_row(self, episodes: int, policy_summaries: Summaries, sft: TrunkAndHead) -> dict:
        """The point of a policy on PPO's path, from its sampled summaries of the frontier's posts."""
        count = len(policy_summaries.texts)
        proxy = self.score(self.reward, self.prompts[:count], policy_summaries)
        gold = self.judged(self.prompts[:count], policy_summaries, self.posts[:count])
        kl = self.kl(policy_summaries, sft).mean() if episodes else 0.0
        judged = None if gold is None else self.bootstrap.mean(gold)
        return tables.frontier_row("ppo", episodes, kl, self.bootstrap.mean(proxy), judged)


def evaluate(
    posts: list[dict],
    params: "Params",
    sft: Path,
    ppo: Path,
    reward: Path,
    snapshots: Path,
    episodes: int,
    votes: Votes | None = None,
) -> Findings:
    """Everything that the stage finds out.

    Args:
        posts: held-out rows of prompt and completion (and record, subreddit).
        sft, ppo, reward: folders of the models.
        snapshots: folder of policies kept during PPO's training, one a subfolder whose name ends in the number of
            its episodes; may be missing.
        episodes: that the policy in `ppo` learnt from.
        votes: of people, on these policies' summaries or on others.

    Raises:
        UserError: a model is missing or does not fit, or a judge cannot be loaded.
    """
    device = choose_device(params.device)
    tokenizer = load_tokenizer(sft)
    reward_model, judge = load_reward(reward, params, device), load_judge(params, device)
    evaluator = Evaluator(posts, params, tokenizer, reward_model, judge, device)
    if isinstance(judge, PairwiseJudge):  # one that cannot be asked fails now, not after all sampling
        judge.ask(evaluator.prompts[:1], evaluator.references[:1], evaluator.references[:1])
    before, after = evaluator.load(sft), evaluator.load(ppo)
    authors = written(tokenizer, evaluator.references)
    summaries = {
        decoding: {
            "reference": authors,
            "sft": evaluator.sample(before, temperature),
            "ppo": evaluator.sample(after, temperature),
        }
        for decoding, temperature in (("sampled", params.ppo.temperature), ("greedy", 0.0))
    }
    known = {"reference": evaluator.measure(authors)}  # the same whatever the decoding
    measures = {
        decoding: known | {name: evaluator.measure(of[name]) for name in POLICIES} for decoding, of in summaries.items()
    }
    sampled = summaries["sampled"]
    measured = Measured(
        posts=posts,
        post_tokens=np.array([len(ids) for ids in encode_all(tokenizer, evaluator.prompts)]),
        summaries=summaries,
        measures=measures,
        log_ratios=evaluator.kl(sampled["ppo"], before),
        verdicts=evaluator.compare(sampled),
        people=match(votes or Votes(), evaluator.prompts, sampled),
        frontier=evaluator.best_of_n_rows(before) + path_of_ppo(evaluator, before, sampled, snapshots, episodes),
    )
    judges = evaluator.judges
    if by_people(params) and not (measured.people and measured.people.decide):
        del judges["judge"]
        said = "nobody has voted on each pair of these systems' summaries yet; `minirlhf label results` opens the page"
        print(f"evaluate: {said}", file=sys.stderr)
    return put_together(measured, judges, evaluator.bootstrap, params.seed, params.algorithm.upper())


def by_people(params: "Params") -> bool:
    """Whether the params name people as the judge."""
    return params.evaluate.judge is not None and params.evaluate.judge.kind == "people"


def load_reward(name: str | Path, params: "Params", device: str, **options) -> RewardFunction:
    """A reward model of a folder or a hub name; the one that PPO was trained on knows its own format and scale."""
    options |= {"device": device, "precision": params.precision, "desc": "evaluate: scoring"}
    return RewardModel.load(name, batch_size=params.evaluate.batch_size, **options)


def load_judge(params: "Params", device: str) -> RewardFunction | PairwiseJudge | None:
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


def numbered_folders(parent: Path) -> dict[int, Path]:
    """The subfolders whose names end in a number, by that number; none where there is no such folder."""
    if not parent.is_dir():
        return {}
    named = ((re.search(r"(\d+)$", folder.name), folder) for folder in parent.iterdir() if folder.is_dir())
    return {int(match.group(1)): folder for match, folder in named if match}
