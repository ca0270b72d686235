"""Supervised fine-tuning: teach the base model to continue a post with a summary like its author's.

In:  prepared posts, the note of the base model's source, the base model.
Out: models/sft (the policy and its tokenizer), metrics/sft.json, details/sft.json, details/sft.csv (loss curves).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.hub.locate import model_place
from minirlhf.runtime.files import read_object, write_csv, write_json
from minirlhf.runtime.resume import resume_folder
from minirlhf.runtime.stage import run, set_up
from minirlhf.runtime.trackers import Trackers
from minirlhf.settings.params import load_params
from minirlhf.settings.training import accumulation_steps
from minirlhf.text.chat import end_with_turn, read_prepared
from minirlhf.training.live import live


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the sources' notes")
    parser.add_argument("--output", type=Path, default=Path("models/sft"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/sft.json"))
    parser.add_argument("--details", type=Path, default=Path("details"), help="folder for all that was measured")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    accumulation_steps("sft", params.sft)  # refuses batches that do not divide before anything loads
    columns = ("prompt", "completion")
    train, validation = (read_prepared(args.posts / f"{split}.jsonl", columns) for split in ("train", "validation"))

    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.checks import check_run
    from minirlhf.models.loading import check_vocabulary, load_policy, random_policy, save_model
    from minirlhf.models.trunk import TrunkAndHead, check_fits
    from minirlhf.runtime.device import choose_device
    from minirlhf.runtime.processes import Processes
    from minirlhf.training import sft
    from minirlhf.training.loop import last_logged

    device = choose_device(params.device, params.precision)
    processes = Processes(device)
    processes.announce("sft", params.launch)
    check_run(params, args.sources)
    base, revision = model_place(params.model.base), read_object(args.sources / "base.json").get("commit")
    tokenizer = load_tokenizer(base, revision)
    if any("messages" in row for row in train):
        tokenizer = end_with_turn(tokenizer)
    if params.model.random_weights is None:
        policy = load_policy(base, revision)
    else:
        policy = random_policy(base, revision, params.model.random_weights, params.seed)
    check_vocabulary(policy, tokenizer, params.model.base)
    check_fits(TrunkAndHead(policy), params.data.max_prompt_tokens, params.data.max_response_tokens)
    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "model", "sft"})
    settings |= {"device": device, "revision": revision}
    inputs = [__file__, args.posts] + [base] * Path(base).is_dir()
    trackers = Trackers("sft", params.trackers, params.model_dump(mode="json"))
    with trackers, resume_folder("sft", settings, inputs) as folder:
        on_row = live(args.details / "sft.csv", trackers)
        history = sft.train_sft(policy, tokenizer, train, validation, params, folder, on_row)
        if not processes.is_main:
            return
        summary = {
            "sft_train_loss": last_logged(history, "train_loss"),
            "sft_eval_loss": last_logged(history, "eval_loss"),
        }
        write_csv(args.details / "sft.csv", history)
        write_json(args.details / "sft.json", summary)
        write_json(args.metrics, {"sft_loss": summary["sft_eval_loss"]})
        save_model(args.output, policy, tokenizer)


if __name__ == "__main__":
    run(main)
