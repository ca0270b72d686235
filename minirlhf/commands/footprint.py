"""What a pass through a network takes: memory, found without taking any, and time, measured.

The passes are run on tensors that have shapes but no storage (PyTorch's FakeTensorMode), and what they would allocate
and free is followed allocation by allocation. So an estimate has the temporaries of every kernel in it, for any
architecture, and takes a second. What it cannot see is what an allocator adds: rounding and fragmentation.

Shapes: B rows, T longest sequence, P longest prompt, R longest response, V vocabulary.
"""

import contextlib
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minirlhf.models.kernels import use_fast_kernels
from minirlhf.models.logprobs import token_logprobs
from minirlhf.models.passes import pass_tokens
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.ppo.build import add_adapters, checkpointed_layers
from minirlhf.ppo.model import recomputing
from minirlhf.sampling.draw import sample_tokens
from minirlhf.sampling.generate import _prefill
from minirlhf.settings.ppo import LoRAConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Taken:
    """Bytes alive at the peak of a pass, beside weights, gradients and optimizer."""

    activations: int = 0
    logits: int = 0
    kv_cache: int = 0

    @property
    def total(self) -> int:
        return self.activations + self.logits + self.kv_cache


class Allocations(TorchDispatchMode):
    """Follows the storages that operations make and free within the block; `peak` is what was alive at the most."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary, self.alive, self.peak = vocabulary, Taken(), Taken()
        self._known: dict[int, weakref.ref] = {}  # storages by their address

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            address = tensor.untyped_storage()._cdata
            if address not in self._known and address not in given:  # no view, of a weight for example
                self._add(tensor)
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size, is_logits = storage._cdata, storage.nbytes(), tensor.shape[-1:] == (self.vocabulary,)

        def freed(_: weakref.ref) -> None:
            self._known.pop(key, None)
            self._change(-size, is_logits)

        self._known[key] = weakref.ref(storage, freed)
        self._change(size, is_logits)
        if self.alive.total > self.peak.total:
            self.peak = self.alive

    def _change(self, size: int, is_logits: bool) -> None:
        logits = size if is_logits else 0
        self.alive = Taken(self.alive.activations + size - logits, self.alive.logits + logits)


def _tensors(values) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Passes:
    """The passes of the stages through a causal LM with random weights.

    Args:
        config: of the model; its weights are never read.
        device: "cpu", "cuda" or "mps".
        precision: "fp32" or "bf16".
        lora: train adapters, as PPO does.
        real: really allocate and compute, to measure time; otherwise nothing is allocated.
    """

    def __init__(
        self,
        config: "PretrainedConfig",
        device: str,
        precision: str,
        lora: LoRAConfig | None = None,
        real: bool = False,
    ):
        # Tensors without storage are the CPU's: those of a GPU need a GPU. Its kernels make nearly the same.
        self.device, self.precision = torch.device(device if real else "cpu"), precision
        self._prefill_tokens = pass_tokens(device)
        self._fake = contextlib.nullcontext() if real else FakeTensorMode()
        with self.device if real else torch.device("meta"):
            model = self._make(config)
            if lora is not None:
                add_adapters(model, lora, seed=0)
        if not real:
            with self._fake:
                _replace_tensors(model)
        use_fast_kernels(model)
        self.model = model.eval()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def _make(self, config: "PretrainedConfig") -> nn.Module:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    @cached_property
    def parts(self) -> TrunkAndHead:
        return _Unchecked(self.model)

    @property
    def vocabulary(self) -> int:
        return self.parts.vocabulary

    def learn(self, rows: int, length: int, response: int, checkpointing: bool = False) -> None:
        """Forward and backward pass of B rows of T tokens, the logits of R tokens each; the gradients are there."""
        with recomputing(checkpointed_layers([self.model]) if checkpointing else []), self._autocast():
            self._logprobs(rows, length, response).sum().backward()

    @torch.no_grad()
    def score(self, rows: int, length: int, response: int) -> None:
        """Forward pass of B rows of T tokens, the log-probabilities of R tokens each."""
        with self._autocast():
            self._logprobs(rows, length, response)

    @torch.no_grad()
    def sample(self, rows: int, prompt: int, response: int, steps: int = 2, samples_per_prompt: int = 1) -> int:
        """Prefill of B prompts of P tokens and the first steps of R; the bytes of the key-value cache."""
        with self._autocast():
            # Each another than its neighbour: those that are the same would run once.
            prompts = [[row % 2] * prompt for row in range(max(1, rows // samples_per_prompt))]
            state = _prefill(self.parts, prompts, response, samples_per_prompt, self._prefill_tokens)
            for step in range(steps):
                uniforms = torch.zeros(len(state.hidden), device=self.device)
                tokens, _ = sample_tokens(self.parts.logits(state.hidden), 1.0, uniforms)
                state.hidden = self.parts.hidden(
                    tokens[:, None],
                    state.attention_mask[:, : prompt + step + 1],
                    position_ids=(state.prompt_length + step)[:, None],
                    past_key_values=state.cache,
                    use_cache=True,
                )[:, -1]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in state.cache.layers)

    def memory(self, work: Callable[[], int | None]) -> Taken:
        """What one of the passes takes at its peak, on tensors without storage."""
        with self._fake:
            for parameter in self.trained:
                parameter.grad = torch.zeros_like(parameter)  # counted apart
            with Allocations(self.vocabulary) as allocations:
                kv_cache = work() or 0
        peak = allocations.peak
        return Taken(max(peak.activations - kv_cache, 0), peak.logits, kv_cache)

    def seconds(self, work: Callable[[], object]) -> float:
        """The time of one of the passes, really done."""
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _logprobs(self, rows: int, length: int, response: int) -> Tensor:
        ids = torch.zeros(rows, length, dtype=torch.long, device=self.device)
        states = torch.zeros(rows * response, dtype=torch.long, device=self.device)
        hidden = self.parts.trunk(input_ids=ids, use_cache=False).last_hidden_state
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, states)
        return token_logprobs(self.parts, chosen, states, 1.0)

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class RewardPasses(Passes):
    """The passes of a reward model, decoder or encoder: `learn` and `score`, of one score a row."""

    vocabulary = 0  # it has no logits over tokens

    def _make(self, config: "PretrainedConfig") -> nn.Module:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)

    def _logprobs(self, rows: int, length: int, response: int) -> Tensor:
        from minirlhf.rewards.model import raw_scores

        # What is longer than the model has positions for is shortened.
        length = min(length, getattr(self.model.config, "max_position_embeddings", None) or length)
        ids = torch.zeros(rows, length, dtype=torch.long, device=self.device)
        return raw_scores(self.model, ids, torch.full((rows,), length, device=self.device))


def _replace_tensors(model: nn.Module) -> None:
    """Put new tensors of the current kind in the place of all parameters and buffers; what was shared stays shared."""
    new: dict[int, Tensor] = {}
    for module in model.modules():
        for named in (module._parameters, module._buffers):
            for name, old in named.items():
                if old is not None and id(old) not in new:
                    tensor = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    is_parameter = isinstance(old, nn.Parameter)
                    new[id(old)] = nn.Parameter(tensor, old.requires_grad) if is_parameter else tensor
                if old is not None:
                    named[name] = new[id(old)]


class _Unchecked(TrunkAndHead):
    """Without the check of the logits, which tensors without values cannot pass."""

    def _check(self) -> None:
        pass


def parameters_of_reward_model(config: "PretrainedConfig") -> int:
    """Parameters of a sequence classifier with this config."""
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())
