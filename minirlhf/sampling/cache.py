"""The key-value cache of the sampler: one preallocated buffer, written in place.

Shapes: B responses, P longest prompt.
"""

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class _BufferLayer(CacheLayerMixin):
    """Keys and values [B, heads, capacity, size] of one layer, written in place: nothing is copied as it grows."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        self.slot: Tensor | None = None  # see KeyValueBuffer.fix

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise NotImplementedError("filled by KeyValueBuffer.fill before the first step")

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if self.slot is not None:
            self.keys.index_copy_(2, self.slot, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, self.slot, value_states.to(self.values.dtype))
            return self.keys, self.values
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.keys.shape[-2]


class KeyValueBuffer(Cache):
    """A preallocated key-value cache for `rows` sequences whose prompts end at the same slot, `padded_prompt`."""

    def __init__(self, rows: int, padded_prompt: int, capacity: int):
        super().__init__(layers=[])
        self.rows, self.padded_prompt, self.capacity = rows, padded_prompt, capacity

    def fill(self, first_row: int, prefix: Cache, owner: Tensor) -> None:
        """Copy prefilled prompts in, a row for each entry of `owner`, their last tokens in slot `padded_prompt - 1`."""
        for index, source in enumerate(prefix.layers):
            if index == len(self.layers):
                self.layers.append(self._new_layer(source.keys, source.values))
            layer = self.layers[index]
            for target, states in ((layer.keys, source.keys), (layer.values, source.values)):
                states = states[owner]
                rows = slice(first_row, first_row + states.shape[0])
                target[rows, :, self.padded_prompt - states.shape[2] : self.padded_prompt] = states

    def fix(self, slot: Tensor) -> None:
        """From here on a step writes to `slot` [1], a tensor, and reads all slots: its shapes stay what they are."""
        for layer in self.layers:
            layer.slot = slot

    def select(self, kept: Tensor) -> None:
        """Keep the rows where `kept` [B] is True."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[kept], layer.values[kept]

    def _new_layer(self, keys: Tensor, values: Tensor) -> _BufferLayer:
        layer = _BufferLayer(self.padded_prompt)
        # Zeros, not empty memory: a masked slot still enters the weighted sum, where 0 * NaN would be NaN.
        layer.keys = keys.new_zeros(self.rows, keys.shape[1], self.capacity, keys.shape[3])
        layer.values = values.new_zeros(self.rows, values.shape[1], self.capacity, values.shape[3])
        layer.is_initialized = True
        return layer
