"""TRL's own RLOO or GRPO on a work, with as many responses and epochs as PPO; a line of JSON after every update."""

import contextlib
import os
import sys
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from common import make_models, make_prompts, make_tokenizer, options, work_of
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl_clock import Ticks

KINDS = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}
GROUP = 4  # responses a prompt


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--algorithm", choices=KINDS, default="rloo")
    args = parser.parse_args()
    work = work_of(args)
    tokenizer = make_tokenizer(work)
    policy, [reward_model] = make_models(work, 1)
    prompts = [tokenizer.decode(ids) for ids in make_prompts(work, args.steps * work.episodes // GROUP)]
    config_class, trainer_class = KINDS[args.algorithm]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        policy.save_pretrained(folder)
        policy.config._name_or_path = folder  # from where TRL loads the reference
        config = config_class(
            output_dir=folder,
            use_cpu=args.device == "cpu",
            bf16=args.precision == "bf16",
            report_to="none",
            save_strategy="no",
            gradient_checkpointing=False,
            logging_steps=10**6,
            # A step of these trainers is one of the optimizer.
            max_steps=args.steps * work.ppo_epochs,
            num_iterations=work.ppo_epochs,
            per_device_train_batch_size=work.micro_batch,
            gradient_accumulation_steps=work.episodes // work.micro_batch,
            num_generations=GROUP,
            max_completion_length=work.response_tokens,
            beta=0.05,
            learning_rate=3e-6,
            dataloader_pin_memory=False,
        )
        trainer_class(
            model=policy,
            args=config,
            processing_class=tokenizer,
            reward_funcs=reward_model,
            reward_processing_classes=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            callbacks=[Ticks(work.ppo_epochs, episodes=work.episodes)],
        ).train()


if __name__ == "__main__":
    main()
