"""What is reported of SAEs on answers is what plain loops over tokens say."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

import numpy as np
import pytest
import torch

from langnorm.evaluation.statistics import Interval, spearman
from langnorm.probes.answer_states import AnswerStates, by_problem
from langnorm.probes.reasoning_features import FeatureGroups
from langnorm.probes.sae import SAEConfig, SparseAutoencoder
from langnorm.probes.sae_report import compare, count_violations, groups_of, norm_curves, over_layers, same_tokens

LAYER, WIDTH, NUM_FEATURES = 7, 6, 10


def answer_states(seed: int, lengths: list[int], problems: list[int], *, shift: float = 0.0) -> AnswerStates:
    """Return random states of answers of these lengths to these problems, at layers 7 and 9."""
    num, generator = sum(lengths), torch.Generator().manual_seed(seed)
    states = {layer: torch.randn(num, WIDTH, generator=generator) + shift for layer in (LAYER, 9)}
    norms = torch.stack([part.norm(dim=1) for part in states.values()], 1)
    ids = torch.randint(4, (num,), generator=generator)
    return AnswerStates(
        states, (LAYER, 9), norms, ids, torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)), problems
    )


REASONED = answer_states(1, [5, 0, 7, 6, 3, 4], [0, 0, 1, 2, 3, 3], shift=0.4)
DIRECT = answer_states(2, [2, 1, 2, 3], [0, 1, 2, 3])
IS_HELD = torch.tensor([True, False, True, False])


def new_sae() -> SparseAutoencoder:
    """Return an SAE whose features are not all alike."""
    return SparseAutoencoder(SAEConfig(WIDTH, NUM_FEATURES, "topk", 4), seed=3).requires_grad_(requires_grad=False)


def plain_means(values: np.ndarray, states: AnswerStates, num_problems: int) -> list[float]:
    """Return means over tokens, then answers, by problem."""
    of_problem = defaultdict(list)
    for number, problem in enumerate(states.problems):
        tokens = values[(states.answers == number).numpy()]
        if len(tokens):
            of_problem[problem].append(float(tokens.mean()))
    return [statistics.fmean(of_problem[p]) if of_problem[p] else math.nan for p in range(num_problems)]


def test_means_are_over_tokens_then_answers() -> None:
    """An answer without tokens and a problem without answers have none."""
    values = REASONED.norms[:, 0].double().numpy()
    found = by_problem(values, REASONED, REASONED.answers, 5)
    assert found.tolist() == pytest.approx(plain_means(values, REASONED, 5), nan_ok=True)
    assert math.isnan(found[4])


def test_states_of_some_problems_and_of_some_tokens() -> None:
    """Rows of states, norms and answers stay together."""
    states, norms, answers = REASONED.of(9, IS_HELD)
    rows = [row for row, number in enumerate(REASONED.answers.tolist()) if REASONED.problems[number] in (0, 2)]
    assert torch.equal(states, REASONED.states[9][rows])
    assert torch.equal(norms, REASONED.norms[rows, 1])
    assert torch.equal(answers, REASONED.answers[rows])
    shared = same_tokens(REASONED, DIRECT)
    there = set(DIRECT.ids.tolist())
    assert shared.ids.tolist() == [token for token in REASONED.ids.tolist() if token in there]
    torch.testing.assert_close(shared.states[LAYER].norm(dim=1), shared.norms[:, 0])


def test_groups_are_chosen_on_the_problems_that_were_asked_for() -> None:
    """Whatever the others do."""
    sae = new_sae()
    groups = groups_of(sae, LAYER, REASONED, DIRECT, IS_HELD)
    changed = {LAYER: REASONED.states[LAYER].clone(), 9: REASONED.states[9]}
    other = torch.tensor([not bool(IS_HELD[REASONED.problems[number]]) for number in REASONED.answers.tolist()])
    changed[LAYER][other] *= -50
    again = groups_of(
        sae,
        LAYER,
        AnswerStates(changed, REASONED.layers, REASONED.norms, REASONED.ids, REASONED.answers, REASONED.problems),
        DIRECT,
        IS_HELD,
    )
    for name in ("reasoning", "direct", "other"):
        assert np.array_equal(getattr(groups, name), getattr(again, name))


def test_the_comparison_is_that_of_plain_loops() -> None:
    """Sums by group, correlations with the norm over tokens, means by problem; directions only by scaled states."""
    sae, group = new_sae(), np.arange(NUM_FEATURES) < 6
    groups = FeatureGroups(group, ~group, np.zeros(NUM_FEATURES, dtype=bool))
    found = compare(sae, LAYER, groups, REASONED, DIRECT, IS_HELD)
    states, norms, answers = REASONED.of(LAYER, IS_HELD)
    sums = sae.encode(states)[:, torch.from_numpy(group)].sum(1).numpy()
    raw = found["reasoning"]["raw"]
    assert raw["spearman"] == pytest.approx(spearman(norms, sums))
    expected = [mean for mean in plain_means_of(sums, answers) if not math.isnan(mean)]
    assert raw["reasoned"].mean == pytest.approx(statistics.fmean(expected), rel=1e-5)
    scaled = states / states.norm(dim=1, keepdim=True) * norms.median()
    direction = sae.encode(scaled)[:, torch.from_numpy(group)].sum(1).numpy()
    assert found["reasoning"]["direction_only"]["spearman"] == pytest.approx(spearman(norms, direction), abs=1e-6)
    assert found["reasoning"]["num_features"] == 6
    assert "other" not in found
    assert found["num_tokens"] == len(states)
    assert found["num_problems"] == 2


def plain_means_of(values: np.ndarray, answers: torch.Tensor) -> list[float]:
    """Return means of the tokens that were taken."""
    of_problem = defaultdict(list)
    for number in sorted(set(answers.tolist())):
        of_problem[REASONED.problems[number]].append(float(values[(answers == number).numpy()].mean()))
    return [statistics.fmean(means) for means in of_problem.values()]


def test_curves_are_the_mean_norms_of_each_layer() -> None:
    """And their paired difference, of problems that have both."""
    rows = norm_curves(REASONED, DIRECT, 4)
    assert [row["layer"] for row in rows] == [LAYER, 9]
    for place, row in enumerate(rows):
        first, second = (plain_means(part.norms[:, place].double().numpy(), part, 4) for part in (REASONED, DIRECT))
        assert row["reasoned"].mean == pytest.approx(statistics.fmean(first))
        differences = [one - other for one, other in zip(first, second, strict=True)]
        assert row["difference"].mean == pytest.approx(statistics.fmean(differences))


def test_the_correlation_over_layers_is_that_of_their_means() -> None:
    """As they are and in units of each layer; layers without reasoning features have no part, and one says nothing."""

    def interval(mean: float) -> Interval:
        return Interval(mean, mean, mean)

    curves = [{"reasoned": interval(norm)} for norm in (1.0, 2.0, 99.0, 3.0)]
    sums = (4.0, 5.0, None, 6.0)
    rows = [
        {"median_norm": norm, **({} if total is None else {"reasoning": {"raw": {"reasoned": interval(total)}}})}
        for norm, total in zip((1.0, 2.0, 99.0, 3.0), sums, strict=True)
    ]
    assert over_layers(curves, rows) == pytest.approx({"raw": 1, "in_units_of_the_layer": -1})
    assert all(math.isnan(value) for value in over_layers(curves[:1], rows[:1]).values())


def test_violations_are_counted() -> None:
    """None of a true SAE; of one whose bound was made too small, some."""
    sae = new_sae()
    states = REASONED.states[LAYER]
    counts = count_violations(sae, states)
    assert counts["num_activations"] == len(states) * NUM_FEATURES
    assert counts["above_bound_on_states"] == counts["above_bound_on_norms"] == 0
    assert 0 < counts["largest_share_of_bound_on_states"] <= 1

    class Cheating(SparseAutoencoder):
        def pre_activations(self, h: torch.Tensor) -> torch.Tensor:
            return super().pre_activations(h) * 100

    cheat = Cheating(sae.config, seed=3).requires_grad_(requires_grad=False)
    assert count_violations(cheat, states)["above_bound_on_norms"] > 0
