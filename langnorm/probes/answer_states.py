"""Hidden states of answers, and means over the answers to each problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """States of the tokens of some answers, N in all.

    Attributes:
        states: By layer, the residual stream (N, d) after it, in the model's dtype.
        layers: Layers whose norms are known (L,).
        norms: Norms (N, L) after these, float32, on the CPU.
        ids: The tokens (N,).
        answers: Number of each token's answer (N,).
        problems: Number of the problem of each answer (A,).
    """

    states: Mapping[int, Tensor]
    layers: Sequence[int]
    norms: Tensor
    ids: Tensor
    answers: Tensor
    problems: Sequence[int]

    def of(self, layer: int, is_chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return states, norms and answers of the tokens of some problems; `is_chosen` (P,) says which."""
        rows = is_chosen[torch.tensor(self.problems)][self.answers]
        states = self.states[layer]
        return states[rows.to(states.device)], self.norms[rows, self.layers.index(layer)], self.answers[rows]

    def only(self, ids: Tensor) -> AnswerStates:
        """Return the states of the tokens that are among these."""
        rows = torch.isin(self.ids, ids)
        states = {layer: states[rows.to(states.device)] for layer, states in self.states.items()}
        return AnswerStates(states, self.layers, self.norms[rows], self.ids[rows], self.answers[rows], self.problems)


def by_problem(values: np.ndarray, states: AnswerStates, answers: Tensor, num_problems: int) -> np.ndarray:
    """Return the means (P,) over the tokens of each answer, then over answers, of values (N,); NaN without any."""
    problems, numbers = np.array(states.problems), answers.numpy()
    lengths = np.bincount(numbers, minlength=len(problems))
    totals = np.bincount(numbers, weights=values, minlength=len(problems))
    has_tokens = lengths > 0
    means, of_problem = totals[has_tokens] / lengths[has_tokens], problems[has_tokens]
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.bincount(of_problem, weights=means, minlength=num_problems)
            / np.bincount(of_problem, minlength=num_problems)
        )
