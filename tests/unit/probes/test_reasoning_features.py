"""Reasoning features are those that differ between answers to the same problem, and sums are those of a plain loop."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from langnorm.probes.reasoning_features import group_features, mean_activations, paired_t, summed_activations
from langnorm.probes.sae import SAEConfig, SparseAutoencoder

RNG = np.random.default_rng(0)


def test_the_statistic_is_that_of_a_paired_t_test() -> None:
    """By the standard library; what never differs has 0, and what always differs by the same is beyond all bounds."""
    reasoned, direct = RNG.normal(size=(2, 12, 3))
    reasoned[:, 1], reasoned[:, 2] = direct[:, 1], 1.0
    direct[:, 2] = 0.5
    differences = (reasoned - direct)[:, 0].tolist()
    expected = statistics.fmean(differences) / (statistics.stdev(differences) / 12**0.5)
    assert paired_t(reasoned, direct).tolist() == [pytest.approx(expected), 0.0, np.inf]


def test_features_are_grouped_by_where_they_are_active() -> None:
    """What a problem adds to both of its answers is no difference; dead features are in no group."""
    of_problem = RNG.gamma(2, 10, size=(200, 4))
    noise = RNG.normal(0, 0.1, size=(2, 200, 4))
    reasoned, direct = of_problem + noise[0], of_problem + noise[1]
    reasoned[:, 0] += 0.5
    direct[:, 1] += 0.5
    reasoned[:, 3] = direct[:, 3] = 0
    groups = group_features(reasoned, direct)
    assert groups.reasoning.tolist() == [True, False, False, False]
    assert groups.direct.tolist() == [False, True, False, False]
    assert groups.other.tolist() == [False, False, True, False]


def test_means_and_sums_are_those_of_a_plain_loop() -> None:
    """Answers of different lengths count alike, and so do problems; one without answers has no mean."""
    sae = SparseAutoencoder(SAEConfig(4, 6, "topk", 3), seed=1).requires_grad_(requires_grad=False)
    states = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    answers, problems = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 1]), [0, 0, 2]
    f = sae.encode(states).numpy()
    of_answers = [f[answers.numpy() == number].mean(0) for number in range(3)]

    means = mean_activations(sae, states, answers, problems, 3)
    np.testing.assert_allclose(means[0], (of_answers[0] + of_answers[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(means[2], of_answers[2], rtol=1e-5)
    assert np.isnan(means[1]).all()

    group = np.array([True, False, True, False, False, True])
    sums = summed_activations(sae, states, [group, ~group])
    np.testing.assert_allclose(sums, [f[:, group].sum(1), f[:, ~group].sum(1)], rtol=1e-5)


def test_direction_only_does_not_see_norms() -> None:
    """Scaled states have the same sums."""
    sae = SparseAutoencoder(SAEConfig(4, 6, "topk", 3), seed=1).requires_grad_(requires_grad=False)
    states = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    every = [np.ones(6, dtype=bool)]
    small, large = (summed_activations(sae, states * factor, every, norm=3.0) for factor in (1.0, 100.0))
    np.testing.assert_allclose(small, large, rtol=1e-5)
    np.testing.assert_allclose(
        small, summed_activations(sae, 3 * states / states.norm(dim=1, keepdim=True), every), rtol=1e-5
    )
