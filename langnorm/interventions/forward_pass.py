"""What an engine calls: which tokens a forward pass computes, and after each layer, what becomes of their states.

    interventions = Interventions(num_layers)
    interventions.add(key, plans, seed=seed, sample=0, num_prompt_tokens=7)     # a sequence enters
    interventions.begin_pass([key], first_steps=[-7], num_tokens=[7])           # its prompt
    states, norms = interventions.act(layer, states, rerun, entered)            # after each of `layers`
    interventions.report(key, num_tokens); interventions.remove(key)            # it leaves

Every sequence has decode steps of its own: step 0 is the run of its first generated token, the prompt's tokens have the
steps before. A step that is computed again (after preemption, or for tokens that were only guessed) replaces what
that step and all later ones did the first time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import le, lt
from typing import TYPE_CHECKING, Any

from langnorm.interventions.block_loop import BlockLoop, LoopedToken, loop_block
from langnorm.interventions.recursion import LayerRecursion, RecursingToken, recur
from langnorm.interventions.sequence import InterveningSequence
from langnorm.interventions.token_norms import token_norms

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.interventions.plan import Plans
    from langnorm.interventions.steering import LayerSteering
    from langnorm.interventions.suppression import LayerSuppression

RerunBlock = Callable[[range, "Tensor", Sequence[int]], "Tensor"]
"""Runs consecutive layers again, without a trace in the KV cache: takes their indices, states (N, d) of all tokens of
some sequences of the pass, and the ascending indices of these sequences in the pass, and returns new states (N, d)."""

Entered = Callable[[int], "Tensor"]
"""Returns the states (N, d) of all tokens of the pass that entered a layer, by its index."""


@dataclass(slots=True)
class _LayerMembers:
    """The sequences of a pass that are acted on at one layer, by their index in the pass.

    With one token per sequence, whether anything is to be done is found by comparing all norms with one list.
    """

    recursing: list[tuple[int, LayerRecursion]]
    taus: list[float]  # the least of recursion, per sequence of the pass; infinite for those without
    blocks: list[int]  # lengths of block that occur
    looped: list[tuple[int, BlockLoop]]
    steered: list[tuple[int, LayerSteering]]
    leasts: list[float]  # of steering, per sequence of the pass; infinite for those without
    first_due: float  # the first step at which a low state may be pulled
    suppressed: list[tuple[int, LayerSuppression]]
    reads_prompt: bool
    reads_answer: bool


class Interventions:
    """The interventions of all sequences that an engine is generating.

    Decisions are taken on the host, which waits for one norm per token and layer.

    Args:
        num_layers: Number of decoder layers of the model.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._sequences: dict[Hashable, InterveningSequence] = {}
        self._keys: tuple[Hashable, ...] | None = None
        self._members: dict[int, _LayerMembers] = {}  # by layer, for these keys
        self._in_pass: list[tuple[int, InterveningSequence]] = []
        self._first_steps: Sequence[int] = ()
        self._first_rows: Sequence[int] = (0,)
        self._num_tokens: Sequence[int] | int | None = None  # as it was given
        self._has_one_token_each = False
        self._earliest_step, self._last_step = 0, -1  # of all sequences of the pass

    def add(self, key: Hashable, plans: Plans, *, seed: int, sample: int, num_prompt_tokens: int) -> None:
        """Let a sequence enter.

        Args:
            key: What the engine calls it by, until it leaves.
            plans: What is done to its states.
            seed: Of its request.
            sample: Its number among the samples of the request.
            num_prompt_tokens: Length of the prompt.
        """
        self._sequences[key] = InterveningSequence(plans, seed=seed, sample=sample, num_prompt_tokens=num_prompt_tokens)
        self._keys = None

    def remove(self, key: Hashable) -> None:
        """Let a sequence leave, and forget it."""
        del self._sequences[key]
        self._keys = None

    def roll_back(self, key: Hashable, step: int) -> None:
        """Forget what was done to a sequence from this decode step on, which has turned out not to be part of it."""
        sequence = self._sequences[key]
        if sequence.last_step >= step:
            sequence.roll_back(step)
            sequence.last_step = step - 1
            self._members = {}  # which keep what was due

    def report(self, key: Hashable, num_tokens: int) -> dict[str, Any]:
        """Return what was done to a sequence, in plain JSON types, by the name of the intervention.

        Args:
            key: Of the sequence.
            num_tokens: How many of its generated tokens were run.
        """
        return self._sequences[key].report(num_tokens, self._num_layers)

    def begin_pass(
        self, keys: Sequence[Hashable], first_steps: Sequence[int], num_tokens: Sequence[int] | int = 1
    ) -> None:
        """Say which tokens the next forward pass computes; their rows in the states follow one another in this order.

        Args:
            keys: One per sequence. Keys that were not added, such as None, stand for tokens that are left alone.
            first_steps: Decode step of the first token of each sequence; negative in the prompt. Steps before the
                prompt are padding.
            num_tokens: Number of tokens of each sequence, or the number that all have.
        """
        keys = tuple(keys)
        if keys != self._keys:
            self._keys = keys
            self._members = {}
            self._in_pass = [(i, self._sequences[key]) for i, key in enumerate(keys) if key in self._sequences]
            self._num_tokens = None
        if num_tokens != self._num_tokens:
            self._num_tokens = num_tokens
            lengths = [num_tokens] * len(keys) if isinstance(num_tokens, int) else num_tokens
            self._first_rows = [0, *accumulate(lengths)]
            self._has_one_token_each = all(length == 1 for length in lengths)
        self._first_steps = first_steps
        self._last_step = -1
        self._earliest_step = min((first_steps[index] for index, _ in self._in_pass), default=0)
        for index, sequence in self._in_pass:
            first_step = first_steps[index]
            if first_step <= sequence.last_step:
                sequence.roll_back(first_step)
                self._members = {}  # which keep what was due
            sequence.last_step = first_step + self._first_rows[index + 1] - self._first_rows[index] - 1
            self._last_step = max(self._last_step, sequence.last_step)

    def act(self, layer: int, states: Tensor, rerun: RerunBlock, entered: Entered) -> tuple[Tensor, Tensor | None]:
        """Return the states (N, d) that flow on from a layer, and their norms (N,), float32, where they are known.

        Recursion (in either mode), steering and suppression follow each other in this order; each sees the norms that
        the one before left. The states are the same object if none was changed.

        Args:
            layer: 0-based index of the decoder layer.
            states: What it put out, for all tokens of the pass (N, d).
            rerun: Runs layers again.
            entered: Returns what entered a layer in this pass.
        """
        members = self._members.get(layer)
        if members is None:
            members = self._members[layer] = self._build_members(layer)
        is_prompt, is_answer = self._last_step < 0, self._earliest_step >= 0
        if (is_prompt and not members.reads_prompt) or (is_answer and not members.reads_answer):
            return states, None
        norms: Tensor | None = token_norms(states)
        values: list[float] = norms.tolist()  # type: ignore[union-attr]
        after = states
        if members.recursing:
            after = self._recur(layer, members, states, values, rerun)
        if members.looped:  # other sequences than those
            after = self._loop(members, after, values, rerun, entered)
        for act in (self._steer, self._suppress) if members.steered or members.suppressed else ():
            if after is not states:
                norms = token_norms(after)
                values, states = norms.tolist(), after
            after = act(members, states, values)
        return after, norms if after is states else None

    def _build_members(self, layer: int) -> _LayerMembers:
        recursing = [(i, one.recursion[layer]) for i, one in self._in_pass if layer in one.recursion]
        looped = [(i, one.block_loop[layer]) for i, one in self._in_pass if layer in one.block_loop]
        suppressed = [(i, one.suppression[layer]) for i, one in self._in_pass if layer in one.suppression]
        steered = [(i, one.steering[layer]) for i, one in self._in_pass if layer in one.steering]
        taus = [math.inf] * len(self._first_steps)
        leasts = taus.copy()
        for index, recursion in recursing:
            taus[index] = recursion.threshold.least
        for index, steering in steered:
            leasts[index] = steering.least
        return _LayerMembers(
            recursing,
            taus,
            sorted({recursion.options.block for _, recursion in recursing}),
            looped,
            steered,
            leasts,
            min((steering.due for _, steering in steered), default=math.inf),
            suppressed,
            any(one.first_step < 0 for _, one in recursing) or any(loop.first_step < 0 for _, loop in looped),
            bool(recursing or steered or suppressed) or any(loop.end_step > 0 for _, loop in looped),
        )

    def _rows_and_steps(self, sequence: int) -> Iterator[tuple[int, int]]:
        """Yield row and decode step of each token of a sequence, by its index in the pass."""
        first_row, first_step = self._first_rows[sequence], self._first_steps[sequence]
        for row in range(first_row, self._first_rows[sequence + 1]):
            yield row, first_step + row - first_row

    def _recur(
        self, layer: int, members: _LayerMembers, states: Tensor, norms: Sequence[float], rerun: RerunBlock
    ) -> Tensor:
        if self._has_one_token_each and all(map(le, norms, members.taus)):
            return states
        tokens = [
            RecursingToken(recursion, sequence, row, step, tau, norms[row])
            for sequence, recursion in members.recursing
            for row, step in self._rows_and_steps(sequence)
            if (tau := recursion.threshold_of(step, norms[row])) is not None
        ]
        for block in members.blocks if tokens else ():
            layers = range(layer - block + 1, layer + 1)
            of_block = [token for token in tokens if token.recursion.options.block == block]

            def rerun_block(old: Tensor, sequences: Sequence[int], layers: range = layers) -> Tensor:
                return rerun(layers, old, sequences)

            states = recur(states, of_block, self._first_rows, rerun_block)
        return states

    def _loop(
        self, members: _LayerMembers, states: Tensor, norms: Sequence[float], rerun: RerunBlock, entered: Entered
    ) -> Tensor:
        groups: dict[tuple[range, int, float], list[LoopedToken]] = defaultdict(list)
        for sequence, loop in members.looped:
            due = groups[loop.layers, loop.options.num_loops, loop.options.anchor]
            for row, step in self._rows_and_steps(sequence):
                if loop.is_due(step, norms[row]):
                    due.append(LoopedToken(loop, sequence, row, step))
        for (layers, *_), tokens in groups.items():
            if tokens:
                states = loop_block(states, entered(layers[0]), tokens, self._first_rows, partial(rerun, layers))
        return states

    def _steer(self, members: _LayerMembers, states: Tensor, norms: Sequence[float]) -> Tensor:
        are_low = self._has_one_token_each and all(map(lt, norms, members.leasts))
        if are_low and self._last_step < members.first_due:
            return states
        after = states
        for sequence, steering in members.steered:
            for row, step in self._rows_and_steps(sequence):
                if step < 0 or (norms[row] < steering.least and step < steering.due):
                    continue
                pulled = steering.act(step, norms[row], states[row])
                if pulled is not None:
                    if after is states:
                        after = states.clone()
                    after[row] = pulled
        members.first_due = min((steering.due for _, steering in members.steered), default=math.inf)
        return after

    def _suppress(self, members: _LayerMembers, states: Tensor, norms: Sequence[float]) -> Tensor:
        rows, factors = [], []
        for sequence, suppression in members.suppressed:
            for row, step in self._rows_and_steps(sequence):
                if step >= 0 and (factor := suppression.act(step, norms[row])) is not None:
                    rows.append(row)
                    factors.append(factor)
        if not rows:
            return states
        after = states.clone()
        after[rows] *= states.new_tensor(factors)[:, None]
        return after
