"""The reward model: train one on comparisons, from the SFT model or another, or take a pretrained one as it is.

In the embedded world summaries sampled from the SFT model are compared by its simulated annotators first, and saved
as data; the reward model trains on these and on the given comparisons.

In:  prepared posts and comparisons, the SFT model (or what the params name: reward.base, reward.pretrained).
Out: models/reward (a model, or the name of one; its normalisation), data/collected (comparisons of candidates),
     metrics/reward.json (accuracy on held-out comparisons, length bias, agreement with gold), plots/reward.csv,
     plots/calibration.csv, plots/reward_margins.csv, plots/gold_margins.csv, plots/reward_probes.csv.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.data.locate import model_place
from minirlhf.files import read_jsonl, read_object, replace_folder, write_csv, write_json, write_jsonl
from minirlhf.launch import accumulation_steps
from minirlhf.params import Params, load_params
from minirlhf.resume import resume_folder, saved
from minirlhf.stage import run, set_up
from minirlhf.watch import live

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from minirlhf.rewards.model import RewardModel
    from minirlhf.training import OnRow

NORMALISING_POSTS = 500  # reference summaries that are to score 0 on average
HELD_OUT_POSTS = 100  # of validation and test, for which candidates are compared too
PROBED_POSTS = 200  # of test
RESAMPLES = 1000  # behind each interval
SPLITS = ("train", "validation", "test")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the sources' notes")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--comparisons", type=Path, default=Path("data/prepared/comparisons"))
    parser.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    parser.add_argument("--output", type=Path, default=Path("models/reward"))
    parser.add_argument("--collected", type=Path, default=Path("data/collected"), help="folder for new comparisons")
    parser.add_argument("--metrics", type=Path, default=Path("metrics/reward.json"))
    parser.add_argument("--curves", type=Path, default=Path("plots/reward.csv"))
    parser.add_argument("--calibration", type=Path, default=Path("plots/calibration.csv"))
    parser.add_argument("--margins", type=Path, default=Path("plots/reward_margins.csv"))
    parser.add_argument("--gold-margins", type=Path, default=Path("plots/gold_margins.csv"))
    parser.add_argument("--probes", type=Path, default=Path("plots/reward_probes.csv"))
    args = parser.parse_args(argv)
    params = load_params(args.params)
    accumulation_steps("reward", params.reward)  # refuses batches that do not divide before anything loads
    posts = {split: read_jsonl(args.posts / f"{split}.jsonl", ("prompt", "completion")) for split in SPLITS}
    columns = ("prompt", "chosen", "rejected")
    given = {split: read_jsonl(args.comparisons / f"{split}.jsonl", columns) for split in SPLITS}

    set_up(params)
    from minirlhf import models, reward_quality
    from minirlhf.ppo.processes import Processes
    from minirlhf.rewards.model import RewardModel
    from minirlhf.training import last_logged

    device = models.choose_device(params.device)
    commit = read_object(args.sources / "reward.json").get("commit")
    processes = Processes(device)
    processes.announce("reward", params.launch)
    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "reward"})
    settings |= {"device": device, "max_response_tokens": params.data.max_response_tokens}
    inputs = (__file__, args.posts, args.comparisons, args.sft, args.sources / "reward.json")
    with resume_folder("reward", settings, inputs) as resume:
        with processes.state.main_process_first():  # the others read what it has sampled
            collected = collect(args.sft, posts, params, device, resume / "candidates")
        model = None
        if params.reward.pretrained is None:
            rows = {split: given[split] + collected.get(split, []) for split in SPLITS}
            on_row = live("reward", args.curves, args.metrics, params)
            model, tokenizer, history = train(args.sft, commit, rows, params, resume, on_row)
        if not processes.is_main:
            return
        metrics: dict = {}
        with replace_folder(args.output) as folder:
            if model is not None:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                metrics["reward_train_loss"] = last_logged(history, "train_loss")
                note: dict = {"format": params.reward.format}
                model = None  # gives its memory to the one that scores
            else:
                history = [dict.fromkeys(("step", "train_loss", "eval_loss", "eval_accuracy"))]  # nothing was trained
                note = {"model": params.reward.pretrained, "revision": commit, "format": params.reward.format}
            write_json(folder / "reward.json", note)
            reward = RewardModel.load(folder, device=device, precision=params.precision, desc="reward: scoring")
            references = posts["train"][:NORMALISING_POSTS]
            note |= {"format": reward.format, "mean": reward_quality.mean_score(reward, references)}
            write_json(folder / "reward.json", note)

        held_out = {"given": given["test"]} | ({"collected": collected["test"]} if collected else {})
        found, tables = examine(reward, held_out, posts["test"][:PROBED_POSTS], params.seed)
        with replace_folder(args.collected) as folder:  # empty where nothing was collected: DVC expects it
            for split, comparisons in collected.items():
                write_jsonl(folder / f"{split}.jsonl", comparisons)
        write_csv(args.curves, history)
        for name, (rows, columns) in tables.items():
            write_csv(getattr(args, name), rows, columns)
        write_json(args.metrics, metrics | found)


def examine(
    reward: "RewardModel", held_out: dict[str, list[dict]], posts: list[dict], seed: int
) -> tuple[dict, dict[str, tuple[list[dict], list[str] | None]]]:
    """What the reward model is worth on held-out comparisons, by where they come from, and which faults it sees.

    Returns the metrics, and of each table (an argument's name) the rows and columns.
    """
    from minirlhf import reward_probes, reward_quality
    from minirlhf.evaluation.bootstrap import Bootstrap
    from minirlhf.prompts import encode_all

    rows = [row for part in held_out.values() for row in part]
    summaries = reward_quality.summaries_of(rows)
    probes = reward_probes.probes_of(posts)
    probed = [summary for probe in probes for summary in (probe.clean, probe.edited)]
    scores = reward_quality.score_once(reward, summaries + probed)
    tokens = encode_all(reward.tokenizer, [text for _, text, _ in summaries])
    lengths = {summary: len(ids) for summary, ids in zip(summaries, tokens, strict=True)}

    bootstrap, metrics = Bootstrap(seed, RESAMPLES), {}
    margins = reward_quality.margins(rows, scores)
    hits = reward_quality.hits(margins)
    for name, part in held_out.items():
        accuracy = reward_quality.accuracy(reward_quality.margins(part, scores))
        metrics[f"reward_accuracy_{name}"] = round(accuracy, 6)
    metrics["reward_accuracy"] = round(reward_quality.accuracy(margins), 6)
    metrics["reward_test_loss"] = round(reward_quality.preference_loss(margins), 6)
    metrics["reward_length"] = reward_quality.length_bias(rows, scores, lengths, bootstrap)
    gold, gold_margins = reward_quality.gold_agreement(rows, scores, bootstrap)
    metrics |= {"reward_gold": gold} if gold else {}
    metrics["reward_intervals"] = {"accuracy": reward_quality.share(hits, rows, bootstrap).as_json()}
    return metrics, {
        "calibration": (reward_quality.calibration(margins), None),
        "margins": (reward_quality.by_margin(margins, hits, rows, bootstrap), None),
        "gold_margins": (gold_margins, reward_quality.GOLD_MARGIN_COLUMNS),
        "probes": (reward_probes.probe_table(probes, scores, bootstrap), reward_probes.COLUMNS),
    }


def collect(
    sft: Path, posts: dict[str, list[dict]], params: Params, device: str, resume: Path
) -> dict[str, list[dict]]:
    """Comparisons of summaries that the SFT model writes, by split; none where there are no annotators to ask.

    They are kept in `resume`, where a killed run finds the splits that it has done.
    """
    if params.reward.candidates == 0:
        return {}
    from minirlhf import models
    from minirlhf.candidates import collect_comparisons

    policy, tokenizer = models.load_policy(sft).to(device), models.load_tokenizer(sft)
    collected, first_episode = {}, 0
    for split in SPLITS:
        chosen = posts[split][: params.reward.candidate_posts if split == "train" else HELD_OUT_POSTS]
        kept = resume / f"{split}.jsonl"
        if not kept.exists():
            write_jsonl(kept, collect_comparisons(policy, tokenizer, chosen, params, first_episode))
        collected[split] = read_jsonl(kept)
        saved(f"the candidates for {split}")
        first_episode += len(chosen) * params.reward.candidates
    return collected


def train(
    sft: Path, commit: str | None, rows: dict[str, list[dict]], params: Params, resume: Path, on_row: "OnRow"
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase", list[dict]]:
    """A reward model trained from the SFT model, or from `reward.base` at a commit; its tokenizer, and the history."""
    import torch

    from minirlhf import models
    from minirlhf.reward_model import train_reward_model

    base, revision = (sft, None) if params.reward.base is None else (model_place(params.reward.base), commit)
    torch.manual_seed(params.seed)  # of the new head
    model, tokenizer = models.new_reward_model(base, revision), models.read_tokenizer(base, revision)
    models.check_vocabulary(model, tokenizer, base)
    history = train_reward_model(model, tokenizer, rows["train"], rows["validation"], params, resume, on_row)
    return model, tokenizer, history


if __name__ == "__main__":
    run(main)
