"""The trainer: numbered phases over the pure functions and small modules beside it.

Huang et al. 2024 (arXiv 2403.17031) is the recipe; docs/ppo.md says where each of its details is, and where this
trainer departs from it on purpose.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirlhf.models.trunk import check_fits
from minirlhf.ppo.advantages import adapted_kl_coef, compute_targets
from minirlhf.ppo.build import build_models
from minirlhf.ppo.checkpoint import load_resume_point, save_policy, save_resume_point
from minirlhf.ppo.early_warning import EarlyWarning
from minirlhf.ppo.monitor import Alarms, Row, batch_statistics, evaluation_statistics, rounded
from minirlhf.ppo.optimization import learn, make_optimizer
from minirlhf.ppo.prompts import Prompts, episode_prompts
from minirlhf.ppo.rollout import collect
from minirlhf.ppo.trajectory import Targets, Trajectory
from minirlhf.rewards.text import RewardFunction
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import recover, write_csv, write_jsonl
from minirlhf.runtime.processes import Processes
from minirlhf.runtime.progress import Progress
from minirlhf.runtime.resume import goes_on, saved
from minirlhf.sampling.draw import episode_seeds
from minirlhf.settings.ppo import PPOConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Summaries kept of each evaluation, the same prompts each time.
SAMPLES = 4


class PPOTrainer:
    """Fine-tune a causal language model by PPO against a reward over text.

    Args:
        config: the settings.
        policy: a transformers causal LM, or the folder or hub name of one. A model is trained in place.
        tokenizer: the policy's.
        reward: `(prompts, responses) -> scores`; see `minirlhf.rewards.text`.
        prompts: texts, chats (lists of messages), lists of token ids, or a `datasets.Dataset` with a column `prompt`.
        eval_prompts: held-out prompts for the evaluations that `config.eval_every` asks for.
        reference: what the KL penalty holds on to; None: the policy as given.
        critic_init: with a separate critic, the model or folder that it begins as: a causal LM, or a reward model
            with the policy's tokenizer. None: the policy's trunk.
        folder: where resume points, snapshots, history.csv and samples.jsonl go; None: nowhere.
        resume: go on from the resume point in `folder`, if there is one.
        resume_minutes: between resume points, which follow the first update that ends later; 0: after every update.
        seed: of prompts' order, sampling and minibatches.
        device: "cpu", "cuda", ...; None: what Accelerate finds.
        precision: "fp32", or "bf16" for autocast.
        callbacks: called after each update with its row of the history.

    Attributes:
        history: a row (dict) an update; columns as in `minirlhf.ppo.monitor` and `minirlhf.ppo.optimization`.
        samples: responses to the first eval prompts, of each evaluation.
        warning: knows where the early warning rang first (`warning.alarm`).
        stopped: why the run ended early (KL ceiling, collapse, alarm), or None.
        seconds: time spent by phase since the start or resumption.
    """

    def __init__(
        self,
        config: PPOConfig,
        policy: "PreTrainedModel | str | Path",
        tokenizer: "PreTrainedTokenizerBase",
        reward: RewardFunction,
        prompts: "Dataset | Sequence[str | Sequence[dict] | Sequence[int]]",
        eval_prompts: "Dataset | Sequence[str | Sequence[dict] | Sequence[int]] | None" = None,
        reference: "PreTrainedModel | str | Path | None" = None,
        critic_init: "PreTrainedModel | str | Path | None" = None,
        *,
        folder: str | Path | None = None,
        resume: bool = True,
        resume_minutes: float = 5.0,
        seed: int = 0,
        device: str | None = None,
        precision: str = "fp32",
        callbacks: Sequence[Callable[[Row], Any]] = (),
    ):
        if config.eval_every and eval_prompts is None:
            raise UserError("ppo.eval_every: evaluations need eval_prompts")
        if (config.snapshot_every or config.deliver == "best") and folder is None:
            raise UserError("ppo: snapshot_every and deliver: best need a folder to write to")
        if tokenizer.eos_token_id is None:
            raise UserError("tokenizer: it has no EOS token, without which no response could end")
        self.config, self.reward, self.seed = config, reward, seed
        self.folder, self.resume, self.callbacks = Path(folder) if folder is not None else None, resume, callbacks
        self.resume_seconds, self._saved_at = 60 * resume_minutes, time.monotonic()
        self.processes = Processes(device)
        self.prompts = Prompts(prompts, tokenizer)
        self.tokenizer = tokenizer = self.prompts.tokenizer
        evaluates = config.eval_every > 0 and eval_prompts is not None
        self.eval_prompts = Prompts(eval_prompts, tokenizer) if evaluates else None
        self.models = build_models(
            config, policy, tokenizer, reference, critic_init, self.processes.device, precision, seed
        )
        for each in (self.prompts, self.eval_prompts):
            if each is not None:
                each.check_ids(self.models.policy.embeddings)
        longest = max(len(ids) for each in (self.prompts, self.eval_prompts) if each is not None for ids in each.ids)
        check_fits(self.models.policy, longest, config.max_new_tokens)
        self.processes.copy_from_first(parameter for _, parameter in self.models.named_trainable())
        self.optimizer = make_optimizer(self.models, config)
        self.alarms, self.warning = Alarms(config), EarlyWarning(config)
        self.updates_done, self.optimizer_steps, self.kl_coef = 0, 0, config.kl_coef
        self.history: list[Row] = []
        self.samples: list[Row] = []
        self.best: Row | None = None
        self.stopped: str | None = None
        self.seconds = {"rollout": 0.0, "learn": 0.0}
        self._saved = 0  # the update of the resume point in the folder

    def train(self) -> list[Row]:
        """Run to the end, or to a reason to stop (see `stopped`); returns the history.

        Raises:
            RewardError: the reward function failed. The last resume point stands.
            TrainingError: a loss, a gradient, the weights, or what a model says is not finite. Likewise.
        """
        config = self.config
        if self.resume and self.folder is not None:
            if self.processes.is_main:
                recover(self.folder / "resume")
            self.processes.wait()
            if (self.folder / "resume").exists():
                self._load()
        self._saved_at = time.monotonic()
        if self.updates_done == 0 and self.eval_prompts is not None and not self.history:
            with self._named(0):
                first = self._evaluate(0, self.eval_prompts)
            self._log({"update": 0, "episodes": 0, **first})
        with Progress(config.episodes, "episodes", "ppo") as progress:
            progress.start_at(self.updates_done * config.batch_size)
            while self.updates_done < config.updates and self.stopped is None:
                row = self.update()
                if self.processes.is_main:
                    progress.update(config.batch_size, reward=row["reward"], kl=row["kl"], **self.warning.shown())
        if self.folder is not None:
            self._save()
        self.processes.wait()
        return self.history

    def update(self) -> Row:
        """One update: its phases, in order; returns its row of the history."""
        config = self.config
        started = time.perf_counter()
        with self._named(self.updates_done + 1):
            # 1. Sample episodes, and score them by reward function, reference and critic.
            trajectory = self.rollout()
            # 2. KL penalty, rewards, advantages and returns, over the global batch.
            targets = compute_targets(trajectory, config, self.kl_coef)
            # 3. Optimizer steps on policy and critic.
            sampled = time.perf_counter()
            learnt = self.learn(trajectory, targets)
        self.seconds["rollout"] += sampled - started
        self.seconds["learn"] += time.perf_counter() - sampled
        # 4. Log; evaluate on held-out prompts; look for signs of collapse.
        self.updates_done += 1
        row = {"update": self.updates_done, "episodes": self.updates_done * config.batch_size}
        row |= batch_statistics(trajectory, targets) | learnt | {"kl_coef": self.kl_coef}
        if self.eval_prompts is not None and self._due(config.eval_every):
            with self._named(self.updates_done):
                row |= self._evaluate(self.updates_done, self.eval_prompts)
        self.stopped = self.alarms.check(row, trajectory)
        # 5. Adapt the KL coefficient for the next update.
        self.kl_coef = adapted_kl_coef(self.kl_coef, row["kl"], config)
        row = self._log(row)
        self.stopped = self.stopped or self.warning.listen(self.history)
        # 6. Snapshot and resume point.
        if config.snapshot_every and self._due(config.snapshot_every):
            self._save_policy(f"snapshots/episodes-{row['episodes']:07d}")
        if self.folder is not None and time.monotonic() - self._saved_at >= self.resume_seconds:
            self._save()
        return row

    def rollout(self) -> Trajectory:
        """The episodes of the next update."""
        start, size = self.updates_done * self.config.batch_size, self.config.batch_size
        chosen = episode_prompts(len(self.prompts), self.seed, start, size, self.config.samples_per_prompt)
        seeds = episode_seeds(self.seed, start, size)
        return self._collect([(self.prompts.texts[index], self.prompts.ids[index]) for index in chosen], seeds)

    def learn(self, trajectory: Trajectory, targets: Targets) -> dict[str, float]:
        """The optimizer steps of an update; returns statistics."""
        learnt = learn(
            self.models, self.optimizer, trajectory, targets, self.config, self.processes, self.seed, self.updates_done
        )
        self.optimizer_steps += int(learnt.pop("steps"))
        return learnt | {"optimizer_steps": self.optimizer_steps}

    @property
    def delivered_episodes(self) -> int:
        """The episodes that the policy learnt from which `save` writes."""
        return (self.updates_done if self._best is None else self._best["update"]) * self.config.batch_size

    @property
    def _best(self) -> Row | None:
        return self.best if self.config.deliver == "best" else None

    def _place(self, name: str) -> Path:
        assert self.folder is not None  # nothing is written or read without one
        return self.folder / name

    def save(self, folder: str | Path) -> None:
        """Write the policy (the best one, if `deliver` says so) and its tokenizer for `from_pretrained`."""
        if not self.processes.is_main:
            return
        if self._best is not None:
            from transformers import AutoModelForCausalLM

            from minirlhf.models.loading import save_model

            save_model(folder, AutoModelForCausalLM.from_pretrained(self._place("best")), self.tokenizer)
        else:
            save_policy(folder, self.models, self.tokenizer)

    @contextlib.contextmanager
    def _named(self, update: int) -> Iterator[None]:
        """Errors for the user in the block name the update, and the state that is left."""
        try:
            yield
        except UserError as error:
            kept = f"; {self._place('resume')} holds the state after update {self._saved}" if self._saved else ""
            raise type(error)(f"ppo: update {update}: {error}{kept}") from error

    def _collect(self, prompts: list[tuple[str, list[int]]], seeds: list[int]) -> Trajectory:
        return collect(self.models, self.tokenizer, self.reward, prompts, seeds, self.config, self.processes)

    def _evaluate(self, update: int, held_out: Prompts) -> Row:
        """Sample a response to every held-out prompt, with the same random numbers at each evaluation."""
        prompts = list(zip(held_out.texts, held_out.ids, strict=True))
        # Seeds of another run than any training episode's.
        trajectory = self._collect(prompts, episode_seeds(-1 - self.seed, 0, len(prompts)))
        statistics = evaluation_statistics(trajectory, self.config)
        scores = trajectory.scores.sum(1).tolist()
        shown = zip(trajectory.prompts, trajectory.responses, scores, trajectory.ended.tolist(), strict=True)
        for prompt, response, score, ended in list(shown)[:SAMPLES]:
            sample = {"update": update, "prompt": prompt, "response": response, "reward": score, "ended": ended}
            self.samples.append(rounded(sample))
        objective = statistics["eval_reward"] - self.config.kl_coef * statistics["eval_kl"]
        if self.config.deliver == "best" and (self.best is None or objective > self.best["objective"]):
            self.best = {"update": update, "objective": objective}
            self._save_policy("best")
        return statistics

    def _due(self, every: int) -> bool:
        return self.updates_done % every == 0 or self.updates_done == self.config.updates

    def _log(self, row: Row) -> Row:
        row = rounded(row)
        self.history.append(row)
        if self.folder is not None and self.processes.is_main:
            write_csv(self.folder / "history.csv", self.history)
            write_jsonl(self.folder / "samples.jsonl", self.samples)
        if self.processes.is_main:
            for callback in self.callbacks:
                callback(row)
        return row

    def _save_policy(self, name: str) -> None:
        if self.processes.is_main:
            save_policy(self._place(name), self.models, self.tokenizer)
        self.processes.wait()

    # What a resume point holds beside weights, optimizer and random states.
    _STATE = ("updates_done", "optimizer_steps", "kl_coef", "history", "samples", "best", "stopped")

    def _settings(self) -> dict[str, Any]:
        return {"seed": self.seed, **self.config.model_dump(mode="json")}

    def _save(self) -> None:
        if not self.processes.is_main:
            return
        state = {name: getattr(self, name) for name in self._STATE}
        state |= {"identical": self.alarms.identical, "settings": self._settings()}
        save_resume_point(self._place("resume"), self.models, self.optimizer, state)
        saved(f"update {self.updates_done}")
        self._saved, self._saved_at = self.updates_done, time.monotonic()

    def _load(self) -> None:
        keys = (*self._STATE, "identical")
        state = load_resume_point(self._place("resume"), self.models, self.optimizer, self._settings(), keys)
        for name in self._STATE:
            setattr(self, name, state[name])
        self.alarms.identical = state["identical"]
        self.warning.know(self.history)
        self._saved = self.updates_done
        if self.processes.is_main:
            goes_on("ppo", f"update {self.updates_done}")
