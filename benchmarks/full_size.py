"""One PPO update of GPT-2 at its true size, 124M or 355M parameters: peak memory and time of each phase.

    python benchmarks/full_size.py gpt2 gpt2-medium

Weights are random, shapes are true: 50,257 tokens, 1,024 positions, 8 prompts of 128 to 512 tokens, responses of 53, a
reward model of the same size, a value head on the policy's trunk, one epoch. Each model runs in a process of its own.
Memory is the largest resident set within a phase, the whole process included, Adam's state as after a first update.
What `minirlhf plan` expects for the same update, its times from a few passes of its own, stands beside.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

from common import make_models, make_prompts, make_tokenizer

from minirlhf.commands.bench_parts import DONE, run_part
from minirlhf.commands.bench_work import WORKS, Work
from minirlhf.runtime import processor

PROFILE = Path(__file__).resolve().parents[1] / "profiles" / "gpt2.yaml"
WORK = replace(WORKS["gpt2"], prompt_tokens=(128, 512))
MODELS = {"gpt2": WORK, "gpt2-medium": replace(WORK, layers=24, width=1024, heads=16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--work", choices=["update", "plan"], help=argparse.SUPPRESS)  # what a process is to do
    args = parser.parse_args()
    if args.work:
        work = replace(MODELS[args.models[0]], micro_batch=args.micro_batch)
        print(json.dumps({"update": update, "plan": plan}[args.work](work, args)))
        return
    print(f"{args.threads} threads of {processor.name()}, fp32, micro-batches of {args.micro_batch}, "
          f"gradient checkpointing {'on' if args.gradient_checkpointing else 'off'}\n")  # fmt: skip
    print("| model | phase | peak GB | plan | seconds | plan |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for name in args.models:
        options = [name, "--threads", str(args.threads), "--micro-batch", str(args.micro_batch)]
        options += ["--gradient-checkpointing"] if args.gradient_checkpointing else []
        found, expected = (run(*options, "--work", work) for work in ("update", "plan"))
        for phase, (memory, seconds) in found.items():
            cells = [f"{memory:.1f}", "-", f"{seconds:.1f}", "-"]
            if phase in expected:
                cells[1], cells[3] = f"{expected[phase][0]:.1f}", f"{expected[phase][1]:.1f}"
            print(f"| {name} | {phase} | {' | '.join(cells)} |", flush=True)


def run(*arguments: str) -> dict[str, tuple[float, float]]:
    """What this script finds in a process of its own."""
    found = run_part([sys.executable, __file__, *arguments], seconds=3600)
    if found.pop("ended") != DONE:
        sys.exit(f"failed: {arguments}")
    return found


def config_of(work: Work, checkpointing: bool):
    from minirlhf.ppo import PPOConfig

    return PPOConfig(
        episodes=work.episodes,
        batch_size=work.episodes,
        ppo_epochs=work.ppo_epochs,
        micro_batch_size=work.micro_batch,
        rollout_batch_size=work.episodes,
        max_new_tokens=work.response_tokens,
        gradient_checkpointing=checkpointing,
    )


def update(work: Work, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Peak GB and seconds of each phase, measured."""
    import torch

    from minirlhf.ppo import PPOTrainer
    from minirlhf.ppo.advantages import compute_targets
    from minirlhf.rewards.model import RewardModel

    torch.set_num_threads(args.threads)
    found, started = {}, time.perf_counter()

    def done(phase: str) -> None:
        nonlocal started
        found[phase] = peak_gb(), time.perf_counter() - started
        Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
        started = time.perf_counter()

    tokenizer = make_tokenizer(work)
    policy, [classifier] = make_models(work, 1)
    reward = RewardModel(classifier, tokenizer)
    config = config_of(work, args.gradient_checkpointing)
    trainer = PPOTrainer(config, policy, tokenizer, reward, make_prompts(work, work.episodes), device="cpu")
    make_adam_state(trainer)
    done("build")
    trajectory = trainer.rollout()
    done("rollout")
    trainer.learn(trajectory, compute_targets(trajectory, config, trainer.kl_coef))
    done("learn")
    return found


def make_adam_state(trainer) -> None:
    """What the first update leaves behind and every later one has: a step along a gradient of 0 moves nothing."""
    import torch

    for _, parameter in trainer.models.named_trainable():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def plan(work: Work, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Peak GB and seconds of each phase, as `minirlhf plan` expects them."""
    import torch

    from minirlhf.commands.plan_memory import Plan, changed_params
    from minirlhf.commands.plan_sizes import Data
    from minirlhf.settings.params import load_params

    torch.set_num_threads(args.threads)
    lengths = sorted(map(len, make_prompts(work, work.episodes)))
    mean = round(sum(lengths) / len(lengths))
    data = Data(mean, lengths[-1], work.response_tokens, work.response_tokens, {}, "this benchmark")
    with tempfile.TemporaryDirectory() as folder:
        make_config(work).save_pretrained(folder)
        changes = {"ppo": config_of(work, args.gradient_checkpointing), "precision": "fp32", "model.base": folder}
        changes["reward.likelihood"] = False  # the reward model of this benchmark is nothing else
        planned = Plan(changed_params(load_params(PROFILE), changes), data, "cpu")
    memory = {phase.kind: phase.total / 1e9 for phase in planned.phases(planned.params, "ppo")}
    speeds, tokens = planned.speeds(), work.episodes * (mean + work.response_tokens)
    rollout = speeds.sampling(work.episodes, work.episodes, mean, work.response_tokens) + 2 * tokens * speeds.score
    learn = tokens * (speeds.learn + args.gradient_checkpointing * speeds.score) * work.ppo_epochs
    return {"rollout": (max(memory["sample"], memory["score"]), rollout), "learn": (memory["learn"], learn)}


def make_config(work: Work):
    from transformers import GPT2Config

    shape = {"n_layer": work.layers, "n_embd": work.width, "n_head": work.heads}
    return GPT2Config(**shape, vocab_size=work.vocabulary, n_positions=work.positions)


def peak_gb() -> float:
    """The largest resident set since it was last begun anew, in GB (Linux)."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    main()
