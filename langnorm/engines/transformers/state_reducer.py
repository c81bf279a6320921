"""Reduces the residual stream to a few numbers while a model decodes: updates of layers, and means over tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.transformers.decoder_layers import for_this_thread, hooked
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.engines.update_numbers import build_updates, update_numbers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm.engines.requests import Request
    from langnorm.reductions import FloatArray, Updates

_NUM_TOGETHER = 8  # passes that are reduced at once: copies are cheaper than many small operations


class StateReducer:
    """Reduces the states at the last position of every forward pass, for the sequences of one batch that ask for it.

    A place is where a state is read: place l is after decoder layer l, place -1 before the first of them. States of up
    to eight passes wait on the device of their layer, B * d values per place and pass; nothing waits for the device
    until something is asked for.

    Args:
        requests: One per sequence.
        num_layers: Number of decoder layers.
        end_ids: Tokens that end a sequence.
    """

    def __init__(self, requests: Sequence[Request], num_layers: int, end_ids: Sequence[int]) -> None:
        self._layers = [request.update_layers for request in requests]
        self._has_mean = [request.records_mean_states for request in requests]
        self._updated = sorted({layer for layers in self._layers for layer in layers})
        self._places = sorted({place for layer in self._updated for place in (layer - 1, layer)})
        if any(self._has_mean):
            self._places = list(range(-1, num_layers))
        self._end_ids = list(end_ids)
        self._waiting: dict[int, list[Tensor]] = {place: [] for place in self._places}  # (B, 1, d)
        self._before: dict[int, Tensor] = {}  # by layer, the state of the token before those that wait (B, 1, d)
        self._reduced: dict[int, list[Tensor]] = {layer: [] for layer in self._updated}  # (B, passes, 4) each
        self._sums: dict[int, Tensor] = {}  # by place (B, d)
        self._is_counted: Tensor | None = None  # whether the next pass counts, (B,); None in the prompt
        self._counted: list[Tensor | None] = []  # the same of the passes that wait
        self._num_passes = 0
        self._num_prompt_passes = 1

    @property
    def is_needed(self) -> bool:
        """Whether any sequence asks for something."""
        return bool(self._places)

    @contextmanager
    def attached(self, decoder_layers: nn.ModuleList) -> Iterator[None]:
        """Listen to the layers inside the `with` block; no hook is left behind, whatever happens there."""
        hooks = {place: self._hook(place) for place in self._places if place >= 0}
        with ExitStack() as stack:
            stack.enter_context(hooked(decoder_layers, hooks))
            if -1 in self._places:
                take = self._take(-1)

                def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                    take(args[0] if args else kwargs["hidden_states"])

                handle = decoder_layers[0].register_forward_pre_hook(for_this_thread(enter), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _hook(self, place: int) -> Callable[..., None]:
        take = self._take(place)

        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            take(get_residual_stream(output))

        return read

    def _take(self, place: int) -> Callable[[Tensor], None]:
        waiting, is_last = self._waiting[place], place == self._places[-1]

        def take(states: Tensor) -> None:
            waiting.append(states[:, -1:].clone())  # the model may write over what it has computed
            if is_last:
                self._num_passes += 1
                self._counted.append(self._is_counted)
                if len(waiting) == _NUM_TOGETHER:
                    self._reduce()

        return take

    def end_prefill(self) -> None:
        """Take all passes until now as the prompt's."""
        self._num_prompt_passes = self._num_passes

    def next_step(self, tokens: Tensor, is_done: Tensor) -> None:
        """Go on to the next pass, which runs the tokens that were just chosen.

        Args:
            tokens: One per sequence (B,).
            is_done: Which sequences are over, end tokens aside (B,).
        """
        if not any(self._has_mean):
            return
        is_over = is_done | torch.isin(tokens, torch.tensor(self._end_ids, device=tokens.device, dtype=tokens.dtype))
        self._is_counted = ~is_over if self._is_counted is None else self._is_counted & ~is_over

    def _reduce(self) -> None:
        """Reduce the states that wait."""
        if not self._counted:
            return
        states = {place: torch.cat(waiting, dim=1) for place, waiting in self._waiting.items()}  # (B, passes, d)
        for layer in self._updated:
            now = _widened(states[layer])
            before = _widened(states[layer - 1]).to(now.device)
            earlier = torch.cat([_widened(self._before.get(layer, states[layer][:, :1])), now[:, :-1]], dim=1)
            self._reduced[layer].append(update_numbers(now, before, earlier))
            self._before[layer] = states[layer][:, -1:]
        if any(self._has_mean):
            self._add_to_sums(states)
        self._counted.clear()
        for waiting in self._waiting.values():
            waiting.clear()

    def _add_to_sums(self, states: dict[int, Tensor]) -> None:
        first = states[self._places[0]]
        nothing = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        counted = torch.stack([nothing if row is None else row.to(first.device) for row in self._counted], dim=1)
        for place, of_place in states.items():
            rows = counted[..., None].to(of_place.device)  # (B, passes, 1)
            # Not a product with 0: what a sequence that has ended goes on with need not be finite.
            total = torch.where(rows, _widened(of_place), 0).sum(dim=1)
            self._sums[place] = self._sums[place] + total if place in self._sums else total

    def updates(self, index: int, num_tokens: int) -> Updates | None:
        """Return the updates of the first tokens of a sequence but the last; None if it did not ask for them.

        Args:
            index: Of the sequence in the batch.
            num_tokens: How many of its tokens.
        """
        if not (layers := self._layers[index]):
            return None
        self._reduce()
        start = self._num_prompt_passes
        of_layers = [torch.cat([part[index] for part in self._reduced[layer]]).cpu() for layer in layers]
        return build_updates(torch.stack(of_layers, dim=1)[start : start + num_tokens - 1])

    def mean_states(self, index: int, num_tokens: int) -> FloatArray | None:
        """Return the mean states (N + 1, d) of all tokens of a sequence but the last; None if it did not ask for them.

        Args:
            index: Of the sequence in the batch.
            num_tokens: How many tokens it has.
        """
        if not self._has_mean[index]:
            return None
        self._reduce()
        sums = torch.stack([self._sums[place][index].cpu() for place in self._places]).double()
        means: FloatArray = (sums / (num_tokens - 1) if num_tokens > 1 else sums[:0]).numpy()
        return means


def _widened(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
