"""Compare the policy before and after PPO with the authors' summaries, on held-out posts.

Summaries are sampled at the training temperature for the headline; greedy ones stand beside them.

In:  prepared posts, the SFT model, the PPO model (and snapshots of its training), the reward model; people's votes on
     the summaries, if there are any; of metrics/ppo.json how many episodes the PPO model learnt from, which a run that
     ended early does not plan.
Out: metrics/evaluate.json; plots/*.csv for the report; results/summaries.jsonl and .md (before and after).
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # this folder is on the path then, and `import evaluate` would find this very file
    sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import read_jsonl, read_object, replace_file, write_csv, write_json, write_jsonl
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"))
    parser.add_argument("--ppo", type=Path, default=Path("models/ppo"))
    parser.add_argument("--reward", type=Path, default=Path("models/reward"))
    parser.add_argument("--snapshots", type=Path, default=Path("models/snapshots"), help="of PPO, if any were kept")
    parser.add_argument("--ppo-metrics", type=Path, default=Path("metrics/ppo.json"), help="of the ppo stage")
    parser.add_argument("--votes", type=Path, default=Path("data/votes/results"), help="folder of people's votes")
    parser.add_argument("--metrics", type=Path, default=Path("metrics/evaluate.json"))
    parser.add_argument("--plots", type=Path, default=Path("plots"), help="folder for CSV files")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for summaries")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    posts = read_jsonl(args.posts / "test.jsonl", ("prompt", "completion"))
    episodes = read_object(args.ppo_metrics, ("ppo_delivered_episodes",))["ppo_delivered_episodes"]

    set_up(params.seed, params.threads)
    from minirlhf.evaluation.evaluator import evaluate
    from minirlhf.evaluation.tables import COLUMNS
    from minirlhf.feedback.votes import read_votes

    found = evaluate(posts, params, args.sft, args.ppo, args.reward, args.snapshots, episodes, read_votes(args.votes))
    for name, rows in found.plots.items():
        write_csv(args.plots / f"{name}.csv", rows, COLUMNS.get(name))
    write_jsonl(args.results / "summaries.jsonl", found.summaries)
    with replace_file(args.results / "summaries.md") as file:
        file.write(found.page)
    write_json(args.metrics, found.metrics)


if __name__ == "__main__":
    run(main)
