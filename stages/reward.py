"""The reward model: train one on comparisons, from the SFT model or another, or take a pretrained one as it is.

It trains on the comparisons that were given and on those that were collected, and is examined on the held-out ones.
Where people are the annotators it waits for their votes: it ends with a line that says how many are missing.

In:  prepared posts and comparisons, collected comparisons, votes of people, the SFT model (or what the params name:
     reward.base, reward.pretrained).
Out: models/reward (a model, or the name of one; its normalisation), metrics/reward.json (accuracy on held-out
     comparisons), details/reward.json (also length bias, agreement with gold), details/reward.csv (loss curves), and of
     its examination calibration.csv, reward_margins.csv, gold_margins.csv and reward_probes.csv in details/.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.feedback.rounds import newest_round
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_object, replace_folder, write_csv, write_json
from minirlhf.runtime.resume import resume_folder
from minirlhf.runtime.stage import run, set_up
from minirlhf.runtime.trackers import Trackers
from minirlhf.settings.params import Params, load_params
from minirlhf.settings.training import accumulation_steps
from minirlhf.text.chat import read_prepared
from minirlhf.text.spelling import without
from minirlhf.training.live import live

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from minirlhf.rewards.model import RewardModel
    from minirlhf.training.loop import OnRow

NORMALISING_POSTS = 500  # reference summaries that are to score 0 on average
PROBED_POSTS = 200  # of test
SHOWN = 20  # comparisons in the trackers' table
RESAMPLES = 1000  # behind the interval that decides on the likelihood
SPLITS = ("train", "validation", "test")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the sources' notes")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--comparisons", type=Path, default=Path("data/prepared/comparisons"))
    parser.add_argument("--collected", type=Path, help="comparisons of policies' summaries (default: all of them)")
    parser.add_argument("--votes", type=Path, default=Path("data/votes/candidates"), help="folder of people's votes")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    parser.add_argument("--output", type=Path, default=Path("models/reward"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/reward.json"))
    parser.add_argument("--details", type=Path, default=Path("details"), help="folder for all that was measured")
    args = parser.parse_args(argv)
    args.collected = args.collected or newest_round()
    params = load_params(args.params)
    accumulation_steps("reward", params.reward)  # refuses batches that do not divide before anything loads
    posts = {
        split: read_prepared(args.posts / f"{split}.jsonl", ("prompt", "completion")) for split in ("train", "test")
    }
    columns = ("prompt", "chosen", "rejected")
    texts = columns if params.data.comparisons else ()  # none may be given
    given = {split: read_prepared(args.comparisons / f"{split}.jsonl", texts) for split in SPLITS}
    if params.collect.annotators == "people":
        collected = voted(args.votes, params.collect.votes, posts["test"])
    else:
        files = {split: args.collected / f"{split}.jsonl" for split in SPLITS}
        collected = {split: read_prepared(file, columns) for split, file in files.items() if file.exists()}
    rows = {split: given[split] + collected.get(split, []) for split in SPLITS}
    check_rows(rows)

    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.models.checks import check_run
    from minirlhf.reward_modeling.examine import examine
    from minirlhf.runtime.device import choose_device
    from minirlhf.runtime.processes import Processes
    from minirlhf.training.loop import last_logged

    device = choose_device(params.device, params.precision)
    check_run(params, args.sources)
    commit = read_object(args.sources / "reward.json").get("commit")
    processes = Processes(device)
    processes.announce("reward", params.launch)
    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "reward"}) | {"device": device}
    inputs = (
        __file__,
        args.posts,
        args.comparisons,
        args.collected,
        args.votes,
        args.sft,
        args.sources / "reward.json",
    )
    trackers = Trackers("reward", params.trackers, params.model_dump(mode="json"))
    with trackers, resume_folder("reward", settings, inputs) as resume:
        model = None
        if params.reward.pretrained is None:
            on_row = live(args.details / "reward.csv", trackers)
            model, tokenizer, history = train(args.sft, commit, rows, params, resume, on_row)
        if not processes.is_main:
            return
        trained: dict = {}
        with replace_folder(args.output) as folder:
            if model is not None:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                trained["reward_train_loss"] = last_logged(history, "train_loss")
                note: dict = {"format": params.reward.format}
                model = None  # gives its memory to the one that scores
            else:
                history = [dict.fromkeys(("step", "train_loss", "eval_loss", "eval_accuracy"))]  # nothing was trained
                note = {"model": params.reward.pretrained, "revision": commit, "format": params.reward.format}
            unseen = given["validation"] + collected.get("validation", [])
            reward = complete(folder, note, args.sft, unseen, posts["train"][:NORMALISING_POSTS], params, device)

        held_out = {"given": given["test"], "collected": collected.get("test")}
        held_out = {name: part for name, part in held_out.items() if part}
        found, tables = examine(reward, held_out, posts["test"][:PROBED_POSTS], params.seed)
        write_csv(args.details / "reward.csv", history)
        for name, (rows, columns) in tables.items():
            write_csv(args.details / f"{name}.csv", rows, columns)
        write_json(args.details / "reward.json", trained | found)
        write_json(args.metrics, headline(found))
        if trackers:
            trackers.table("comparisons", scored(reward, next(iter(held_out.values()))[:SHOWN]))


def headline(found: dict) -> dict:
    """What metrics/reward.json holds of all that was examined: what a reward model is first compared by."""
    figures = {"reward_accuracy": found["reward_accuracy"], "reward_ece": found["reward_confidence"]["ece"]}
    if "reward_ceiling" in found:
        figures["reward_share_of_ceiling"] = found["reward_ceiling"]["share_of_the_way"]
        figures["reward_gold_agreement"] = found["reward_gold"]["model"]["value"]
    return figures


def scored(reward: "RewardModel", comparisons: list[dict]) -> list[dict]:
    """Comparisons with the rewards of both summaries."""
    from minirlhf.reward_modeling.quality import score_once, sides, summaries_of

    scores = score_once(reward, summaries_of(comparisons))
    rows = []
    for row in comparisons:
        shown = {name: row[name] for name in ("prompt", "chosen", "rejected")}
        chosen, rejected = (scores[side] for side in sides(row))
        rows.append({**shown, "reward_chosen": chosen, "reward_rejected": rejected})
    return rows


def complete(
    folder: Path, note: dict, sft: Path, unseen: list[dict], references: list[dict], params: Params, device: str
) -> "RewardModel":
    """Write reward.json of a folder, and what else the reward needs; the reward model as it will be loaded from there.

    Args:
        note: what reward.json says already.
        unseen: comparisons that had no part in its training, for the weights of a likelihood.
        references: posts with the summaries that are to score 0 on average.
    """
    from minirlhf.reward_modeling.quality import mean_score
    from minirlhf.reward_modeling.weights import learn
    from minirlhf.rewards.likelihood import Likelihood
    from minirlhf.rewards.model import RewardModel
    from minirlhf.statistics.bootstrap import Bootstrap

    options = {"device": device, "precision": params.precision}

    def load() -> RewardModel:
        write_json(folder / "reward.json", note)
        return RewardModel.load(folder, desc="reward: scoring", **options)

    reward = load()
    if params.reward.likelihood:
        learnt = learn(reward, Likelihood.load(sft, **options), unseen, Bootstrap(params.seed, RESAMPLES))
        found = f"{learnt.gain.value:.3f} ({learnt.gain.low:.3f} to {learnt.gain.high:.3f}) nats a comparison"
        print(f"reward: the likelihood {'helps' if learnt.helps else 'is left out'}: held-out loss falls by {found}")
        if learnt.helps:
            shutil.copytree(sft, folder / "likelihood")
            note |= {"likelihood": learnt.weights, "scale": learnt.scale}
            reward = load()
    note |= {"format": reward.format, "mean": mean_score(reward, references) * reward.scale}
    return load()


def voted(folder: Path, wanted: int, held_out: list[dict]) -> dict[str, list[dict]]:
    """The comparisons by split that people's votes come to; those to train on are of no test post, as imported may be.

    Raises:
        UserError: fewer than `wanted`.
    """
    from minirlhf.feedback.votes import read_votes

    votes = read_votes(folder)
    for reason, count in sorted(votes.refused.items()):
        print(f"{folder}: {count} lines left out: {reason}", file=sys.stderr)
    rows = {split: votes.comparisons(split) for split in SPLITS}
    kept = without(rows["train"], held_out)
    if len(kept) < len(rows["train"]):
        print(f"{folder}: {len(rows['train']) - len(kept)} votes left out: held_out", file=sys.stderr)
    rows["train"] = kept
    have = sum(map(len, rows.values()))
    if have < wanted:
        how = "`minirlhf label` opens the page, and `dvc repro` goes on when they are there"
        raise UserError(f"{wanted - have} of {wanted} votes are missing (collect.votes): {how}")
    return rows


def check_rows(rows: dict[str, list[dict]]) -> None:
    """Raise UserError where a split has no comparison at all."""
    for split, found in rows.items():
        if not found:
            how = "give some (data.comparisons), or vote on more pairs (`minirlhf label`)"
            raise UserError(
                f"no comparison of a {split} post to {'train' if split == 'train' else 'examine'} on: {how}"
            )


def train(
    sft: Path, commit: str | None, rows: dict[str, list[dict]], params: Params, resume: Path, on_row: "OnRow"
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase", list[dict]]:
    """A reward model trained from the SFT model, or from `reward.base` at a commit; its tokenizer, and the history."""
    import torch

    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.hub.locate import model_place
    from minirlhf.models.loading import check_vocabulary, new_reward_model
    from minirlhf.reward_modeling.train import train_reward_model

    base, revision = (sft, None) if params.reward.base is None else (model_place(params.reward.base), commit)
    torch.manual_seed(params.seed)  # of the new head
    model, tokenizer = new_reward_model(base, revision), read_tokenizer(base, revision)
    check_vocabulary(model, tokenizer, base)
    history = train_reward_model(model, tokenizer, rows["train"], rows["validation"], params, resume, on_row)
    return model, tokenizer, history


if __name__ == "__main__":
    run(main)
