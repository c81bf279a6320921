"""Training's forward pass, compiled, computes what the model does."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.train import build_model
from langnorm.abacus.training.fast_forward import prepare
from langnorm.abacus.training.schedule import Run


def logits_and_gradients(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return what a step computes, in float32."""
    logits = model(input_ids=ids, use_cache=False).logits.float()
    logits.logsumexp(-1).mean().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
def test_compiled_layers_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program for two layers and two lengths gives logits and gradients of the plain model."""
    # What prepares the layers for tracing is ours; the C++ that torch makes of the trace takes it a minute.
    compile_layer = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", compile_layer)
    ids = torch.randint(0, 1_000, (2, 37), generator=torch.Generator().manual_seed(0))
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    run = Run(hidden_size=64, intermediate_size=96, num_layers=2)
    model, plain = build_model(run, tokenizer), build_model(run, tokenizer)
    prepare(model, compiles=True)
    for length in (37, 23):
        expected, expected_gradients = logits_and_gradients(plain, ids[:, :length])
        logits, gradients = logits_and_gradients(model, ids[:, :length])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)
        for name, gradient in gradients.items():
            error = (gradient - expected_gradients[name]).norm()
            assert error < 1e-3 * expected_gradients[name].norm().clamp(min=0.1), name
        model.zero_grad()
        plain.zero_grad()
