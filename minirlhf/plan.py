"""`minirlhf plan`: what the stages of a run will take in memory and time, and whether that is there.

Memory is the worst case: the longest prompts and responses, and no row ending early. Times are of median lengths, from
a few passes really done with random weights (`--no-timing` leaves them out), scaled up by tokens; what they leave out
(loading, data, optimizer steps, the text measures of evaluate) is small where models are not tiny.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf import models
from minirlhf.causal_lm import check_fits
from minirlhf.data.locate import model_place
from minirlhf.files import read_json, read_text
from minirlhf.footprint import Passes, RewardPasses, Taken, parameters_of_reward_model
from minirlhf.ppo.config import LoRAConfig

if TYPE_CHECKING:
    from minirlhf.params import Params

FLOAT = 4  # weights, gradients and Adam's two moments are fp32 in either precision
# A process with the libraries imported, before any model; on a GPU the context and the kernels.
LIBRARIES = {"cpu": 450_000_000, "mps": 450_000_000, "cuda": 800_000_000}
REWARD_MODEL_BATCH = 16  # `RewardModel`'s own, in reward and ppo
UNKNOWN_POSTS = 1000  # of a split that no setting limits, before prepare has counted it
TIMED_SECONDS = 4.0  # a pass is timed on more rows until it takes that long
TIMED_STEPS = 4


@dataclass(frozen=True)
class Data:
    """Lengths in tokens and numbers of posts."""

    prompt: int  # median
    longest_prompt: int
    summary: int  # median
    longest_summary: int
    posts: dict[str, int]  # by split
    source: str  # where these numbers come from

    @property
    def typical(self) -> int:
        return self.prompt + self.summary

    @property
    def longest(self) -> int:
        return self.longest_prompt + self.longest_summary


@dataclass(frozen=True)
class Phase:
    """One kind of work of a stage, and the bytes that it needs."""

    kind: str  # learn | score | sample
    size: int  # at a time
    setting: str  # what the params call that size: STAGE.NAME
    weights: int
    gradients: int
    optimizer: int
    libraries: int
    follow: Callable[[], Taken]  # the pass

    @cached_property
    def taken(self) -> Taken:
        return self.follow()

    @property
    def work(self) -> str:
        return f"{self.kind} {self.size} at a time"

    @property
    def stage(self) -> str:
        return self.setting.split(".")[0]

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.taken.total + self.libraries


@dataclass(frozen=True)
class Speeds:
    """Seconds, measured."""

    learn: float  # a token, forward and backward
    score: float  # a token, forward
    step: float  # a decoding step of `rows` responses
    rows: int

    def sampling(self, count: int, batch: int, prompt: int, response: int) -> float:
        """Of `count` responses to a prompt each."""
        steps = -(-count // batch) * response
        # More rows at once than were timed take in proportion longer.
        return count * prompt * self.score + steps * self.step * max(1.0, min(batch, count) / self.rows)


def read_data(params: "Params", root: Path = Path()) -> Data:
    """Sizes as prepare counted them, if dvc.lock says that it was with these params; otherwise what params allow."""
    data = params.data
    if _prepared_with(params, root / "dvc.lock"):
        found = read_json(root / "metrics" / "prepare.json")
        parts = found["posts"]["tokens"], found["comparisons"]["tokens"]
        summaries = [tokens for part in parts for name, tokens in part.items() if name != "prompt"]
        return Data(
            prompt=found["posts"]["tokens"]["prompt"]["median"],
            longest_prompt=max(part["prompt"]["max"] for part in parts),
            summary=found["posts"]["tokens"]["completion"]["median"],
            longest_summary=max(tokens["max"] for tokens in summaries),
            posts={split: found["posts"][split]["kept"] for split in ("train", "validation", "test")},
            source="metrics/prepare.json",
        )
    limits = {"train": data.max_posts, "validation": data.max_validation, "test": data.max_test}
    return Data(
        prompt=data.max_prompt_tokens,
        longest_prompt=data.max_prompt_tokens,
        summary=data.max_response_tokens,
        longest_summary=data.max_response_tokens,
        posts={split: limit or UNKNOWN_POSTS for split, limit in limits.items()},
        source="the params: the longest that they allow",
    )


def _prepared_with(params: "Params", lock: Path) -> bool:
    from ruamel.yaml import YAML

    if not lock.exists() or not (lock.parent / "metrics" / "prepare.json").exists():
        return False
    stages = YAML(typ="safe", pure=True).load(read_text(lock))["stages"]
    now = {"data": params.data.model_dump(mode="json"), "model.base": params.model.base}
    return stages.get("prepare", {}).get("params", {}).get("params.yaml") == now


class Plan:
    """What a run takes on a device ("cpu", "cuda", "mps").

    Raises UserError: a config cannot be loaded, or prompt and response exceed the model's positions.
    """

    def __init__(self, params: "Params", data: Data, device: str):
        self.params, self.data, self.device = params, data, device
        place = model_place(params.model.base)
        self.config = models.load_config(place, params.model.revision, params.model.random_weights)
        self.passes = Passes(self.config, device, params.precision)
        check_fits(self.passes.parts, data.longest_prompt, max(data.longest_summary, params.ppo.max_new_tokens))
        self.policy = self.passes.parameters
        self._with_adapters: tuple[LoRAConfig, Passes] | None = None
        reward, self.reward_passes = self.config, self.passes  # those of the SFT model's trunk
        named = params.reward.base or params.reward.pretrained
        if named is not None:
            reward = models.load_config(model_place(named), params.reward.revision)
        reward.num_labels = 1
        if named is not None:
            self.reward_passes = RewardPasses(reward, device, params.precision)
        self.reward = parameters_of_reward_model(reward)

    def phases(self, params: "Params", *stages: str) -> list[Phase]:
        """What the stages do, all by default. The params may differ from the plan's in sizes and savings."""
        of = {"sft": self._sft, "reward": self._reward, "ppo": self._ppo, "evaluate": self._evaluate}
        return [phase for stage in stages or of for phase in of[stage](params)]

    def _phase(self, setting, kind, size, networks, trained, passes, work, with_gradient=None) -> Phase:
        """Networks in parameters; `trained` of them have optimizer state, `with_gradient` (all) gradients at a time."""
        gradients = (trained if with_gradient is None else with_gradient) * FLOAT
        optimizer, weights = trained * 2 * FLOAT, networks * FLOAT
        follow = partial(passes.memory, work)
        return Phase(kind, size, setting, weights, gradients, optimizer, LIBRARIES[self.device], follow)

    def _sft(self, params: "Params") -> Iterator[Phase]:
        size, length, labels = params.sft.micro_batch_size, self.data.longest, self.data.longest_summary
        work = partial(self.passes.learn, size, length, labels, params.sft.gradient_checkpointing)
        yield self._phase("sft.micro_batch_size", "learn", size, self.policy, self.policy, self.passes, work)

    def _reward(self, params: "Params") -> Iterator[Phase]:
        if params.reward.pretrained is not None:
            passes, size = self.reward_passes, REWARD_MODEL_BATCH
            work = partial(passes.score, size, self.data.longest, 1)
            yield self._phase("reward.pretrained", "score", size, self.reward, 0, passes, work)
            return
        size = params.reward.micro_batch_size
        rows = size * self.summaries_compared(params)
        passes = self.reward_passes
        work = partial(passes.learn, rows, self.data.longest, 1, params.reward.gradient_checkpointing)
        yield self._phase("reward.micro_batch_size", "learn", size, self.reward, self.reward, passes, work)

    def summaries_compared(self, params: "Params") -> int:
        """Of one post, at the most usual: two, or the candidates and the author's."""
        return max(2, params.reward.candidates + 1)

    def _ppo(self, params: "Params") -> Iterator[Phase]:
        ppo, prompt = params.ppo, self.data.longest_prompt
        passes = self.passes if ppo.lora is None else self._adapted(ppo.lora)
        separate = ppo.critic == "separate"
        trained = sum(parameter.numel() for parameter in passes.trained)
        networks = passes.parameters * (1 + separate) + self.reward + (self.policy if ppo.lora is None else 0)
        everything = trained * (1 + separate)

        size, response = ppo.rollout_batch_size, ppo.max_new_tokens
        work = partial(passes.sample, min(size, ppo.batch_size), prompt, response)
        yield self._phase("ppo.rollout_batch_size", "sample", size, networks, everything, passes, work, 0)
        size, setting, length = ppo.micro_batch_size, "ppo.micro_batch_size", prompt + response - 1
        rows = min(max(size, REWARD_MODEL_BATCH), ppo.batch_size)
        work = partial(passes.score, rows, length, response)
        yield self._phase(setting, "score", size, networks, everything, passes, work, 0)
        work = partial(passes.learn, size, length, response, ppo.gradient_checkpointing)
        yield self._phase(setting, "learn", size, networks, everything, passes, work, trained)

    def _evaluate(self, params: "Params") -> Iterator[Phase]:
        size, response, setting = params.evaluate.batch_size, params.ppo.max_new_tokens, "evaluate.batch_size"
        snapshots = bool(params.ppo.snapshot_every)
        networks = self.policy * (2 + snapshots) + self.reward
        if params.evaluate.judge is not None and params.evaluate.judge.kind == "reward_model":
            networks += self.reward  # taken to be as large as the reward model
        work = partial(self.passes.sample, size, self.data.longest_prompt, response)
        yield self._phase(setting, "sample", size, networks, 0, self.passes, work)
        work = partial(self.passes.score, size, self.data.longest_prompt + response, response)
        yield self._phase(setting, "score", size, networks, 0, self.passes, work)

    def _adapted(self, lora: LoRAConfig) -> Passes:
        if self._with_adapters is None or self._with_adapters[0] != lora:
            self._with_adapters = lora, Passes(self.config, self.device, self.params.precision, lora)
        return self._with_adapters[1]

    def remedy(self, phase: Phase, memory: int) -> str | None:
        """The first change of settings after which the phase fits into so many bytes, or None."""
        section, _, key = phase.setting.partition(".")
        if key == "pretrained":
            return None
        savings = [{}]
        if phase.kind == "learn":
            savings.append({f"{section}.gradient_checkpointing": True})
        if self.device == "cuda" and self.params.precision == "fp32":
            savings += [saving | {"precision": "bf16"} for saving in savings]
        if section == "ppo" and self.params.ppo.lora is None:
            savings += [saving | {"ppo.lora": LoRAConfig()} for saving in savings]
        for saving in savings:
            plan = self
            if "precision" in saving:
                plan = Plan(changed_params(self.params, {"precision": saving["precision"]}), self.data, self.device)

            def total(size: int, saving=saving, plan=plan) -> int:
                changed = changed_params(self.params, saving | {phase.setting: size})
                return next(one.total for one in plan.phases(changed, phase.stage) if one.kind == phase.kind)

            if total(1) > memory:
                continue
            size, needed = next((size, need) for size in _smaller(phase.size) if (need := total(size)) <= memory)
            changes = saving | ({} if size == phase.size else {phase.setting: size})
            said = ", ".join(f"{name}: {_yaml(value)}" for name, value in changes.items())
            return f"{said} ({_gb(needed)} GB)"
        return None

    # Time

    def speeds(self) -> Speeds:
        """A few passes, really done on the device with random weights; each at most about TIMED_SECONDS."""
        params, data = self.params, self.data
        real = Passes(self.config, self.device, params.precision, real=True)
        length = data.typical

        def per_token(work, most: int) -> float:
            rows, seconds = 1, real.seconds(lambda: work(1))  # warms up, where that is quick
            while 3 * seconds < TIMED_SECONDS:
                seconds = real.seconds(lambda rows=rows: work(rows))
                if 2 * rows > most or 3 * seconds > TIMED_SECONDS:
                    break
                rows *= 2
            return seconds / (rows * length)

        learn = per_token(lambda rows: real.learn(rows, length, data.summary), params.ppo.micro_batch_size)
        for parameter in real.trained:
            parameter.grad = None
        score = per_token(lambda rows: real.score(rows, length, data.summary), params.ppo.micro_batch_size)
        rows = min(params.ppo.rollout_batch_size, max(1, int(TIMED_SECONDS / (score * data.prompt))))
        prompt, response = data.prompt, params.ppo.max_new_tokens
        short, long = (real.seconds(lambda n=n: real.sample(rows, prompt, response, n)) for n in (1, 1 + TIMED_STEPS))
        return Speeds(learn, score, max(long - short, 0.0) / TIMED_STEPS, rows)

    def work(self, speeds: Speeds | None) -> list[tuple[str, int, float | None]]:
        """For each stage the tokens that pass through networks, and the seconds expected."""
        params, data = self.params, self.data
        ppo, validation, test = params.ppo, data.posts["validation"], data.posts["test"]
        rows = []

        def add(stage: str, learnt: float, scored: float, sampled: list[tuple[int, int]], checkpointing=False) -> None:
            """Tokens learnt from and scored; (responses, how many at a time)."""
            response = ppo.max_new_tokens
            tokens = learnt + scored + sum(count * (data.prompt + response) for count, _ in sampled)
            seconds = None
            if speeds is not None:
                seconds = learnt * (speeds.learn + checkpointing * speeds.score) + scored * speeds.score
                seconds += sum(speeds.sampling(n, batch, data.prompt, response) for n, batch in sampled)
            rows.append((stage, round(tokens), seconds))

        sft, reward = params.sft, params.reward
        evaluations = sft.steps // sft.eval_every
        learnt = sft.steps * sft.batch_size * data.typical
        add("sft", learnt, evaluations * validation * data.typical, [], sft.gradient_checkpointing)
        candidates = reward.candidates * (reward.candidate_posts + 200) if reward.candidates else 0
        if reward.pretrained is None:
            compared = self.summaries_compared(params) * data.typical
            if reward.base is not None:  # as many tokens of the policy, of which the time is known
                compared *= self.reward / self.policy
            learnt, scored = reward.steps * reward.batch_size * compared, reward.steps // reward.eval_every * validation
            add("reward", learnt, scored * compared, [(candidates, 64)], reward.gradient_checkpointing)
        else:
            add("reward", 0, (500 + 2 * test) * data.typical, [])
        episode = data.prompt + min(data.summary, ppo.max_new_tokens)
        separate = ppo.critic == "separate"
        opinions = (1 + separate + self.reward / self.policy) * episode
        evaluations = 1 + ppo.updates // ppo.eval_every if ppo.eval_every else 0
        episodes = ppo.episodes + evaluations * validation
        sampled = [(ppo.batch_size, ppo.rollout_batch_size)] * ppo.updates
        sampled += [(validation, ppo.rollout_batch_size)] * evaluations
        learnt = ppo.episodes * ppo.ppo_epochs * (1 + separate) * episode
        add("ppo", learnt, episodes * opinions, sampled, ppo.gradient_checkpointing)
        evaluate = params.evaluate
        points = 2 + (ppo.updates // ppo.snapshot_every if ppo.snapshot_every else 0)
        drawn = 4 * test + points * min(evaluate.frontier_posts, test)
        drawn += evaluate.best_of_n * min(evaluate.frontier_posts, test) if evaluate.best_of_n > 1 else 0
        add("evaluate", 0, 2 * drawn * episode, [(drawn, evaluate.batch_size)])
        return rows


def available_memory(device: str) -> int:
    """Bytes free now: of the GPU, or of this machine and the control group that the process is in."""
    import psutil
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def changed_params(params: "Params", changes: dict) -> "Params":
    """The params with some settings, by dotted name, changed."""
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if not key:
            params = params.model_copy(update={section: value})
            continue
        params = params.model_copy(update={section: getattr(params, section).model_copy(update={key: value})})
    return params


def _smaller(size: int) -> Iterator[int]:
    """The size and its halves, as long as they divide: those are accepted wherever the size was."""
    yield size
    while size > 1:
        size = size // 2 if size % 2 == 0 else 1
        yield size


def show(params: "Params", memory: int | None = None, timing: bool = True, root: Path = Path()) -> str:
    """The plan as text: memory by stage and phase, tokens and time by stage, the verdict.

    Args:
        memory: bytes of a GPU that is not here, to plan for it; None: the device here.
    """
    data = read_data(params, root)
    device = "cuda" if memory is not None else models.choose_device(params.device)
    plan = Plan(params, data, device)
    phases = plan.phases(params)
    there = available_memory(device) if memory is None else memory
    lines = [
        f"{params.model.base}: {_millions(plan.policy)} parameters, reward model {_millions(plan.reward)}; "
        f"{device}, {params.precision}, {_gb(there)} GB of memory",
        f"prompts of {data.prompt} tokens, at most {data.longest_prompt}; responses of {data.summary}, at most "
        f"{data.longest_summary}: {data.source}",
        "",
    ]
    header = ["stage", "work", "weights", "gradients", "optimizer", "activations", "logits", "KV cache", "total GB"]
    table = [[one.stage, one.work, *map(_gb, _parts(one))] for one in phases]
    lines += _table([header, *table]) + [""]
    # A GPU that is not here cannot be timed; nor what does not fit.
    fits = all(phase.total <= there for phase in phases)
    speeds = plan.speeds() if timing and memory is None and fits else None
    work = plan.work(speeds)
    rows = [[stage, f"{tokens / 1e6:.3g} M", _duration(seconds)] for stage, tokens, seconds in work]
    lines += _table([["stage", "tokens", "time"], *rows]) + [""]
    return "\n".join(lines + verdict(plan, phases, there))


def verdict(plan: Plan, phases: list[Phase], memory: int) -> list[str]:
    """One line if all fits, otherwise one for each stage that does not, with what to set."""
    largest = max(phases, key=lambda phase: phase.total)
    if largest.total <= memory:
        return [f"fits: at most {_gb(largest.total)} of {_gb(memory)} GB ({largest.stage}, {largest.work})"]
    lines = []
    for phase in phases:
        if phase.total > memory:
            remedy = plan.remedy(phase, memory) or "a smaller model or shorter prompts"
            needed = f"{phase.stage}, {phase.work}: {_gb(phase.total)} of {_gb(memory)} GB"
            lines.append(f"does not fit: {needed}; set {remedy}")
    return lines


def _parts(phase: Phase) -> list[int]:
    taken = phase.taken
    parts = [phase.weights, phase.gradients, phase.optimizer, taken.activations, taken.logits, taken.kv_cache]
    return [*parts, phase.total]


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}" if size < 9.995e9 else f"{size / 1e9:.1f}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g}M"


def _yaml(value) -> str:
    if isinstance(value, LoRAConfig):
        value = value.model_dump()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 2 if len(widths) > 3 else 1  # columns of words; the others are numbers
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
