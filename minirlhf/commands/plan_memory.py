"""What the stages of a run take in memory, from passes that are followed without being done; and what takes less."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from minirlhf.commands.footprint import Passes, RewardPasses, Taken, parameters_of_reward_model
from minirlhf.commands.plan_sizes import Data
from minirlhf.hub.configs import load_config
from minirlhf.hub.locate import model_place
from minirlhf.models.trunk import check_fits
from minirlhf.settings.params import Params
from minirlhf.settings.ppo import LoRAConfig

FLOAT = 4  # weights, gradients and Adam's two moments are fp32 in either precision
# A process with the libraries imported, before any model; on a GPU the context and the kernels.
LIBRARIES = {"cpu": 450_000_000, "mps": 450_000_000, "cuda": 800_000_000}
REWARD_MODEL_BATCH = 16  # `RewardModel`'s own, in reward and ppo


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


class Plan:
    """What a run takes on a device ("cpu", "cuda", "mps").

    Raises UserError: a config cannot be loaded, or prompt and response exceed the model's positions.
    """

    def __init__(self, params: Params, data: Data, device: str):
        self.params, self.data, self.device = params, data, device
        place = model_place(params.model.base)
        self.config = load_config(place, params.model.revision, params.model.random_weights)
        self.passes = Passes(self.config, device, params.precision)
        check_fits(self.passes.parts, data.longest_prompt, max(data.longest_summary, params.ppo.max_new_tokens))
        self.policy = self.passes.parameters
        self._with_adapters: tuple[LoRAConfig, Passes] | None = None
        reward, self.reward_passes = self.config, self.passes  # those of the SFT model's trunk
        named = params.reward.base or params.reward.pretrained
        if named is not None:
            reward = load_config(model_place(named), params.reward.revision)
        reward.num_labels = 1
        if named is not None:
            self.reward_passes = RewardPasses(reward, device, params.precision)
        self.reward = parameters_of_reward_model(reward)
        # Where comparisons give the likelihood a weight, what scores a response has an SFT model of its own.
        self.scorer = self.reward
        if params.reward.likelihood and params.reward.pretrained is None:
            self.scorer += self.policy

    def phases(self, params: Params, *stages: str) -> list[Phase]:
        """What the stages do, all by default. The params may differ from the plan's in sizes and savings."""
        of = {"sft": self._sft, "reward": self._reward, "ppo": self._ppo, "evaluate": self._evaluate}
        return [phase for stage in stages or of for phase in of[stage](params)]

    def _phase(self, setting, kind, size, networks, trained, passes, work, with_gradient=None) -> Phase:
        """Networks in parameters; `trained` of them have optimizer state, `with_gradient` (all) gradients at a time."""
        gradients = (trained if with_gradient is None else with_gradient) * FLOAT
        optimizer, weights = trained * 2 * FLOAT, networks * FLOAT
        follow = partial(passes.memory, work)
        return Phase(kind, size, setting, weights, gradients, optimizer, LIBRARIES[self.device], follow)

    def _sft(self, params: Params) -> Iterator[Phase]:
        size, length, labels = params.sft.micro_batch_size, self.data.longest, self.data.longest_summary
        work = partial(self.passes.learn, size, length, labels, params.sft.gradient_checkpointing)
        yield self._phase("sft.micro_batch_size", "learn", size, self.policy, self.policy, self.passes, work)

    def _reward(self, params: Params) -> Iterator[Phase]:
        if params.reward.pretrained is not None:
            passes, size = self.reward_passes, REWARD_MODEL_BATCH
            work = partial(passes.score, size, self.data.longest, 1)
            yield self._phase("reward.pretrained", "score", size, self.reward, 0, passes, work)
            return
        size = params.reward.micro_batch_size
        rows = size * self.summaries_compared(params, self.data.most_compared)
        passes = self.reward_passes
        work = partial(passes.learn, rows, self.data.longest, 1, params.reward.gradient_checkpointing)
        yield self._phase("reward.micro_batch_size", "learn", size, self.reward, self.reward, passes, work)

    def summaries_compared(self, params: Params, given: int) -> int:
        """Of one post: as many as comparisons were given of, or the candidates and the author's."""
        return max(given, params.collect.candidates + 1)

    def _ppo(self, params: Params) -> Iterator[Phase]:
        ppo, prompt = params.ppo, self.data.longest_prompt
        passes = self.passes if ppo.lora is None else self._adapted(ppo.lora)
        separate = ppo.critic == "separate"
        trained = sum(parameter.numel() for parameter in passes.trained)
        networks = passes.parameters * (1 + separate) + self.scorer + (self.policy if ppo.lora is None else 0)
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

    def _evaluate(self, params: Params) -> Iterator[Phase]:
        size, response, setting = params.evaluate.batch_size, params.ppo.max_new_tokens, "evaluate.batch_size"
        snapshots = bool(params.ppo.snapshot_every)
        networks = self.policy * (2 + snapshots) + self.scorer
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
            return f"{said} ({gigabytes(needed)} GB)"
        return None


def changed_params(params: Params, changes: dict) -> Params:
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


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f}" if size < 9.995e9 else f"{size / 1e9:.1f}"


def _yaml(value) -> str:
    if isinstance(value, LoRAConfig):
        value = value.model_dump()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
