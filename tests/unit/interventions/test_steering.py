"""The bank of a steered sequence, when steps are taken back."""

from __future__ import annotations

import pytest
import torch

from langnorm.interventions import steering
from langnorm.interventions.options import Steering
from langnorm.interventions.plan import Plan
from langnorm.interventions.steering import LayerSteering

NORMS = (9.0, 8.0, 7.0, 6.0, 5.5, 5.0, 4.0, 3.0)


def steering_of(norms: tuple[float, ...]) -> LayerSteering:
    """Return the steering of a sequence that has had states of these norms, all of them high and none pulled."""
    state = LayerSteering(Plan(Steering(bank_size=2, low_k=100), (0,), (1.0,)), 0, 0, 0)
    for step, norm in enumerate(norms):
        assert state.act(step, norm, torch.tensor([norm, 0.0])) is None
    return state


def bank_of(state: LayerSteering) -> list[float]:
    """Return the norms of the states that a sequence may be pulled to."""
    return [high.norm for high in state._high_states[:2]]


@pytest.mark.parametrize("first", range(len(NORMS)))
@pytest.mark.parametrize("order", [1, -1], ids=["falling", "rising"])
def test_the_bank_is_as_if_steps_taken_back_had_never_been(first, order, monkeypatch) -> None:
    """The highest norms before them are there, also those that had been pushed out."""
    monkeypatch.setattr(steering, "NUM_UNDOABLE", len(NORMS) - 2)
    norms = NORMS[::order]
    state = steering_of(norms)
    state.roll_back(first)
    assert bank_of(state) == sorted(norms[:first], reverse=True)[:2]


def test_a_state_that_was_outdone_does_not_come_in_by_a_step_taken_back(monkeypatch) -> None:
    """A lower one than those that have been dropped would stand in their place."""
    monkeypatch.setattr(steering, "NUM_UNDOABLE", 1)
    state = steering_of((6.0, 9.0, 8.0, 7.0))  # 6.0 is pushed out
    state.roll_back(2)
    state.act(2, 5.0, torch.tensor([5.0, 0.0]))
    assert 5.0 not in [high.norm for high in state._high_states]
