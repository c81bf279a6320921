"""Forward passes over all running sequences: what each computes, what is seen of it, and what is done to its states.

Each pass has one token of every sequence that is being answered, and what is left of its length goes to prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from langnorm.engines.llamacpp.library import LlamaContext, PassTokens
from langnorm.engines.llamacpp.observer import StateObserver
from langnorm.engines.llamacpp.running import RunningSequence
from langnorm.interventions.forward_pass import Interventions

if TYPE_CHECKING:
    from torch import Tensor


class PassRunner:
    """Runs forward passes of one context.

    Args:
        context: The context.
        observer: What the context calls back.
        num_layers: Number of decoder layers.
    """

    def __init__(self, context: LlamaContext, observer: StateObserver, num_layers: int) -> None:
        self._context, self._observer = context, observer
        self._interventions = Interventions(num_layers)

    def enter(self, sequence: RunningSequence) -> None:
        """Let a sequence take part for the first time."""
        pending = sequence.pending
        if pending.request.plans.all():
            self._interventions.add(
                sequence,
                pending.request.plans,
                seed=pending.seed,
                sample=pending.sample,
                num_prompt_tokens=len(pending.request.prompt_ids),
            )

    def leave(self, sequence: RunningSequence) -> None:
        """Forget a sequence."""
        if sequence.pending.request.plans.all():
            self._interventions.remove(sequence)

    def report(self, sequence: RunningSequence) -> dict[str, Any]:
        """Return what was done to the states of a sequence."""
        if not sequence.pending.request.plans.all():
            return {}
        return self._interventions.report(sequence, max(0, sequence.num_generated - 1))

    def run(self, running: Sequence[RunningSequence]) -> list[tuple[RunningSequence, int]] | None:
        """Run a pass.

        Args:
            running: The sequences, those that came first in front.

        Returns:
            The sequences whose next token is to be chosen, each with the row of its logits; None if there was no memory
            for the pass. Nothing has come of a pass that was given up because all of its sequences were cancelled.

        Raises:
            ModelError: The pass failed.
        """
        parts = self._plan(running)
        sequences, lengths = [sequence for sequence, _ in parts], [len(part.token_ids) for _, part in parts]
        first_rows = [0, *accumulate(lengths)]
        self._observe(parts, first_rows)
        try:
            has_run = self._context.run([part for _, part in parts])
        finally:
            self._observer.end()
        if self._observer.was_stopped:
            return []
        if not has_run:
            return None
        for first_row, length, sequence in zip(first_rows, lengths, sequences, strict=False):
            sequence.observe(first_row, length, self._observer.norms, self._observer.states)
        return [
            (sequence, end - 1)
            for end, sequence in zip(first_rows[1:], sequences, strict=True)
            if sequence.num_computed == len(sequence.token_ids)
        ]

    def _plan(self, running: Sequence[RunningSequence]) -> list[tuple[RunningSequence, PassTokens]]:
        """Return what the next pass computes: answers first, then prompts."""
        room = self._context.most_tokens
        parts = []
        for sequence in sorted(running, key=lambda one: len(one.token_ids) - one.num_computed > 1):
            if room == 0:
                break
            tokens = sequence.next_tokens(room)
            room -= len(tokens)
            num_logits = sequence.num_logits(len(tokens))
            parts.append((sequence, PassTokens(sequence.slot, sequence.num_computed, tokens, num_logits)))
        return parts

    def _observe(self, parts: Sequence[tuple[RunningSequence, PassTokens]], first_rows: Sequence[int]) -> None:
        """Say what is wanted of a pass, and what is done in it."""
        sequences, requests = [sequence for sequence, _ in parts], [part[0].pending.request for part in parts]
        acted = {layer for request in requests for layer in request.plans.layers}
        if acted:
            lengths = [len(part.token_ids) for _, part in parts]
            self._interventions.begin_pass(sequences, [sequence.first_step for sequence in sequences], lengths)
        self._observer.begin(
            first_rows[-1],
            [
                row
                for end, (_, part) in zip(first_rows[1:], parts, strict=True)
                for row in range(end - part.num_logits, end)
            ],
            {layer for request in requests for layer in request.norm_layers},
            {place for sequence in sequences for place in sequence.state_places},
            acted,
            self._act if acted else None,
            lambda: all(sequence.pending.is_cancelled for sequence in sequences),
        )

    def _act(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._interventions.act(layer, states, _refuse_rerun, _refuse_rerun)


def _refuse_rerun(*_: Any) -> Tensor:
    msg = "llama.cpp cannot run a layer again"
    raise AssertionError(msg)  # the engine refuses such requests
