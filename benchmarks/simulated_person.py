"""A simulated person at the page, and what comes of 300 votes: a reward model, PPO with it, best against best.

    dvc repro collect
    python benchmarks/simulated_person.py own/person

`minirlhf label` is opened in a headless Chromium (packages chromium and chromium-driver of Debian) and answered by
keyboard alone, by gold with the annotators' noise. Then reward, ppo and evaluate run as their stages do, and learn from
nothing but these votes, by the params with `CHANGES`. The folder keeps all of it: the same command goes on where it was
stopped. PPO keeps no snapshots and evaluate does without best-of-n, to save time.

Prints the reward model's accuracy and agreement with gold on simulated annotators' comparisons of 200 held-out posts,
with the likelihood that the stage may add and without, next to the rule "the longer one"; and PPO against SFT, each at
its best temperature, by gold.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ruamel.yaml import YAML

from minirlhf.feedback.pairs import candidate_pairs
from minirlhf.feedback.votes import read_votes
from minirlhf.runtime.files import read_json, read_jsonl, write_jsonl
from minirlhf.world.annotators import prefers_first
from minirlhf.world.judge import judge

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "validation", "test")
CHANGES = {
    "data": {"comparisons": None},
    "collect": {"annotators": "people"},
    # Few votes are soon known by heart, and a weak reward needs a tighter hold (docs/people.md has what less gave).
    "reward": {"steps": 20, "warmup_steps": 2},
    "ppo": {"snapshot_every": 0, "eval_every": 0, "kl_coef": 0.2},
    "evaluate": {"best_of_n": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--votes", type=int, default=300, help="that decide (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    folder = args.folder.resolve()
    lay_out(folder, args.votes, args.threads)
    vote(folder, args.votes)
    for stage in ("reward", "ppo", "evaluate"):
        options = [] if stage == "evaluate" else ["--comparisons", "data/none"]
        if not (folder / f"details/{stage}.json").exists():
            run([str(ROOT / f"stages/{stage}.py"), *options], folder)
    print("\n".join(found(folder, args.threads)))


def run(command: list[str], folder: Path) -> None:
    subprocess.run([sys.executable, *command], cwd=folder, check=True)


def lay_out(folder: Path, votes: int, threads: int) -> None:
    """The params, and links to what the pipeline has made in this checkout."""
    if (folder / "params.yaml").exists():
        return
    for name in ("data/sources", "data/prepared", "data/collected", "models/base", "models/sft"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    for split in SPLITS:
        write_jsonl(folder / f"data/none/{split}.jsonl", [])
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text()) | {"threads": threads}
    for section, values in CHANGES.items():
        params[section] |= values
    params["collect"]["votes"] = votes
    with open(folder / "params.yaml", "w") as file:
        YAML().dump(params, file)


def vote(folder: Path, wanted: int) -> None:
    """A person who reads what the page shows, and knows the truth of each post, votes until so many votes decide."""
    from tests.labelling.browser import Browser, chromedriver

    votes, rng = folder / "data/votes/candidates", random.Random(1)
    known = candidate_pairs(folder / "data/collected/candidates.jsonl")
    records = {pair.id: pair.record for each in known for pair in (each, each.with_answer(0), each.with_answer(1))}
    command = [sys.executable, "-m", "minirlhf", "label", "--port", "0", "--no-open"]
    if decided(votes) >= wanted:
        return
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        with chromedriver() as driver:
            browser = Browser(driver, folder)
            browser.open(address)
            browser.begin("person")
            while decided(votes) < wanted:
                pair = browser.run("return ask.pair")
                sides = [(browser.text(f"#{side}"), not browser.run(CUT, place)) for place, side in enumerate("ab")]
                first, second = (judge(text, records[pair], ended).score for text, ended in sides)
                browser.answer("ArrowLeft" if prefers_first(rng, first, second) else "ArrowRight")
            browser.close()
    finally:
        server.terminate()
        server.wait()


def decided(votes: Path) -> int:
    return sum(len(read_votes(votes).comparisons(split)) for split in SPLITS)


def found(folder: Path, threads: int) -> list[str]:
    """What came of it, in lines."""
    from minirlhf.runtime.stage import set_up

    set_up(1, threads, "native")
    from minirlhf.reward_modeling.quality import gold_scores, hits, margins, score_once, share, summaries_of
    from minirlhf.rewards.model import RewardModel
    from minirlhf.statistics.bootstrap import Bootstrap

    rows = read_jsonl(folder / "data/collected/test.jsonl")
    summaries, bootstrap = summaries_of(rows), Bootstrap()
    gold = margins(rows, gold_scores(rows))
    judges = {
        "reward of the pipeline": score_once(RewardModel.load(folder / "models/reward"), summaries),
        "reward model alone": score_once(RewardModel.load(folder / "models/reward", likelihood=None), summaries),
        "the longer one": {summary: float(len(summary[1].split())) for summary in summaries},
    }
    lines = ["| | annotators' comparisons | gold's order |", "| --- | ---: | ---: |"]
    for name, scores in judges.items():
        own = margins(rows, scores)
        apart = [index for index, value in enumerate(gold) if value]
        cells = (share(hits(own), rows, bootstrap),
                 share(hits(own[apart], gold[apart]), [rows[index] for index in apart], bootstrap))  # fmt: skip
        lines.append(f"| {name} | {' | '.join(f'{c.value:.3f} ({c.low:.3f} to {c.high:.3f})' for c in cells)} |")
    evaluated = read_json(folder / "details/evaluate.json")
    best = ", ".join(
        f"{name} {evaluated['best'][name]['gold']:.2f} at temperature {evaluated['best'][name]['temperature']:g}"
        for name in ("sft", "ppo")
    )
    rate = evaluated["win_rate"]["ppo_vs_sft"]
    return [*lines, "", f"gold: {best}; PPO wins {rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f})"]


CUT = "return !document.querySelectorAll('.cut')[arguments[0]].hidden"

if __name__ == "__main__":
    main()
