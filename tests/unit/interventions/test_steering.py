"""The bank of a steered sequence, when steps are taken back."""

from __future__ import annotations

import pytest
import torch

from langnorm.interventions import steering
from langnorm.interventions.options import Steering
from langnorm.interventions.plan import Plan
from langnorm.interventions.steering import LayerSteering, steering_of
from langnorm.norms.thresholds import RunningThreshold

NORMS = (9.0, 8.0, 7.0, 6.0, 5.5, 5.0, 4.0, 3.0)


def steered(norms: tuple[float, ...]) -> LayerSteering:
    """Return the steering of a sequence that has had states of these norms, all of them high and none pulled."""
    options = Steering(threshold="iqr", trigger="slack", bank_size=2, low_k=100)
    state = steering_of(Plan(options, (0,), (1.0,)), 0, 0, 0)
    for step, norm in enumerate(norms):
        assert state.act(step, norm, torch.tensor([norm, 0.0])) is None
    return state


@pytest.mark.parametrize("first", range(len(NORMS)))
@pytest.mark.parametrize("order", [1, -1], ids=["falling", "rising"])
def test_the_bank_is_as_if_steps_taken_back_had_never_been(first, order, monkeypatch) -> None:
    """The highest norms before them are there, also those that had been pushed out."""
    monkeypatch.setattr(steering, "NUM_UNDOABLE", len(NORMS) - 2)
    norms = NORMS[::order]
    state = steered(norms)
    state.roll_back(first)
    assert state.bank.norms == sorted(norms[:first], reverse=True)[:2]


def test_a_state_that_was_outdone_does_not_come_in_by_a_step_taken_back(monkeypatch) -> None:
    """A lower one than those that have been dropped would stand in their place."""
    monkeypatch.setattr(steering, "NUM_UNDOABLE", 1)
    state = steered((6.0, 9.0, 8.0, 7.0))  # 6.0 is pushed out
    state.roll_back(2)
    state.act(2, 5.0, torch.tensor([5.0, 0.0]))
    assert 5.0 not in state.bank.norms


def test_a_peak_is_pulled_toward_the_most_similar_earlier_one_and_kept_as_it_was() -> None:
    """The first one finds nobody, low states neither count nor are pulled, and each has its own pull."""
    state = steering_of(Plan(Steering(threshold="iqr", beta=0.25, cos_min=0.6), (0,), (1.0,)), 0, 0, 0)
    first, second, third = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 3.0]), torch.tensor([2.0, 2.0])
    assert state.act(0, 4.0, first) is None
    assert state.act(1, 1.0, torch.tensor([1.0, 0.0])) is None  # not above the threshold
    assert state.act(2, 3.0, second) is None  # at a right angle to the first
    pulled = state.act(3, 8**0.5, third)  # between them: of equals, the one of higher norm
    assert pulled is not None
    torch.testing.assert_close(pulled, third + 0.25 * (first - third))
    assert state.bank.norms == pytest.approx([4.0, 3.0, 8**0.5])
    [(step, cosine)] = state.pulls
    assert (step, cosine) == (3, pytest.approx(0.5**0.5))
    state.roll_back(3)
    assert state.pulls == []
    assert state.bank.norms == [4.0, 3.0]


def test_before_there_is_a_threshold_no_state_is_slack() -> None:
    """The streak starts with the first token that is compared."""
    rule = RunningThreshold(k=0.0, warm_up=3)
    options = Steering(threshold=rule, trigger="slack", low_k=2, p_inject=1.0, cos_min=-1.0, gamma=2.0, beta=1.0)
    state = steering_of(Plan(options, (0,), None), 0, 0, 0)
    norms = (5.0, 1.0, 1.0, 5.0, 1.0, 1.0)  # the fourth is above the third quartile and below twice that
    assert [state.act(step, norm, torch.tensor([norm])) is not None for step, norm in enumerate(norms)] == [
        *[False] * 4,
        True,
        False,
    ]
