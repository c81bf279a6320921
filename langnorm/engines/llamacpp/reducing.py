"""Reduces the states of one sequence to a few numbers: updates of layers, and means over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from langnorm.engines.update_numbers import build_updates, update_numbers

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.engines.requests import Request
    from langnorm.reductions import FloatArray, Updates


class SequenceReducer:
    """Reduces what passes show of the tokens of an answer, each once, also if it is run again.

    Args:
        request: Of the sequence.
        num_layers: Number of decoder layers.
        hidden_size: d, the width of the residual stream.
    """

    def __init__(self, request: Request, num_layers: int, hidden_size: int) -> None:
        self._layers, self._has_mean = request.update_layers, request.records_mean_states
        self._num_prompt_tokens = len(request.prompt_ids)
        self._every = request.pruner.every if request.pruner else None
        self._next_position = self._num_prompt_tokens - 1  # of the prompt, the last token is compared with
        self._before: dict[int, Tensor] = {}  # by layer, the state (1, d) of the token before that one
        self._rows: list[Tensor] = []  # (L, 4) a token
        self._sums = torch.zeros(num_layers + 1, hidden_size)
        self._num_added = 0
        self._sums_after: dict[int, Tensor] = {}  # by number of tokens, where a pruner will ask
        layers = range(num_layers) if self._has_mean else self._layers
        self.places = frozenset(place for layer in layers for place in (layer - 1, layer))
        """Where it reads states: after these layers; -1 is before the first of them."""

    def observe(self, first_position: int, states: Mapping[int, Tensor]) -> None:
        """Reduce the states of consecutive tokens.

        Args:
            first_position: Of the first of them.
            states: By place, those of all of them (N, d).
        """
        if not self.places:
            return
        num_seen = max(0, self._next_position - first_position)
        seen = {place: states[place][num_seen:] for place in self.places}
        num_new = len(seen[max(self.places)])
        if not num_new:
            return
        of_prompt = max(0, self._num_prompt_tokens - first_position - num_seen)
        if self._layers:
            numbers = torch.stack([self._update(layer, seen) for layer in self._layers], dim=1)  # (N, L, 4)
            self._rows += numbers[of_prompt:].unbind()
        if self._has_mean:
            of_answer = torch.stack([seen[place] for place in sorted(self.places)], dim=1)[of_prompt:]  # (N, L + 1, d)
            for row in of_answer:
                self._sums += row
                self._num_added += 1
                if self._every and (self._num_added + 1) % self._every == 0:
                    self._sums_after[self._num_added] = self._sums.clone()
        self._next_position = first_position + num_seen + num_new

    def _update(self, layer: int, states: Mapping[int, Tensor]) -> Tensor:
        """Return the numbers of one layer (N, 4) for consecutive tokens, in the order of the fields of `Updates`."""
        now, before = states[layer], states[layer - 1]
        earlier = torch.cat([self._before.get(layer, now[:1]), now[:-1]])
        self._before[layer] = now[-1:]
        return update_numbers(now, before, earlier)

    def updates(self, num_rows: int) -> Updates | None:
        """Return the updates of the first tokens of the answer; None if the request did not ask for them."""
        if not self._layers:
            return None
        rows = self._rows[:num_rows]
        return build_updates(torch.stack(rows) if rows else torch.empty(0, len(self._layers), 4))

    def mean_states(self, num_rows: int) -> FloatArray | None:
        """Return the means over the first tokens of the answer; None if the request did not ask for them.

        Args:
            num_rows: How many tokens: all that were run, or as many as a pruner asks of.
        """
        if not self._has_mean:
            return None
        sums = self._sums if num_rows == self._num_added else self._sums_after[num_rows]
        means: FloatArray = (sums.double() / num_rows if num_rows else sums[:0].double()).numpy()
        return means
