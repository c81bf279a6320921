"""What a sparse autoencoder says of reasoned and of direct answers to the same problems, beside their norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langnorm.evaluation.statistics import bootstrap_mean, pearson, spearman
from langnorm.probes.answer_states import AnswerStates, by_problem
from langnorm.probes.reasoning_features import FeatureGroups, group_features, mean_activations, summed_activations
from langnorm.probes.sae import SparseAutoencoder, bound_on_norms, bound_on_states

_TOLERANCE = 1e-5  # of float32, for the bound


@torch.no_grad()
def count_violations(sae: SparseAutoencoder, states: Tensor) -> dict[str, Any]:
    """Return how many activations of states (N, d), before the largest k are taken, are above what norms allow."""
    counts = {"num_activations": 0, "above_bound_on_states": 0, "above_bound_on_norms": 0}
    closest = 0.0
    for part in states.split(2048):
        h = part.to(sae.W_enc.device).float()
        f = sae.pre_activations(h).relu()
        tight, by_norm = bound_on_states(sae, h), bound_on_norms(sae, h.norm(dim=-1))
        counts["num_activations"] += f.numel()
        counts["above_bound_on_states"] += int((f > tight * (1 + _TOLERANCE) + _TOLERANCE).sum())
        counts["above_bound_on_norms"] += int((f > by_norm * (1 + _TOLERANCE) + _TOLERANCE).sum())
        closest = max(closest, float((f / tight.clamp(min=1e-12))[f > 0].max()) if bool((f > 0).any()) else 0.0)
    return {**counts, "largest_share_of_bound_on_states": closest}


def groups_of(
    sae: SparseAutoencoder, layer: int, reasoned: AnswerStates, direct: AnswerStates, is_chosen: Tensor
) -> FeatureGroups:
    """Return the groups of features by the paired difference on some of the problems."""
    means = []
    for states in (reasoned, direct):
        h, _, answers = states.of(layer, is_chosen)
        means.append(mean_activations(sae, h, answers, states.problems, len(is_chosen)))
    both = ~np.isnan(means[0][:, 0]) & ~np.isnan(means[1][:, 0])
    return group_features(means[0][both], means[1][both])


def compare(
    sae: SparseAutoencoder,
    layer: int,
    groups: FeatureGroups,
    reasoned: AnswerStates,
    direct: AnswerStates,
    is_held: Tensor,
) -> dict[str, Any]:
    """Return what norms and summed activations are on held-out problems, and how they go together over tokens."""
    names = ("reasoning", "direct", "other")
    masks = [groups.reasoning, groups.direct, groups.other]
    h, norms, answers = reasoned.of(layer, is_held)
    middle, of_norm = float(norms.median()), norms.numpy()
    raw, direction = summed_activations(sae, h, masks), summed_activations(sae, h, masks, norm=middle)
    direct_h, _, direct_answers = direct.of(layer, is_held)
    direct_raw = summed_activations(sae, direct_h, masks)
    direct_direction = summed_activations(sae, direct_h, masks, norm=middle)
    problem = np.array(reasoned.problems)[answers.numpy()]
    held = np.unique(problem)
    found: dict[str, Any] = {"num_tokens": len(h), "num_problems": len(held)}
    for place, name in enumerate(names):
        if not masks[place].any():
            continue
        row: dict[str, Any] = {"num_features": int(masks[place].sum())}
        for kind, of_reasoned, of_direct in (
            ("raw", raw[place], direct_raw[place]),
            ("direction_only", direction[place], direct_direction[place]),
        ):
            within = [spearman(of_norm[problem == p], of_reasoned[problem == p]) for p in held]
            first = by_problem(of_reasoned, reasoned, answers, len(is_held))
            second = by_problem(of_direct, direct, direct_answers, len(is_held))
            row[kind] = {
                "pearson": pearson(of_norm, of_reasoned),
                "spearman": spearman(of_norm, of_reasoned),
                "spearman_within_problems": bootstrap_mean(within),
                "reasoned": bootstrap_mean(first),
                "direct": bootstrap_mean(second),
                "difference": bootstrap_mean(first - second),
            }
        found[name] = row
    return found


def norm_curves(reasoned: AnswerStates, direct: AnswerStates, num_problems: int) -> list[dict[str, Any]]:
    """Return by layer the mean norms on reasoned and on direct answers, and their difference, paired by problem."""
    rows = []
    for place, layer in enumerate(reasoned.layers):
        first, second = (
            by_problem(part.norms[:, place].double().numpy(), part, part.answers, num_problems)
            for part in (reasoned, direct)
        )
        every = reasoned.norms[:, place]
        rows.append(
            {
                "layer": layer,
                "reasoned": bootstrap_mean(first),
                "direct": bootstrap_mean(second),
                "difference": bootstrap_mean(first - second),
                "relative_difference": bootstrap_mean(first / second - 1),
                "largest_over_median": float(every.max() / every.median()),
            }
        )
    return rows


def over_layers(curves: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the rank correlation over layers between the mean norm and the reasoning features' summed activation.

    Args:
        curves: Of `norm_curves`.
        rows: For each of the same layers, what `compare` found, and the `median_norm`.

    Returns:
        That of activations as they are, and in units of the layer's own norm, as both grow with depth. NaN where fewer
        than two layers have reasoning features.
    """
    found = [(curve, row) for curve, row in zip(curves, rows, strict=True) if "reasoning" in row]
    if len(found) < 2:
        return {"raw": float("nan"), "in_units_of_the_layer": float("nan")}
    norms = [curve["reasoned"].mean for curve, _ in found]
    sums = [row["reasoning"]["raw"]["reasoned"].mean for _, row in found]
    own = [total / row["median_norm"] for total, (_, row) in zip(sums, found, strict=True)]
    return {"raw": spearman(norms, sums), "in_units_of_the_layer": spearman(norms, own)}


def same_tokens(reasoned: AnswerStates, direct: AnswerStates) -> AnswerStates:
    """Return the states of those tokens of reasoned answers that direct answers consist of too: digits, mostly."""
    return reasoned.only(direct.ids.unique())
