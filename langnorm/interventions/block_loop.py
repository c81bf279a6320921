"""Runs a block g of layers several times, damped (arXiv 2605.23872).

    x_0 is what enters the block, g(x_0) what its first pass puts out
    x_k = (1 - 1/K) x_(k-1) + (1/K) g(x_(k-1)),  k = 1 ... K
    out = b g(x_0) + (1 - b) x_K

The first of the K passes is the one that the model runs anyhow; only K - 1 are run again.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from langnorm.interventions.token_norms import token_norms

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.interventions.options import Recursion
    from langnorm.interventions.plan import Plan
    from langnorm.interventions.recursion import Rerun


class BlockLoop:
    """The damped loop of one sequence, and what has come of it.

    Args:
        plan: Of the request; an active one.
        num_prompt_tokens: Length of the prompt, whose tokens have negative steps.
    """

    def __init__(self, plan: Plan[Recursion], num_prompt_tokens: int) -> None:
        options: Recursion = plan.options
        self.options = options
        self.layers = range(plan.layers[0], plan.layers[-1] + 1)
        self.threshold = plan.new_threshold(self.layers[-1]) if options.compares_norms else None
        on_prompt = options.acts_on_prompt
        self.first_step = -num_prompt_tokens if on_prompt else 0
        self.end_step: float = 0 if on_prompt else math.inf
        """One past the last step that may be acted on."""
        # One entry per token that was acted on: its step, and ||out - g(x_0)|| / ||g(x_0)||.
        self._steps, self._moved = array("q"), array("d")

    def is_due(self, step: int, norm: float) -> bool:
        """Return whether the block is to be run again for a token; once for each step.

        Args:
            step: Decode step.
            norm: Of what the block put out.
        """
        if not self.first_step <= step < self.end_step:
            return False
        return self.threshold is None or norm > self.threshold.at(step, norm)

    def record(self, step: int, moved: float) -> None:
        """Note by how much of its norm a token was moved; steps ascend."""
        self._steps.append(step)
        self._moved.append(moved)

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        if self.threshold:
            self.threshold.roll_back(step)
        first = bisect_left(self._steps, step)
        del self._steps[first:], self._moved[first:]

    @property
    def acted_on(self) -> list[int]:
        """The tokens of the answer that were run again."""
        return [step for step in self._steps if step >= 0]

    def counts(self) -> dict[str, int]:
        """Return how many tokens were acted on, and how many extra passes through the block these are."""
        return {"triggered": len(self._steps), "passes": len(self._steps) * (self.options.num_loops - 1)}

    def moved(self) -> dict[str, Any]:
        """Return mean and maximum over these tokens of `||out - g(x_0)|| / ||g(x_0)||`; None where there are none."""
        moved = list(filter(math.isfinite, self._moved))
        if not moved:
            return {"mean": None, "max": None}
        return {"mean": round(math.fsum(moved) / len(moved), 6), "max": round(max(moved), 6)}


@dataclass(eq=False, slots=True)
class LoopedToken:
    """A token of the pass that is under way for which the block is run again.

    Attributes:
        loop: Of its sequence.
        sequence: Index of the sequence in the pass.
        row: Of the token in the states of the pass.
        step: Decode step; negative in the prompt.
    """

    loop: BlockLoop
    sequence: int
    row: int
    step: int


def loop_block(
    states: Tensor, entering: Tensor, tokens: Sequence[LoopedToken], first_rows: Sequence[int], rerun: Rerun
) -> Tensor:
    """Return the states of a pass after the loop of some of its tokens, all with the same block, K and b.

    Args:
        states: What the block put out, of all tokens of the pass (N, d). They are left as they are.
        entering: What entered the block (N, d), on any device and of any dtype.
        tokens: Those that are acted on, by row.
        first_rows: Row of the first token of each sequence of the pass, and at last N.
        rerun: Runs the block again.
    """
    sequences = sorted({token.sequence for token in tokens})
    rows = [row for i in sequences for row in range(first_rows[i], first_rows[i + 1])]
    place_of = {row: place for place, row in enumerate(rows)}
    places, due = [place_of[token.row] for token in tokens], [token.row for token in tokens]
    first, state = (states, entering) if len(rows) == len(states) else (states[rows], entering[rows])
    options = tokens[0].loop.options
    state = torch.lerp(state.to(first), first, 1 / options.num_loops)
    for _ in range(options.num_loops - 1):
        state = torch.lerp(state, rerun(state, sequences), 1 / options.num_loops)
    before = states[due]
    out = torch.lerp(state[places], before, options.anchor)
    moved = (token_norms(out - before) / token_norms(before)).tolist()
    for token, share in zip(tokens, moved, strict=True):
        token.loop.record(token.step, share)
    after = states.clone()
    after[due] = out
    return after
