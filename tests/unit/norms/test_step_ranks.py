"""A step is low by its rank among steps: the rank, the sample that it is taken in, and how that is recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from langnorm.norms.online import OnlineStatistics
from langnorm.norms.recorded_steps import RecordedSteps, StoredRecordedSteps
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.step_ranks import FEWEST_STEPS, MOST_STEPS, StepSample, StoredSteps, rank_among
from langnorm.norms.token_sums import TokenSums


@given(st.floats(0, 1), st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.8]), max_size=30))
def test_a_rank_is_the_share_of_lower_ones(intensity: float, others: list[float]) -> None:
    """Counted one by one, with the step itself among them, and half of all that are as high."""
    everybody = [*others, intensity]
    lower = sum(other < intensity for other in everybody)
    as_high = sum(other == intensity for other in everybody)
    rank = rank_among(intensity, sorted(others))
    assert rank == pytest.approx((lower + as_high / 2) / len(everybody))
    assert 0 < rank < 1


def sample_of(num_steps: int, layers: tuple[int, ...] = (2, 5, 7), seed: int = 0) -> tuple[StepSample, np.ndarray]:
    """Return a sample of steps drawn at random, and the shares that it was made of."""
    shares = np.random.default_rng(seed).random((num_steps, len(layers)))
    return StepSample(layers, shares), shares


def test_intensities_are_means_over_the_selected_layers() -> None:
    """Ascending, to within the thousandths that are kept."""
    sample, shares = sample_of(200)
    found = sample.intensities([2, 7])
    assert found == pytest.approx(sorted((shares[:, 0] + shares[:, 2]) / 2), abs=0.0006)
    assert list(found or ()) == sorted(found or ())


def test_nothing_is_said_of_unknown_layers_or_few_steps() -> None:
    """Never a guess."""
    assert sample_of(200)[0].intensities([2, 3]) is None
    assert sample_of(FEWEST_STEPS - 1)[0].intensities([2]) is None
    assert sample_of(FEWEST_STEPS)[0].intensities([2]) is not None


def test_of_many_steps_so_many_are_kept_evenly() -> None:
    """The first, the last, and what lies between."""
    shares = np.linspace(0, 1, 5000)[:, None]
    sample = StepSample((0,), shares)
    assert len(sample) == MOST_STEPS
    kept = sample.intensities([0])
    assert kept is not None
    assert kept[0] == 0
    assert kept[-1] == 1
    assert max(np.diff(kept)) < 0.0025


def test_merged_samples_have_the_steps_of_both() -> None:
    """In the layers that both know."""
    (one, first), (other, second) = sample_of(60), sample_of(70, layers=(5, 7, 9), seed=1)
    merged = one.merged_with(other)
    assert merged.layers == (5, 7)
    everything = [*first[:, 1:].mean(axis=1), *second[:, :2].mean(axis=1)]
    assert merged.intensities([5, 7]) == pytest.approx(sorted(everything), abs=0.001)


def test_a_sample_survives_its_json() -> None:
    """Number by number."""
    sample, _ = sample_of(80)
    stored = StoredSteps.model_validate(json.loads(json.dumps(sample.to_dict())))
    assert StepSample.from_stored(stored).to_dict() == sample.to_dict()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"layers": [5, 2]}, "must ascend"),
        ({"thousandths": [[1, 2], [3]]}, "one number for each of its 2 layers"),
        ({"thousandths": [[1, 1001]]}, "less than or equal to 1000"),
        ({"thousandths": [[0, 0]] * (MOST_STEPS + 1)}, "at most"),
    ],
)
def test_what_is_no_sample_is_refused(broken: dict[str, Any], said: str) -> None:
    """With what is wrong."""
    with pytest.raises(ValidationError, match=said):
        StoredSteps.model_validate({"layers": [2, 5], "thousandths": []} | broken)


def recorded(num_steps: int, num_layers: int = 4) -> tuple[RecordedSteps, list[tuple[list[int], np.ndarray]]]:
    """Return recorded steps of a few tokens, and what was recorded."""
    generator = np.random.default_rng(num_steps)
    steps = RecordedSteps(num_layers)
    given = []
    for _ in range(num_steps):
        length = int(generator.integers(1, 6))
        ids, norms = generator.integers(0, 9, length).tolist(), generator.gamma(9, 3, (length, num_layers))
        steps.add(ids, norms)
        given.append((ids, norms))
    return steps, given


def test_steps_are_compared_with_all_norms_of_a_layer() -> None:
    """The mean percentile of each step and layer, reckoned step by step."""
    steps, given = recorded(70)
    sketch = QuantileSketch(range(4))
    sketch.update(torch.from_numpy(np.concatenate([norms for _, norms in given])))
    sample = steps.by_layer(sketch)
    assert sample is not None
    single = [sketch.percentile(norms).mean(axis=0)[[1, 3]].mean() for _, norms in given]
    assert sample.intensities([1, 3]) == pytest.approx(sorted(single), abs=0.001)


def test_steps_are_compared_with_the_usual_norms_of_their_tokens() -> None:
    """Phi(z) of each token, reckoned with the normal distribution of the standard library."""
    from statistics import NormalDist, fmean

    steps, given = recorded(70)
    sums = TokenSums([1, 3])
    for ids, norms in given:
        sums.update(ids, norms[:, [1, 3]])
    table = sums.table()
    assert table is not None
    sample = steps.by_token(table)
    assert sample is not None
    single = [
        fmean(NormalDist().cdf(z) for row in table.relative(ids, norms[:, [1, 3]]) for z in row) for ids, norms in given
    ]
    assert sample.intensities([1, 3]) == pytest.approx(sorted(single), abs=0.001)
    assert steps.by_token(None) is None


def test_of_many_recorded_steps_every_second_one_is_kept() -> None:
    """Memory does not grow with the length of a calibration."""
    steps, _ = recorded(5 * MOST_STEPS, num_layers=1)
    assert steps.stride == 4
    assert MOST_STEPS <= len(steps) < 2 * MOST_STEPS
    steps, _ = recorded(2 * MOST_STEPS - 1, num_layers=1)
    assert (steps.stride, len(steps)) == (1, 2 * MOST_STEPS - 1)


def test_a_step_without_tokens_is_none() -> None:
    """Such as one of attention sinks alone."""
    steps = RecordedSteps(2)
    steps.add([], np.zeros((0, 2)))
    assert len(steps) == 0
    assert steps.by_layer(QuantileSketch(range(2))) is None


@pytest.mark.parametrize("num_steps", [0, 3, 2 * MOST_STEPS + 7])
def test_recorded_steps_survive_their_json(num_steps: int) -> None:
    """And go on as if nothing had happened."""
    steps, _ = recorded(num_steps)
    stored = StoredRecordedSteps.model_validate(json.loads(json.dumps(steps.to_dict())))
    again = RecordedSteps.from_stored(stored)
    for each in (steps, again):
        for number in range(3):
            each.add([number], np.full((1, 4), float(number + 1)))
    assert again.to_dict() == steps.to_dict()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"ids": "AAAA"}, "no array in base64"),
        ({"ids": "?"}, "no array in base64"),
        ({"lengths": [1, 1]}, "the ids of its steps must be 2"),
        ({"norms": ""}, "the norms of its steps must be 4"),
        ({"lengths": [0]}, "greater than or equal to 1"),
    ],
)
def test_what_is_no_record_of_steps_is_refused(broken: dict[str, Any], said: str) -> None:
    """With what is wrong."""
    steps = RecordedSteps(4)
    steps.add([3], np.ones((1, 4)))
    with pytest.raises(ValidationError, match=said):
        StoredRecordedSteps.model_validate(steps.to_dict() | broken)


def test_an_engine_remembers_the_last_steps() -> None:
    """By layers and by what they were compared with; a snapshot stays as it was."""
    statistics = OnlineStatistics(4)
    statistics.learn_steps("layer", [1, 2], [0.5] * (FEWEST_STEPS - 1))
    assert statistics.take_snapshot().step_intensities("layer", [1, 2]) is None
    statistics.learn_steps("layer", [1, 2], [0.25])
    snapshot = statistics.take_snapshot()
    statistics.learn_steps("layer", [1, 2], [0.75] * MOST_STEPS)
    assert snapshot.step_intensities("layer", [1, 2]) == (0.25, *[0.5] * (FEWEST_STEPS - 1))
    assert statistics.take_snapshot().step_intensities("layer", (1, 2)) == (0.75,) * MOST_STEPS
    assert snapshot.step_intensities("token", [1, 2]) is None
    assert snapshot.step_intensities("layer", [1]) is None


def test_an_engine_forgets_the_layers_that_were_recorded_longest_ago() -> None:
    """A process that is asked for ever new layers does not grow."""
    statistics = OnlineStatistics(40)
    for layer in range(40):
        statistics.learn_steps("layer", [layer], [0.5] * FEWEST_STEPS)
    snapshot = statistics.take_snapshot()
    known = [layer for layer in range(40) if snapshot.step_intensities("layer", [layer])]
    assert known == list(range(24, 40))
