"""What the studies of runs share: tables that grow by a row a run, and a look at a policy's summaries."""

import csv
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from minirlhf.settings.params import Params
    from minirlhf.statistics.bootstrap import Estimate

ROOT = Path(__file__).resolve().parents[1]


def rows_of(table: Path) -> list[dict]:
    """The rows of a CSV file; none where there is no file."""
    if not table.exists():
        return []
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def interval(found: "Estimate", form: str) -> str:
    """An estimate as the tables show it."""
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def append(table: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Add rows to a CSV file, floats to five digits."""
    new = not table.exists()
    with open(table, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.5g}" if isinstance(v := row[name], float) else v for name in columns})


def side_by_side(jobs: int, function: Callable[..., Any], items: Iterable[tuple]) -> Iterable[Any]:
    """`function(*item)` of each item in a new process, so many at a time; results as they come."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(function, *item) for item in items]):
            yield future.result()


def changed(algorithm: str, seed: int, changes: dict) -> "Params":
    """params.yaml with one thread, this algorithm and seed, and changes in the algorithm's section."""
    from minirlhf.settings.params import load_params

    params = load_params(ROOT / "params.yaml")
    changes = ({"eval_every": 0, "snapshot_every": 0} if algorithm == "ppo" else {}) | changes
    section = getattr(params, algorithm)
    section = type(section)(**(section.model_dump() | changes))
    return params.model_copy(update={"seed": seed, "threads": 1, "algorithm": algorithm, algorithm: section})


def aligned(params: "Params", reward) -> tuple["nn.Module", float | None, float]:
    """The policy, aligned from models/sft as the stage does it; explained variance of PPO's critic (the mean over the
    second half of the updates); seconds of processor time."""
    import torch

    from minirlhf.baselines.align import align
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo import PPOTrainer
    from minirlhf.ppo.build import critic_start
    from minirlhf.runtime.files import read_jsonl

    torch.set_num_threads(params.threads)
    sft = ROOT / "models/sft"
    posts = {split: read_jsonl(ROOT / f"data/prepared/posts/{split}.jsonl") for split in ("train", "validation")}
    prompts = {split: [row["prompt"] for row in rows] for split, rows in posts.items()}
    started = time.process_time()
    if params.algorithm == "ppo":
        tokenizer = load_tokenizer(sft)
        options = {"critic_init": critic_start(params.ppo, ROOT / "models/reward", tokenizer), "seed": params.seed}
        trainer = PPOTrainer(params.ppo, load_policy(sft), tokenizer, reward, prompts["train"], device="cpu", **options)
        history = trainer.train()
        explained = statistics.fmean(row["explained_variance"] for row in history[len(history) // 2 :])
        return trainer.models.policy.model, explained, time.process_time() - started
    files = [ROOT / f"data/{name}/train.jsonl" for name in ("prepared/comparisons", "collected")]
    comparisons = [row for file in files for row in read_jsonl(file)]
    policy = align(sft, reward, prompts, comparisons, params, "cpu").policy
    return policy, None, time.process_time() - started


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is of words, the others of numbers."""
    lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1)), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def mean_and_spread(rows: Iterable[dict], figure: str) -> str:
    """The mean of what the rows have, ± the standard deviation between them."""
    numbers = [float(row[figure]) for row in rows if row[figure]]
    spread = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):.2f}{spread}" if numbers else ""


class Look:
    """What a policy writes on B posts of the embedded world (`split`), with the same random numbers each time."""

    def __init__(self, split: str, count: int | None = None, max_new_tokens: int = 53):
        from minirlhf.hub.configs import load_tokenizer
        from minirlhf.models.loading import load_policy
        from minirlhf.runtime.files import read_jsonl
        from minirlhf.text.prompts import encode_prompts

        self.posts = read_jsonl(ROOT / f"data/prepared/posts/{split}.jsonl")[:count]
        self.prompts = [row["prompt"] for row in self.posts]
        self.tokenizer, self.reference = load_tokenizer(ROOT / "models/sft"), load_policy(ROOT / "models/sft")
        self.ids, self.max_new_tokens = encode_prompts(self.tokenizer, self.prompts), max_new_tokens

    def drawn(self, policy: "nn.Module", temperature: float):
        """The `Summaries` of the posts."""
        from minirlhf.sampling.summaries import sample

        options = {"temperature": temperature, "max_new_tokens": self.max_new_tokens, "seed": 0}
        return sample(policy, self.tokenizer, self.prompts, **options)

    def golds(self, summaries) -> list[float]:
        """The gold score of each."""
        from minirlhf.world.judge import judge

        rows = zip(summaries.texts, self.posts, summaries.ended, strict=True)
        return [judge(text.strip(), row["record"], bool(ended)).score for text, row, ended in rows]

    def at_training_temperature(self, policy: "nn.Module", reward, temperature: float = 1.0) -> dict[str, float]:
        """Means: gold, reward, kl in nats a response, length in tokens."""
        from minirlhf.rewards.text import call_reward
        from minirlhf.sampling.summaries import log_probabilities

        summaries = self.drawn(policy, temperature)
        before = log_probabilities(self.reference, self.ids, summaries.token_ids, temperature, 32)
        scores = call_reward(reward, self.prompts, summaries.texts, summaries.ended.tolist(), summaries.token_ids)
        return {
            "gold": statistics.fmean(self.golds(summaries)),
            "reward": statistics.fmean(scores),
            "kl": float((summaries.logprobs - before).mean()),
            "length": float(summaries.lengths.mean()),
        }
