"""Lets interventions act on the decoder layers while a batch is generated, each sequence by its own plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langnorm.engines.transformers.decoder_layers import hooked
from langnorm.engines.transformers.rerun import LayerRerunner
from langnorm.engines.transformers.residual_stream import get_residual_stream, put_residual_stream
from langnorm.interventions.forward_pass import Interventions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm.interventions.plan import Plans


class Intervener:
    """Acts on the decoder layers of one batch.

    All its sequences begin together and share the decode step. One that has ended is computed until the last one ends,
    and left alone.

    Args:
        decoder_layers: All decoder layers.
        plans: One per sequence.
        seeds: A (seed, sample) pair per sequence.
        prompt_lengths: Number of prompt tokens per sequence; padding stands before them.
        num_prompt_positions: Number of positions of the padded prompts that are run while this acts: the last ones.
    """

    def __init__(
        self,
        decoder_layers: nn.ModuleList,
        plans: Sequence[Plans],
        seeds: Sequence[tuple[int, int]],
        prompt_lengths: Sequence[int],
        num_prompt_positions: int,
    ) -> None:
        self._decoder_layers = decoder_layers
        self._plans = plans
        self._batch_size = len(plans)
        self.layers = tuple(sorted({layer for plan in plans for layer in plan.layers}))
        """Those that are acted on, ascending."""
        self.norms: dict[int, Tensor] = {}
        """By layer, the norms (B, 1) of what flows on at the last position of this pass, where they are known."""
        self._rerunner = LayerRerunner(decoder_layers, sorted(self._layers_run_again()))
        self._interventions = Interventions(len(decoder_layers))
        for number, (plan, (seed, sample), length) in enumerate(zip(plans, seeds, prompt_lengths, strict=True)):
            self._interventions.add(number, plan, seed=seed, sample=sample, num_prompt_tokens=length)
        self._keys: tuple[int | None, ...] = tuple(range(self._batch_size))  # None for those that have ended
        self._first_step = -num_prompt_positions  # of the first position of the next pass through the prompt
        self._decode_step = -1  # of the last position of a pass; -1 in the prompt

    @property
    def is_needed(self) -> bool:
        """Whether any sequence has something to be done, or to be told that nothing could be."""
        return any(plan.all() for plan in self._plans)

    def _layers_run_again(self) -> set[int]:
        recursions = [plan.recursion for plan in self._plans if plan.recursion and plan.recursion.is_active]
        return {layer - back for plan in recursions for layer in plan.layers for back in range(plan.options.block)}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Act inside the `with` block; hooks that are registered in it see what was made of the states."""
        hooks = {layer: self._hook(layer) for layer in self.layers}
        with self._rerunner.attached(), hooked(self._decoder_layers, hooks):
            yield

    def next_step(self, has_ended: Sequence[bool]) -> None:
        """Go on to the next token, after each sequence's last one is known.

        Args:
            has_ended: Which sequences have.
        """
        self._decode_step += 1
        if any(has_ended):
            self._keys = tuple(None if is_ended else number for number, is_ended in enumerate(has_ended))

    def _hook(self, layer: int) -> Callable[..., Any]:
        act, is_first = self._interventions.act, layer == self.layers[0]

        def intervene(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            states = get_residual_stream(output)  # (B, T, d)
            num_positions = states.size(1)
            if is_first:
                self._begin_pass(num_positions)
            of_tokens = states.flatten(0, 1)  # (B * T, d)
            after, norms = act(layer, of_tokens, self._rerun, self._entered)
            if norms is not None:
                by_sequence = norms.view(-1, num_positions)  # (B, T)
                self.norms[layer] = by_sequence if num_positions == 1 else by_sequence[:, -1:]
            return None if after is of_tokens else put_residual_stream(output, after.view_as(states))

        return intervene

    def _begin_pass(self, num_positions: int) -> None:
        if self._decode_step < 0:
            first_step = self._first_step
            self._first_step += num_positions
        else:  # models without a cache run all positions again
            first_step = self._decode_step - num_positions + 1
        self._interventions.begin_pass(self._keys, [first_step] * self._batch_size, num_positions)

    def _rerun(self, layers: range, states: Tensor, sequences: Sequence[int]) -> Tensor:
        """Run layers again for states (N, d) of all positions of some sequences of the batch."""
        by_sequence = states.view(len(sequences), -1, states.size(-1))  # (S, T, d)
        return self._rerunner.run(layers, by_sequence, sequences, self._batch_size).flatten(0, 1)

    def _entered(self, layer: int) -> Tensor:
        """Return the states (B * T, d) that entered a layer in this pass."""
        return self._rerunner.entered(layer).flatten(0, 1)

    def report(self, number: int, num_tokens: int) -> dict[str, Any]:
        """Return what was done to a sequence of the batch, in plain JSON types, by the name of the intervention.

        Args:
            number: Of the sequence in the batch.
            num_tokens: How many of its generated tokens were run.
        """
        return self._interventions.report(number, num_tokens)
