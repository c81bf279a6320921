"""Lets interventions act on the decoder layers of a worker, each sequence by its own plans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from langnorm.interventions.forward_pass import Interventions
from langnorm_vllm.layers import LayerCall, ResidualStream
from langnorm_vllm.rerun import without_cache_writes
from langnorm_vllm.trial import RerunTrial

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm.engines.vllm.order import Order
    from langnorm_vllm.batch_view import BatchView


class Intervener:
    """Acts on the states of all sequences of a worker.

    With tensor parallelism each worker decides for itself: norms are equal to the last bit on all of them, and random
    numbers depend on seed, layer and step alone, so all take the same branches.

    Args:
        layers: The decoder layers.
        stream: How their residual stream is read and written.
    """

    def __init__(self, layers: nn.ModuleList, stream: ResidualStream) -> None:
        self._layers, self._stream = layers, stream
        self._interventions = Interventions(len(layers))
        self._acted: frozenset[int] = frozenset()  # the layers of the pass under way that are acted on
        self._remembered: frozenset[int] = frozenset()  # those that may be run again
        self._entered_kept: frozenset[int] = frozenset()  # those whose entering states are needed
        self._calls: dict[int, LayerCall] = {}
        self._entered: dict[int, Tensor] = {}
        self._first_rows: list[int] = [0]
        self.trial = RerunTrial(stream)
        """What has come of running layers again in a trial."""
        self._is_trial = False

    def enter(self, order: Order) -> None:
        """Let a sequence enter."""
        if order.plans.all():
            self._interventions.add(
                order.key,
                order.plans,
                seed=order.seed,
                sample=order.sample,
                num_prompt_tokens=order.num_prompt_tokens,
            )

    def leave(self, order: Order) -> None:
        """Forget a sequence."""
        if order.plans.all():
            self._interventions.remove(order.key)

    def report(self, order: Order, num_tokens: int) -> dict[str, Any]:
        """Return what was done to a sequence; what was done to tokens beyond `num_tokens` is undone first."""
        if not order.plans.all():
            return {}
        self._interventions.roll_back(order.key, num_tokens)
        return self._interventions.report(order.key, num_tokens)

    def begin_pass(self, orders: Sequence[Order | None], batch: BatchView) -> None:
        """Say which tokens are computed next.

        Args:
            orders: Of the sequence of each request, or None for those of others.
            batch: The pass.
        """
        self._is_trial = any(order is not None and order.is_trial for order in orders)
        self._first_rows = batch.first_rows.tolist()
        acting = [order for order in orders if order and order.plans.layers]
        self._acted = frozenset(layer for order in acting for layer in order.plans.layers)
        if not acting:
            self._remembered = self._entered_kept = frozenset()
            return
        recursions = [order.plans.recursion for order in acting if order.plans.recursion]
        active = [plan for plan in recursions if plan.is_active]
        self._remembered = frozenset(
            layer - back for plan in active for layer in plan.layers for back in range(plan.options.block)
        )
        self._entered_kept = frozenset(plan.layers[0] for plan in active if plan.options.mode == "block")
        steps = [
            position - order.num_prompt_tokens if order else 0
            for order, position in zip(orders, batch.first_positions.tolist(), strict=True)
        ]
        keys = [order.key if order and order.plans.layers else None for order in orders]
        num_tokens = [end - start for start, end in pairwise(self._first_rows)]
        self._interventions.begin_pass(keys, steps, num_tokens)

    def end_pass(self) -> None:
        """Forget what was remembered of a pass."""
        self._calls.clear()
        self._entered.clear()
        self._acted = self._remembered = self._entered_kept = frozenset()
        self._is_trial = False

    def enter_layer(self, index: int, layer: nn.Module, args: Any, kwargs: Any) -> None:
        """Remember the states that enter a layer, where they are needed."""
        if index in self._entered_kept or self._is_trial:
            entering = LayerCall(layer, args, kwargs).entering()
            self._entered[index] = entering[: self._first_rows[-1]]

    def act(self, index: int, args: Any, kwargs: Any, output: Any) -> tuple[Any, Tensor | None]:
        """Act on what a layer returned.

        Returns:
            What it is replaced by, or None where it stays; and the norms (N,) of what flows on, where they are known.
        """
        if self._is_trial:
            call, entered = LayerCall(self._layers[index], args, kwargs), self._entered[index]
            num_rows = len(entered)
            self.trial.run(index, self._layers[index], call, entered, self._stream.get(output)[:num_rows])
        if index in self._remembered:
            self._calls[index] = LayerCall(self._layers[index], args, kwargs)
        if index not in self._acted:
            return None, None
        states = self._stream.get(output)
        num_rows = self._first_rows[-1]  # the pass may have been filled up with more
        before = states[:num_rows]
        after, norms = self._interventions.act(index, before, self._rerun, self._entered.__getitem__)
        if after is before:
            return None, norms
        if num_rows < len(states):
            filled = states.clone()
            filled[:num_rows] = after
            after = filled
        return self._stream.put(output, states, after), norms

    def _rerun(self, layers: range, states: Tensor, sequences: Sequence[int]) -> Tensor:
        """Run layers again for states (N, d) of all tokens of some sequences of the pass.

        Attention is computed for the whole pass, whose other rows come to nothing.
        """
        rows = [row for i in sequences for row in range(self._first_rows[i], self._first_rows[i + 1])]
        num_rows = self._first_rows[-1]
        is_whole = len(rows) == num_rows
        for layer in layers:
            with without_cache_writes(self._layers[layer]):
                output = self._calls[layer].run(states, None if is_whole else rows)
            states = self._stream.get(output)
            states = states[:num_rows] if is_whole else states[rows]
        return states
