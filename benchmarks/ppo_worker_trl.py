"""The other side of `ppo_vs_trl.py`: TRL 1.12.0's PPOTrainer, in an environment of its own. Prints one line of JSON."""

import argparse
import json
import os
import sys
import tempfile
import time

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import transformers
import trl
from datasets import Dataset
from ppo_work import WORKS, make_models, make_prompts, make_tokenizer, report
from transformers import TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer


class Clock(TrainerCallback):
    """The time after each step."""

    def __init__(self):
        self.times = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.times.append(time.perf_counter())

    def on_step_end(self, args, state, control, **kwargs):
        self.times.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=WORKS, default="tiny")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = WORKS[args.work]
    tokenizer = make_tokenizer(work)
    tokenizer.padding_side = "left"
    policy, [reward_model, value_model] = make_models(work, 2)
    reference, _ = make_models(work, 0)
    prompts = Dataset.from_dict({"input_ids": make_prompts(work, args.steps * work.episodes)})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            bf16=False,
            gradient_checkpointing=False,
            num_sample_generations=0,
            logging_steps=10**6,
            total_episodes=args.steps * work.episodes,
            per_device_train_batch_size=work.micro_batch,
            gradient_accumulation_steps=work.episodes // work.micro_batch,
            num_mini_batches=1,
            num_ppo_epochs=work.ppo_epochs,
            response_length=work.response_tokens,
            stop_token="eos",
            learning_rate=3e-6,
            dataloader_pin_memory=False,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward_model,
            value_model=value_model,
            train_dataset=prompts,
            eval_dataset=prompts.select(range(1)),
            callbacks=[clock],
        )
        stdout, sys.stdout = sys.stdout, sys.stderr
        trainer.train()
        sys.stdout = stdout
    seconds = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps(report(seconds, versions)))


if __name__ == "__main__":
    main()
