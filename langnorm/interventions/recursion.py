"""Runs a layer again for tokens whose norm is high there (ALRR, arXiv 2606.06188).

    h_0 = F_l(x);  active = tau < ||h_0|| < blowup * tau
    while active and i < max_extra:
        h_new = F_l(h_i)
        growth = (||h_new|| - ||h_i||) / (||h_i|| + eps)
        active = ||h_new|| > tau and growth >= growth_eps and ||h_new|| < blowup * tau
        h_{i+1} = (1 - alpha) * h_i + alpha * h_new    where still active; a state that ends the recursion is not taken

What is decided is a few numbers per token, so it is decided on the host: only the host can run a layer again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langnorm.interventions.token_norms import token_norms

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.interventions.options import Recursion
    from langnorm.interventions.plan import Plan

Rerun = Callable[["Tensor", Sequence[int]], "Tensor"]
"""Runs a layer again: takes states (N, d) of all tokens of some sequences of the pass, and the ascending indices of
these sequences, and returns their new states (N, d)."""

_TAKEN, _LOW_GROWTH, _BLOWN_UP, _BELOW_THRESHOLD = range(4)


class LayerRecursion:
    """The recursion of one sequence at one layer, and what has come of it.

    Args:
        plan: Of the request.
        layer: 0-based index of the decoder layer.
        num_prompt_tokens: Length of the prompt, whose tokens have negative steps.
    """

    def __init__(self, plan: Plan[Recursion], layer: int, num_prompt_tokens: int) -> None:
        options: Recursion = plan.options
        self.options = options
        self.threshold = plan.new_threshold(layer)
        self.first_step = 0 if options.only_decode else -num_prompt_tokens
        self._growth_eps, self._eps = options.growth_eps, options.eps
        # One entry per token that was run again: its step, how many new states were taken, and why the next was not.
        self._steps, self._num_taken, self._rejections = array("q"), array("q"), array("b")

    def threshold_of(self, step: int, norm: float) -> float | None:
        """Return the threshold of a token that is to be run again, or None if it is not; once for each step.

        Args:
            step: Decode step.
            norm: Of what the layer put out.
        """
        if step < self.first_step:
            return None
        tau = self.threshold.at(step, norm)
        return tau if tau < norm < self.options.blowup * tau else None

    def judge(self, tau: float, before: float, after: float) -> int:
        """Return what becomes of a new state: taken, or the first reason against it.

        Args:
            tau: Threshold of the token.
            before: Norm of the last computed pass.
            after: Norm of the new state.
        """
        if not (after - before) / (before + self._eps) >= self._growth_eps:
            return _LOW_GROWTH
        if not after < self.options.blowup * tau:
            return _BLOWN_UP
        return _TAKEN if after > tau else _BELOW_THRESHOLD

    def record(self, step: int, num_taken: int, rejection: int) -> None:
        """Note what became of a token that was run again; steps ascend."""
        self._steps.append(step)
        self._num_taken.append(num_taken)
        self._rejections.append(rejection)

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        self.threshold.roll_back(step)
        first = bisect_left(self._steps, step)
        del self._steps[first:], self._num_taken[first:], self._rejections[first:]

    @property
    def acted_on(self) -> list[int]:
        """The tokens of the answer that were run again."""
        return [step for step in self._steps if step >= 0]

    def counts(self) -> dict[str, int]:
        """Return how many tokens had a high norm, their extra passes, and what became of these."""
        num_taken, rejections = sum(self._num_taken), self._rejections
        return {
            "triggered": len(self._steps),
            "passes": num_taken + len(rejections) - rejections.count(_TAKEN),
            "accepted": num_taken,
            "rejected_by_growth": rejections.count(_LOW_GROWTH),
            "rejected_by_blowup": rejections.count(_BLOWN_UP),
            "rejected_by_threshold": rejections.count(_BELOW_THRESHOLD),
        }


@dataclass(eq=False, slots=True)
class RecursingToken:
    """A token of high norm in the pass that is under way.

    Attributes:
        recursion: Of its sequence at this layer.
        sequence: Index of the sequence in the pass.
        row: Of the token in the states of the pass.
        step: Decode step; negative in the prompt.
        tau: Its threshold.
        norm: Of its last computed pass through the layer.
    """

    recursion: LayerRecursion
    sequence: int
    row: int
    step: int
    tau: float
    norm: float
    num_taken: int = field(default=0, init=False)
    rejection: int = field(default=_TAKEN, init=False)


def recur(states: Tensor, tokens: Sequence[RecursingToken], first_rows: Sequence[int], rerun: Rerun) -> Tensor:
    """Return the states of a pass after recursion of some of its tokens; the same object if none was changed.

    Args:
        states: What the layer put out, of all tokens of the pass (N, d). They are left as they are.
        tokens: Those that are active, by row.
        first_rows: Row of the first token of each sequence of the pass, and at last N.
        rerun: Runs the layer again.
    """
    current, active, num_passes = states, tokens, 0
    while active := [token for token in active if num_passes < token.recursion.options.max_extra]:
        num_passes += 1
        sequences = sorted({token.sequence for token in active})
        if len(sequences) == len(first_rows) - 1:
            new = rerun(current, sequences)
            places: Sequence[int] = [token.row for token in active]
        else:
            rows = [row for i in sequences for row in range(first_rows[i], first_rows[i + 1])]
            place_of = {row: place for place, row in enumerate(rows)}
            new = rerun(current[rows], sequences)
            places = [place_of[token.row] for token in active]
        norms = token_norms(new).tolist()
        taken: list[tuple[RecursingToken, int]] = []
        for token, place in zip(active, places, strict=True):
            norm = norms[place]
            token.rejection = token.recursion.judge(token.tau, token.norm, norm)
            if token.rejection == _TAKEN:
                token.num_taken += 1
                token.norm = norm
                taken.append((token, place))
        if taken:
            if current is states:
                current = states.clone()
            _mix(current, new, taken)
        active = [token for token, _ in taken]
    for token in tokens:
        token.recursion.record(token.step, token.num_taken, token.rejection)
    return current


def _mix(states: Tensor, new: Tensor, taken: Sequence[tuple[RecursingToken, int]]) -> None:
    """Put `(1 - alpha) * old + alpha * new` into the states (N, d), for tokens with their places in the new states."""
    for alpha in {token.recursion.options.alpha for token, _ in taken}:
        rows = [token.row for token, _ in taken if token.recursion.options.alpha == alpha]
        places = [place for token, place in taken if token.recursion.options.alpha == alpha]
        mixed = new if len(places) == len(new) else new[places]
        if alpha != 1:  # with 1, 0 * old would be NaN where the old state is infinite
            old = states if len(rows) == len(states) else states[rows]
            mixed = (1 - alpha) * old + alpha * mixed
        if len(rows) == len(states):
            states.copy_(mixed)
        else:
            states[rows] = mixed
