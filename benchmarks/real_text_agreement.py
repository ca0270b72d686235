"""What a reward and a judge tell apart: several summaries of each post by the SFT policy, scored by both.

    python benchmarks/real_text_agreement.py --data shared/data --policy SMOLLM2    # after sft and reward

Printed are, by temperature, the spread of each one's scores between posts and within them, and how scores go together
within posts: with the reward's and with the judge's; of length too, and of the judge's twin, which learns as the judge
does, of the same model, from the reward's half of the comparisons. Where twins do not agree, what they say of two
summaries of a post is chance; where they do, it may still be wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import judges, real_text
from benchmarks.runs import markdown
from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.progress import Progress
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params

POSTS, SAMPLES = 120, 4


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tldr, tldr_more and tldr_gpt4")
    parser.add_argument("--policy", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--work", type=Path, default=Path("runs/judges"), help="for features")
    parser.add_argument("--limit", type=int, help="rows read of a file")
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    args.precision = params.precision
    set_up(params.seed, params.threads, params.arithmetic)

    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.models.trunk import TrunkAndHead
    from minirlhf.rewards.model import RewardModel
    from minirlhf.sampling.summaries import sample

    prompts = [row["prompt"] for row in read_jsonl("data/prepared/posts/test.jsonl")[:POSTS]]
    asked = [prompt for prompt in prompts for _ in range(SAMPLES)]
    policy, tokenizer = TrunkAndHead(load_policy("models/sft").eval()), load_tokenizer("models/sft")
    reward = RewardModel.load("models/reward", batch_size=32, precision=params.precision)
    heads = twins(args)
    lines = []
    for temperature in (each for each in params.evaluate.temperatures if each > 0):
        options = {"temperature": temperature, "max_new_tokens": params.ppo.max_new_tokens, "seed": 0}
        with Progress(len(asked), "summaries", f"sampling at {temperature}") as progress:
            drawn = sample(policy, tokenizer, prompts, samples_per_prompt=SAMPLES, progress=progress.update, **options)
        summaries = [(prompt, text, True) for prompt, text in zip(asked, drawn.texts, strict=True)]
        features = judges.extract(args.policy, summaries, args.precision)
        scores = {"reward": reward(asked, drawn.texts, drawn.ended.tolist())}
        scores |= {name: features @ head for name, head in heads.items()} | {"length": drawn.lengths}
        lines += [[str(temperature), *line] for line in together(scores)]
    header = ["temperature", "score", "spread between posts", "within a post", "share of the variance between posts"]
    print(markdown([*header, "correlation with the reward, within posts", "with the judge"], lines))


def twins(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """The heads of the judge and of its twin, learnt on the two halves of the comparisons."""
    compared, authors = judges.comparisons(args, "tldr_gpt4"), real_text.posts(args)["train"]
    known, heads = judges.features(args.policy, "tldr_gpt4", compared, args), {}
    rewards, judged = judges.cut(compared)
    for name, rows, at in (("judge", judged, 0), ("the judge's twin", rewards, real_text.AUTHORS)):
        unfit = real_text.unfit(rows, authors[at : at + real_text.AUTHORS])
        known |= judges.features(args.policy, f"unfit-{name.split()[-1]}", unfit, args)
        heads[name] = real_text.steady_head(rows + unfit, known)
    return heads


def together(scores: dict[str, Sequence[float]]) -> list[list[str]]:
    """A line a score of [POSTS * SAMPLES] summaries: its spreads; how it goes with reward and judge within posts."""
    by_post = {name: np.asarray(values, float).reshape(-1, SAMPLES) for name, values in scores.items()}
    within = {name: (values - values.mean(1, keepdims=True)).ravel() for name, values in by_post.items()}
    lines = []
    for name, values in by_post.items():
        inside = float(np.sqrt(values.var(1, ddof=1).mean()))
        between = float(np.sqrt(max(values.mean(1).var(ddof=1) - inside**2 / SAMPLES, 0)))
        with_both = [f"{np.corrcoef(within[name], within[other])[0, 1]:.2f}" for other in ("reward", "judge")]
        lines.append(
            [name, f"{between:.2f}", f"{inside:.2f}", f"{between**2 / (between**2 + inside**2):.0%}", *with_both]
        )
    return lines


if __name__ == "__main__":
    run(main)
