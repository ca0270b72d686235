"""TRL 1.12.0's PPOTrainer on a work, in an environment of its own; a line of JSON after every update."""

import contextlib
import os
import sys
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from common import make_models, make_prompts, make_tokenizer, options, work_of
from datasets import Dataset
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl_clock import Ticks


def main() -> None:
    args = options(__doc__).parse_args()
    work = work_of(args)
    tokenizer = make_tokenizer(work)
    policy, [reward_model, value_model] = make_models(work, 2)
    reference, _ = make_models(work, 0)
    prompts = Dataset.from_dict({"input_ids": make_prompts(work, args.steps * work.episodes)})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        config = PPOConfig(
            output_dir=folder,
            use_cpu=args.device == "cpu",
            report_to="none",
            save_strategy="no",
            bf16=args.precision == "bf16",
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
        PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward_model,
            value_model=value_model,
            train_dataset=prompts,
            eval_dataset=prompts.select(range(1)),
            callbacks=[Ticks(1, episodes=work.episodes)],
        ).train()


if __name__ == "__main__":
    main()
