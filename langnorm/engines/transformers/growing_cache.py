"""A cache of keys and values with room for tokens to come, so that a decode step copies none of the earlier ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_ROOM = 32  # tokens
_SHARE_OF_ROOM = 8  # an eighth of the tokens there are: all copies of a long answer come to a few times its length


class GrowingTensor:
    """Joins states (B, heads, T, d) along T as `torch.cat` does, mostly without copying what is there already.

    What it returns is never written to again, only what lies behind it: so whoever keeps an earlier state and puts it
    back has what it was.
    """

    def __init__(self) -> None:
        self._room: Tensor | None = None  # (B, heads, T + room, d)
        self._last: Tensor | None = None  # what was returned last, a view into it

    def join(self, states: Tensor, new: Tensor) -> Tensor:
        """Return states followed by new ones."""
        start, end = states.size(-2), states.size(-2) + new.size(-2)
        if self._room is None or states is not self._last or end > self._room.size(-2):
            self._room = new.new_empty(*new.shape[:-2], end + max(_LEAST_ROOM, end // _SHARE_OF_ROOM), new.size(-1))
            self._room[..., :start, :] = states
        self._room[..., start:end, :] = new
        self._last = self._room[..., :end, :]
        return self._last


class GrowingLayer(DynamicLayer):
    """The keys and values of one decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self._keys, self._values = GrowingTensor(), GrowingTensor()

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add the states of new tokens, and return those of all."""
        if self.keys is None or self.values is None or not self.get_seq_length():
            return super().update(key_states, value_states)
        self.keys = self._keys.join(self.keys, key_states)
        self.values = self._values.join(self.values, value_states)
        return self.keys, self.values


def growing_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model of this configuration, all layers of which keep everything."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() for _ in cache.layers]
    return cache
