"""Supervised fine-tuning: teach the base model to continue a post with a summary like its author's.

In:  prepared posts, the note of the base model's source, the base model.
Out: models/sft (the policy and its tokenizer), metrics/sft.json, plots/sft.csv (loss curves).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.data.locate import model_place
from minirlhf.files import read_jsonl, read_object, write_csv, write_json
from minirlhf.launch import accumulation_steps
from minirlhf.params import load_params
from minirlhf.resume import resume_folder
from minirlhf.stage import run, set_up
from minirlhf.watch import live


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the sources' notes")
    parser.add_argument("--output", type=Path, default=Path("models/sft"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/sft.json"))
    parser.add_argument("--curves", type=Path, default=Path("plots/sft.csv"))
    args = parser.parse_args(argv)
    params = load_params(args.params)
    accumulation_steps("sft", params.sft)  # refuses batches that do not divide before anything loads
    columns = ("prompt", "completion")
    train, validation = (read_jsonl(args.posts / f"{split}.jsonl", columns) for split in ("train", "validation"))

    set_up(params)
    from minirlhf import models, sft
    from minirlhf.causal_lm import TrunkAndHead, check_fits
    from minirlhf.ppo.processes import Processes
    from minirlhf.training import last_logged

    device = models.choose_device(params.device)
    processes = Processes(device)
    processes.announce("sft", params.launch)
    base, revision = model_place(params.model.base), read_object(args.sources / "base.json").get("commit")
    tokenizer = models.load_tokenizer(base, revision)
    if params.model.random_weights is None:
        policy = models.load_policy(base, revision)
    else:
        policy = models.random_policy(base, revision, params.model.random_weights, params.seed)
    models.check_vocabulary(policy, tokenizer, params.model.base)
    check_fits(TrunkAndHead(policy), params.data.max_prompt_tokens, params.data.max_response_tokens)
    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "model", "sft"})
    settings |= {"device": device, "revision": revision}
    inputs = [__file__, args.posts] + [base] * Path(base).is_dir()
    on_row = live("sft", args.curves, args.metrics, params)
    with resume_folder("sft", settings, inputs) as folder:
        history = sft.train_sft(policy, tokenizer, train, validation, params, folder, on_row)
        if not processes.is_main:
            return
        summary = {
            "sft_train_loss": last_logged(history, "train_loss"),
            "sft_eval_loss": last_logged(history, "eval_loss"),
        }
        write_csv(args.curves, history)
        write_json(args.metrics, summary)
        models.save_model(args.output, policy, tokenizer)


if __name__ == "__main__":
    run(main)
