"""The bank of a steered sequence, when steps are taken back."""

from __future__ import annotations

import pytest
import torch

from langnorm.interventions import steering
from langnorm.interventions.options import Steering
from langnorm.interventions.plan import Plan
from langnorm.interventions.steering import LayerSteering, steering_of

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
