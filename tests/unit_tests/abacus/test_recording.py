"""Recorded steps compute what plain ones do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import langnorm.abacus
from langnorm.abacus.fast_forward import prepare
from langnorm.abacus.recording import RecordedSteps
from langnorm.abacus.train import loss_of


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording a step takes a GPU")
def test_recorded_steps_have_the_gradients_of_plain_ones() -> None:
    """For a full batch and for one with fewer rows, each shape recorded once and replayed."""
    model: Any = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path()).cuda()
    prepare(model, compiles=False)
    steps = RecordedSteps(model, lambda ids, weights: loss_of(model, ids, weights), 256, pad_id=0)
    plain: Any = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path())
    prepare(plain, compiles=False)
    generator = torch.Generator().manual_seed(0)
    for rows, length in ((4, 64), (2, 128), (3, 64)):
        ids = torch.randint(0, 1_000, (rows, length), generator=generator)
        weights = torch.ones(rows, length)
        watched = steps(ids, weights)
        plain.zero_grad()
        loss, expected = loss_of(plain, ids, weights)
        loss.backward()
        torch.testing.assert_close(watched.cpu(), expected, rtol=1e-4, atol=1e-4)
        for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
            error = (parameter.grad.cpu() - other.grad).norm()
            assert error < 1e-3 * other.grad.norm().clamp(min=0.1), name
