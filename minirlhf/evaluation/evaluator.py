"""Posts, and what is done with a policy's summaries of them: sampled, scored, judged, set against their KL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minirlhf.evaluation import tables
from minirlhf.evaluation.findings import PAIRS
from minirlhf.evaluation.frontier import best_of_n, best_of_n_kl
from minirlhf.evaluation.judges import judge_names
from minirlhf.evaluation.measures import Measures, measure
from minirlhf.evaluation.pairwise import PairwiseJudge, Verdicts
from minirlhf.models.loading import check_vocabulary, load_policy
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.rewards.text import RewardFunction, call_reward
from minirlhf.runtime.progress import Progress
from minirlhf.sampling.summaries import FIRST_BEST_OF_N_EPISODE, Summaries, log_probabilities, sample
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.text.prompts import encode_prompts
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
        """One score a summary, by a reward function; scores of tokens are added up. Equal ones are scored once."""
        keys = list(
            zip(prompts, summaries.texts, summaries.ended.tolist(), map(tuple, summaries.token_ids), strict=True)
        )
        different = list(dict.fromkeys(keys))
        asked, texts, ended, ids = map(list, zip(*different, strict=True))
        scores = call_reward(function, asked, texts, ended, [list(row) for row in ids])
        totals = [sum(score) if isinstance(score, list) else score for score in scores]
        known = dict(zip(different, totals, strict=True))
        return [known[key] for key in keys]

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

    def chooser(self, summaries: Summaries) -> np.ndarray:
        """[B] scores by which a temperature is chosen: the deciding judge's where it gives any, else the reward's."""
        judged = self.judged(self.prompts, summaries, self.posts)
        return np.array(self.score(self.reward, self.prompts, summaries)) if judged is None else judged

    def judged(self, prompts: Sequence[str], summaries: Summaries, posts: Sequence[dict]) -> np.ndarray | None:
        """Scores of any summaries by the first judge apart from the training reward; None if there is none."""
        if self.has_gold:
            triples = zip(summaries.texts, posts, summaries.ended.tolist(), strict=True)
            return np.array([gold_judge(text, post["record"], ended).score for text, post, ended in triples])
        return None if self.scorer is None else np.array(self.score(self.scorer, prompts, summaries))

    def kl(self, summaries: Summaries, sft: TrunkAndHead) -> np.ndarray:
        """[B] log ratio of each sampled summary under its policy and under SFT, nats: its mean estimates the KL."""
        prompt_ids = encode_prompts(self.tokenizer, self.prompts[: len(summaries.texts)])
        size, temperature = self.params.evaluate.batch_size, self.params.ppo.temperature
        return summaries.logprobs - log_probabilities(sft, prompt_ids, summaries.token_ids, temperature, size)

    # Phase 3: the frontier

    def best_of_n_scores(
        self, policy: TrunkAndHead, temperature: float, count: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores [count, n] of n = `evaluate.best_of_n` samples of each of the first posts: reward, judge."""
        n = self.params.evaluate.best_of_n
        drawn = self.sample(policy, temperature, count, samples_per_prompt=n, first_episode=FIRST_BEST_OF_N_EPISODE)
        prompts = [prompt for prompt in self.prompts[:count] for _ in range(n)]
        posts = [post for post in self.posts[:count] for _ in range(n)]
        gold = self.judged(prompts, drawn, posts)
        proxy = np.array(self.score(self.reward, prompts, drawn)).reshape(count, n)
        return proxy, None if gold is None else gold.reshape(count, n)

    def best_of_n_rows(self, sft: TrunkAndHead) -> list[dict]:
        """Points of best-of-n, n = 1, 2, 4, ... by the training reward, from one set of samples of the SFT policy."""
        largest = self.params.evaluate.best_of_n
        if largest == 1:
            return []
        proxy, gold = self.best_of_n_scores(sft, self.params.ppo.temperature, self.frontier_count)
        sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest] + [largest]
        return [
            tables.frontier_row(
                "best-of-n",
                n,
                best_of_n_kl(n),
                self.bootstrap.mean(best_of_n(proxy, proxy, n)),
                None if gold is None else self.bootstrap.mean(best_of_n(proxy, gold, n)),
            )
            for n in sizes
        ]

    def policy_row(self, point: int, policy_summaries: Summaries, sft: TrunkAndHead, method: str = "ppo") -> dict:
        """The point of a policy on PPO's path (episodes; 0: SFT) or of a round, by its summaries of frontier posts."""
        count = len(policy_summaries.texts)
        proxy = self.score(self.reward, self.prompts[:count], policy_summaries)
        gold = self.judged(self.prompts[:count], policy_summaries, self.posts[:count])
        kl = self.kl(policy_summaries, sft).mean() if point or method != "ppo" else 0.0
        judged = None if gold is None else self.bootstrap.mean(gold)
        return tables.frontier_row(method, point, kl, self.bootstrap.mean(proxy), judged)
