"""What `test_launch.py` runs in one process and, by torchrun, in two: both trainings, whole and with a stop.

usage: two_trainers.py FOLDER MODEL SETTINGS; writes FOLDER/rankN.json. The rank comes from torchrun's environment.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy, new_reward_model
from minirlhf.reward_modeling.train import train_reward_model
from minirlhf.runtime.processes import Processes
from minirlhf.settings.params import parse_params
from minirlhf.training import loop as training
from minirlhf.training.sft import train_sft

PETS = ("cat", "dog", "cow", "hen", "pig", "fox", "bee", "ant")
# Summaries of several lengths, so that processes have different numbers of labels; a post with two comparisons.
POSTS = [{"prompt": f"my {pet} left. TL;DR:", "completion": " gone" * (1 + i)} for i, pet in enumerate(PETS)]
COMPARISONS = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": " so much."} for row in POSTS]
COMPARISONS.append({"prompt": POSTS[0]["prompt"], "chosen": " so much.", "rejected": " no idea."})


class Stopped(Exception):
    pass


def train(stage: str, model_folder: str, params, folder: Path, stop_after: int | None = None) -> dict:
    """A training in `folder`, from the resume point there if there is one: its history and weights."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(model_folder)
    if stage == "sft":
        model, function, rows = load_policy(model_folder), train_sft, POSTS
    else:
        model, function, rows = new_reward_model(model_folder), train_reward_model, COMPARISONS
    on_save = training.RunCallback.on_save

    def stop(callback, args, state, control, **kwargs):
        on_save(callback, args, state, control, **kwargs)
        if state.global_step == stop_after:
            raise Stopped

    written = []
    with mock.patch.object(training.RunCallback, "on_save", stop):
        history = function(model, tokenizer, rows, rows[:4], params, folder, written.append)
    weights = {name: weight.flatten().tolist() for name, weight in model.state_dict().items()}
    return {"history": history, "weights": weights, "told": len(written)}


def main(folder: Path, model_folder: str, settings: str) -> None:
    torch.set_num_threads(1)
    params = parse_params(Path(settings).read_text(), settings)
    processes = Processes("cpu")
    results: dict = {"world_size": processes.count}
    for stage in ("sft", "reward"):
        results[stage] = train(stage, model_folder, params, folder / f"{stage}-whole")
        try:
            train(stage, model_folder, params, folder / stage, stop_after=1)
        except Stopped:
            processes.wait()
            kept = sorted(os.listdir(folder / stage / "resume"))
            again = train(stage, model_folder, params, folder / stage)
            results[f"{stage}_again"] = again | {"kept": kept}
    # JSON keeps every digit of a float: equal texts are equal bytes.
    digests = {name: hashlib.sha256(json.dumps(results[name]["weights"]).encode()).hexdigest()
               for name in results if name != "world_size"}  # fmt: skip
    text = json.dumps(results | {"digests": digests})
    (folder / f"rank{processes.rank}.json").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
