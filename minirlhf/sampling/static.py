"""Decoding on a GPU: a step of fixed shapes that never waits for the processor, captured once and replayed.

A step of a small model is some hundred kernels of microseconds, which Python launches more slowly than the GPU runs
them. So nothing in a step depends on what was sampled: finished rows go on, unseen, the cache is as long as it will be,
and the slots to come are masked. Such a step can be a CUDA graph, which is launched as a whole. What is sampled is what
`minirlhf.sampling.generate` samples without it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minirlhf.models.trunk import TrunkAndHead
from minirlhf.sampling.draw import sample_tokens

if TYPE_CHECKING:
    from minirlhf.sampling.generate import Sampled, State

LOOK = 8  # steps between looks at whether all rows have ended, each of which waits for the GPU


def can_be_static(parts: TrunkAndHead) -> bool:
    """Whether every layer sees all tokens before: one mask for all of them then says what is there already."""
    config = parts.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None


def decode_static(
    parts: TrunkAndHead,
    state: "State",
    out: "Sampled",
    uniforms: Tensor | None,
    temperature: float,
    max_new_tokens: int,
    eos_token_id: int | None,
    value_head: Callable[[Tensor], Tensor] | None,
) -> None:
    """Sample all rows of a batch to their ends; on a GPU by replaying one step."""
    step = Step(parts, state, out, uniforms, temperature, max_new_tokens, eos_token_id, value_head)
    run = step
    for number in range(max_new_tokens):
        if number == 1 and parts.device.type == "cuda":
            run = captured(step)  # the first step has run by itself, so that all that is made once is made
        run()
        if eos_token_id is not None and number % LOOK == LOOK - 1 and not bool(step.active.any()):
            break
    step.write(out)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of a step; capturing it runs nothing."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Step:
    """Sample a token for each of b rows, and pass them through the trunk. It changes its tensors in place alone.

    Attributes: those of `State` and `Sampled`, of these b rows; active [b] are the rows that have not ended.
    """

    def __init__(self, parts, state, out, uniforms, temperature, max_new_tokens, eos_token_id, value_head):
        self.parts, self.temperature, self.eos_token_id, self.value_head = parts, temperature, eos_token_id, value_head
        self.hidden, self.uniforms, self.cache = state.hidden.clone(), uniforms, state.cache
        rows, device = len(out.rows), out.rows.device
        self.number = torch.zeros(1, dtype=torch.long, device=device)
        self.slot = self.number + state.padded_prompt
        self.position = state.prompt_length[:, None].clone()
        self.mask = state.attention_mask[:, None, None, :].clone()  # [b, 1, 1, slots]
        self.mask[..., state.padded_prompt :] = False
        self.cache.fix(self.slot)
        self.ids = out.ids[out.rows]
        self.logprobs = torch.zeros(rows, max_new_tokens, device=device)
        self.values = None if out.values is None else torch.zeros(rows, max_new_tokens, device=device)
        self.length = torch.zeros(rows, dtype=torch.long, device=device)
        self.active = torch.ones(rows, dtype=torch.bool, device=device)
        self.ended = torch.zeros_like(self.active)

    def __call__(self) -> None:
        drawn = None if self.uniforms is None else self.uniforms.index_select(1, self.number)[:, 0]
        tokens, logprobs = sample_tokens(self.parts.logits(self.hidden), self.temperature, drawn)
        self._put(self.ids, tokens)
        self._put(self.logprobs, logprobs)
        if self.values is not None:
            self._put(self.values, self.value_head(self.hidden).float())
        self.length += self.active
        if self.eos_token_id is not None:
            ends = tokens == self.eos_token_id
            self.ended |= self.active & ends
            self.active &= ~ends
        self.mask.index_fill_(3, self.slot, True)
        hidden = self.parts.hidden(
            tokens[:, None], self.mask, position_ids=self.position, past_key_values=self.cache, use_cache=True
        )
        self.hidden.copy_(hidden[:, -1])
        for counter in (self.number, self.slot, self.position):
            counter += 1

    def _put(self, table: Tensor, column: Tensor) -> None:
        """Write this step's `column` [b] into `table` [b, R] where rows have not ended."""
        before = table.index_select(1, self.number)
        table.index_copy_(1, self.number, torch.where(self.active[:, None], column[:, None], before))

    def write(self, out: "Sampled") -> None:
        """Hand the rows over."""
        out.ids[out.rows], out.logprobs[out.rows] = self.ids, self.logprobs
        out.length[out.rows], out.ended[out.rows] = self.length, self.ended
        if out.values is not None:
            out.values[out.rows] = self.values
