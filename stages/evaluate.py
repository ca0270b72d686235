"""Compare the policy before and after PPO with the authors' summaries, on held-out posts.

Each policy is compared at its own best temperature, chosen on validation posts: that is the headline. Summaries at the
training temperature and greedy ones stand beside it.

In:  prepared posts, the SFT model, the PPO model (with it snapshots of its training, and in ppo.json how many episodes
     it learnt from, which a run that ended early does not plan), the reward model;
     people's votes on the summaries, if there are any; policies of earlier rounds of feedback, if there are any.
Out: metrics/evaluate.json (the headlines), details/evaluate.json (everything); CSV files for pictures and report,
     summaries.jsonl and summaries.md (before and after) in details/.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # this folder is on the path then, and `import evaluate` would find this very file
    sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import numbered_folders, read_object, replace_file, write_csv, write_json, write_jsonl
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params
from minirlhf.text.chat import read_prepared


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"))
    parser.add_argument("--ppo", type=Path, default=Path("models/ppo"))
    parser.add_argument("--reward", type=Path, default=Path("models/reward"))
    parser.add_argument("--rounds", type=Path, default=Path("models/rounds"), help="folder of earlier rounds' models")
    parser.add_argument("--votes", type=Path, default=Path("data/votes/results"), help="folder of people's votes")
    parser.add_argument("--metrics", type=Path, default=Path("metrics/evaluate.json"))
    parser.add_argument("--details", type=Path, default=Path("details"), help="folder for all that was measured")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    posts, validation = (
        read_prepared(args.posts / f"{split}.jsonl", ("prompt", "completion")) for split in ("test", "validation")
    )
    episodes = read_object(args.ppo / "ppo.json", ("episodes",))["episodes"]

    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.evaluation.run import evaluate
    from minirlhf.evaluation.tables import COLUMNS
    from minirlhf.feedback.votes import read_votes

    votes, snapshots = read_votes(args.votes), args.ppo / "snapshots"
    rounds = {number: folder / "ppo" for number, folder in numbered_folders(args.rounds).items()}
    found = evaluate(posts, validation, params, args.sft, args.ppo, args.reward, snapshots, episodes, votes, rounds)
    for name, rows in found.plots.items():
        write_csv(args.details / f"{name}.csv", rows, COLUMNS.get(name))
    write_jsonl(args.details / "summaries.jsonl", found.summaries)
    with replace_file(args.details / "summaries.md") as file:
        file.write(found.page)
    write_json(args.details / "evaluate.json", found.metrics)
    write_json(args.metrics, found.headline)


if __name__ == "__main__":
    run(main)
