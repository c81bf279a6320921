"""Reasoning features: those of an SAE more active on a reasoned than on a direct answer to the same problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langnorm.probes.sae import SparseAutoencoder

LEAST_T = 4.0
"""Least t statistic of a reasoning feature's paired difference: of ten thousand features, chance leaves about one."""


@dataclass(frozen=True, slots=True)
class FeatureGroups:
    """Which features of an SAE (F,) are active where; three groups that share none.

    Attributes:
        reasoning: Those more active on reasoned answers.
        direct: Those more active on direct answers.
        other: Those that are active somewhere and differ too little to say.
    """

    reasoning: NDArray[np.bool_]
    direct: NDArray[np.bool_]
    other: NDArray[np.bool_]


def paired_t(reasoned: NDArray[np.floating], direct: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the t statistic (F,) of the paired difference: its mean over problems in units of its standard error.

    Args:
        reasoned: Mean activations (P, F) on the reasoned answers to each problem, two problems or more.
        direct: Those on the direct answers to the same problems.

    Returns:
        0 for a feature that never differs; infinite where it always differs by the same number.
    """
    differences = np.asarray(reasoned, dtype=np.float64) - direct
    mean, spread = differences.mean(0), differences.std(0, ddof=1) / np.sqrt(len(differences))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / spread)


def group_features(
    reasoned: NDArray[np.floating], direct: NDArray[np.floating], *, least_t: float = LEAST_T
) -> FeatureGroups:
    """Return the groups of features; arguments as for `paired_t`."""
    t = paired_t(reasoned, direct)
    is_alive = (np.asarray(reasoned) > 0).any(0) | (np.asarray(direct) > 0).any(0)
    is_reasoning, is_direct = t >= least_t, t <= -least_t
    return FeatureGroups(is_reasoning, is_direct, is_alive & ~is_reasoning & ~is_direct)


@torch.no_grad()
def mean_activations(
    sae: SparseAutoencoder, states: Tensor, answers: Tensor, problems: Sequence[int], num_problems: int
) -> NDArray[np.float32]:
    """Return the mean activations (P, F): over the tokens of each answer, then over the answers to each problem.

    A problem without answers has NaN.

    Args:
        sae: The SAE.
        states: Hidden states (N, d).
        answers: Number of the answer that each belongs to (N,).
        problems: Number of the problem of each answer (A,).
        num_problems: P.
    """
    device = sae.W_enc.device
    answers, of_answer = answers.to(device), torch.tensor(problems, device=device)
    lengths = torch.bincount(answers, minlength=len(of_answer))
    num_answers = torch.bincount(of_answer[lengths > 0], minlength=num_problems)
    totals = torch.zeros(num_problems, sae.config.d_sae, device=device)
    for part, numbers in zip(states.split(4096), answers.split(4096), strict=True):
        of_token = of_answer[numbers]
        weights = 1 / (lengths[numbers] * num_answers[of_token])
        totals.index_add_(0, of_token, sae.encode(part.to(device).float()) * weights[:, None])
    totals[num_answers == 0] = torch.nan
    return totals.cpu().numpy()


@torch.no_grad()
def summed_activations(
    sae: SparseAutoencoder, states: Tensor, groups: Sequence[NDArray[np.bool_]], *, norm: float | None = None
) -> NDArray[np.float32]:
    """Return the summed activations (G, N) of groups of features on each hidden state (N, d).

    Args:
        sae: The SAE.
        states: The states.
        groups: Which features (F,) each group has.
        norm: Where given, the states are scaled to this norm first, so that only their directions count.
    """
    device = sae.W_enc.device
    members = torch.tensor(np.stack(groups), device=device).float().T
    sums = []
    for part in states.split(4096):
        h = part.to(device).float()
        if norm is not None:
            h = h * (norm / h.norm(dim=1, keepdim=True).clamp(min=1e-12))
        sums.append((sae.encode(h) @ members).T)
    return torch.cat(sums, 1).cpu().numpy()
