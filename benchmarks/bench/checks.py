"""Is it right on this machine? A line of JSON after every check: ratio, samples, two runs, a kill.

All with the deterministic kernels that the stages ask for. A check that cannot be made says why, and the rest goes on.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from unittest import mock

import torch
from common import make_models, make_prompts, make_tokenizer, options, say, work_of

from minirlhf.commands.bench_work import Work
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.rewards.model import RewardModel
from minirlhf.sampling import generate as sampler
from minirlhf.sampling import static
from minirlhf.sampling.draw import episode_seeds

UPDATES = 3


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--killed-in", metavar="FOLDER", help="train there, and be killed in the last update")
    args = parser.parse_args()
    work = work_of(args)
    make_deterministic()
    if args.killed_in:
        train(work, args, args.killed_in, lambda row: row["update"] == UPDATES and os.kill(os.getpid(), signal.SIGKILL))
        return
    found, prevented = {}, set()

    def check(name: str, make: Callable) -> None:
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                found[name] = make()
            prevented.update(operation for each in seen for operation in not_deterministic(str(each.message)))
        except Exception as error:  # whatever it is, the other checks tell more about it
            found[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        found["not_deterministic"] = sorted(prevented)
        say(found)

    for name, make in sampling_checks(work, args).items():
        check(name, make)
    once = []
    check("ratio_error", lambda: once.append(train(work, args)) or max(row["ratio_error"] for row in once[0].history))
    check("same_bytes_twice", lambda: torch.equal(weights(once[0]), weights(train(work, args))))
    check("same_bytes_after_a_kill", lambda: torch.equal(weights(once[0]), weights(train_killed(work, args))))


def make_deterministic() -> None:
    """As `minirlhf.runtime.stage.set_up`, but an operation that cannot be deterministic warns and runs."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def not_deterministic(warning: str) -> list[str]:
    """The operation that a warning of PyTorch's says to have no deterministic implementation, in a list; or none."""
    return re.findall(r"^(\S+) does not have a deterministic implementation", warning)


def train(work: Work, args, folder: str | None = None, callback: Callable = lambda row: None) -> PPOTrainer:
    """A run of a few updates, with a resume point after each if there is a folder."""
    tokenizer, (policy, [classifier]) = make_tokenizer(work), make_models(work, 1)
    place = {"device": args.device, "precision": args.precision}
    config = PPOConfig(
        episodes=UPDATES * work.episodes,
        batch_size=work.episodes,
        ppo_epochs=work.ppo_epochs,
        micro_batch_size=work.micro_batch,
        rollout_batch_size=work.episodes,
        max_new_tokens=work.response_tokens,
    )
    trainer = PPOTrainer(
        config,
        policy,
        tokenizer,
        RewardModel(classifier, tokenizer, batch_size=work.micro_batch, **place),
        make_prompts(work, UPDATES * work.episodes),
        folder=folder,
        resume_minutes=0,
        callbacks=[callback],
        **place,
    )
    trainer.train()
    return trainer


def train_killed(work: Work, args) -> PPOTrainer:
    """A run that a SIGKILL ends in its last update, in a process of its own, and goes on in this one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--killed-in", folder]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the run to be killed ended otherwise: {done.stderr.strip()[-200:]}")
        updates = []
        trainer = train(work, args, folder, lambda row: updates.append(row["update"]))
        if updates != [UPDATES]:
            raise RuntimeError(f"the run did not go on from its resume point, but made the updates {updates}")
        return trainer


def weights(trainer: PPOTrainer) -> torch.Tensor:
    """All that was trained, in one row."""
    return torch.cat([parameter.detach().flatten().cpu() for _, parameter in trainer.models.named_trainable()])


def sampling_checks(work: Work, args) -> dict[str, Callable[[], bool]]:
    """Whether the step of fixed shapes samples what others do: as a CUDA graph and without; and the plain loop."""
    model, prompts = TrunkAndHead(make_models(work, 0)[0].to(args.device).eval()), make_prompts(work, 16)
    bf16 = torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.precision == "bf16")

    def sample(*changes) -> torch.Tensor:
        with contextlib.ExitStack() as stack:
            for change in changes:
                stack.enter_context(change)
            return sampler.generate(
                model,
                prompts,
                max_new_tokens=work.response_tokens,
                temperature=0.7,
                eos_token_id=work.vocabulary - 1,
                pad_token_id=0,
                seeds=episode_seeds(0, 0, len(prompts)),
            ).response_ids

    fixed = mock.patch.object(sampler, "_decode", static.decode_static)  # elsewhere than on a GPU, too
    loop = mock.patch.object(sampler, "can_be_static", lambda parts: False)
    no_graph = mock.patch.object(static, "captured", lambda step: step)
    checks = {"same_samples_as_the_loop": lambda: torch.equal(sample(fixed), sample(loop))}
    if args.device == "cuda":
        checks["same_samples_with_and_without_graphs"] = lambda: torch.equal(sample(bf16), sample(bf16, no_graph))
    return checks


if __name__ == "__main__":
    main()
