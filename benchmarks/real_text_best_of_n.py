"""Best of n summaries by the SFT policy, PPO's rival that trains nothing: rows for the table of runs on Reddit posts.

    python benchmarks/real_text_best_of_n.py --n 16    # after dvc repro, whose evaluation of SFT it is set against

The reward model picks one of n samples of each post; at which temperature they are drawn is chosen on validation posts,
by the judge, as the evaluate stage chooses that of a policy.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import real_text_table as table
from minirlhf.evaluation import frontier
from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"best_of_n": args.n})})
    set_up(params.seed, params.threads, params.arithmetic)

    from minirlhf.evaluation.evaluator import Evaluator
    from minirlhf.evaluation.run import load_judge, load_reward
    from minirlhf.evaluation.selection import BEST_OF_N_POSTS
    from minirlhf.evaluation.temperatures import choose
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.runtime.device import choose_device
    from minirlhf.sampling.summaries import FIRST_BEST_OF_N_EPISODE, Summaries
    from minirlhf.text.chat import read_prepared

    started, device = time.monotonic(), choose_device(params.device, params.precision)
    judges = load_reward("models/reward", params, device), load_judge(params, device)
    tokenizer, files = load_tokenizer("models/sft"), Path("data/prepared/posts")
    test, validation = (
        Evaluator(read_prepared(files / f"{split}.jsonl", ("prompt", "completion")), params, tokenizer, *judges, device)
        for split in ("test", "validation")
    )
    sft = test.load(Path("models/sft"))
    scores = {}
    for temperature in (t for t in params.evaluate.temperatures if t > 0):
        rewards, judged = validation.best_of_n_scores(sft, temperature, min(BEST_OF_N_POSTS, len(validation.posts)))
        scores[temperature] = frontier.best_of_n(rewards, judged, args.n)
    temperature = choose(scores)
    drawn = test.sample(sft, temperature, samples_per_prompt=args.n, first_episode=FIRST_BEST_OF_N_EPISODE)
    asked = [prompt for prompt in test.prompts for _ in range(args.n)]
    rewards = np.array(test.score(test.reward, asked, drawn)).reshape(-1, args.n)
    picked = np.arange(len(rewards)) * args.n + rewards.argmax(1)
    best = Summaries([drawn.texts[at] for at in picked], drawn.ended[picked], [drawn.token_ids[at] for at in picked])
    found = test.measure(best)
    named = {"method": f"best of {args.n}", "seed": params.seed}
    means = {name: float(values.mean()) for name, values in found.items()}
    kl = frontier.best_of_n_kl(args.n)
    row = table.row_of(named, "aligned", temperature, kl, (time.monotonic() - started) / 60, means, best.texts)
    table.append(table.RUNS, table.RUN_COLUMNS, [row])
    before, author = table.scores_of(read_jsonl("details/summaries.jsonl"), "sft_best", "reference")
    table.append(table.POSTS, table.POST_COLUMNS, table.posts_of(named, found, before, author))


if __name__ == "__main__":
    run(main)
