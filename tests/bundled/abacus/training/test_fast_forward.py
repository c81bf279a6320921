"""Training's forward pass computes what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import langnorm.abacus
from langnorm.abacus.training.fast_forward import prepare, products_in


def load() -> Any:
    """Return the bundled model."""
    return AutoModelForCausalLM.from_pretrained(langnorm.abacus.path())


def logits_and_gradients(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return what a step computes, in float32."""
    logits = model(input_ids=ids, use_cache=False).logits.float()
    logits.logsumexp(-1).mean().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def assert_near(
    logits: torch.Tensor,
    expected: torch.Tensor,
    gradients: dict[str, torch.Tensor],
    expected_gradients: dict[str, torch.Tensor],
) -> None:
    """Assert that two ways of a step differ by no more than the order of their sums."""
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)
    for name, gradient in gradients.items():
        error = (gradient - expected_gradients[name]).norm()
        assert error < 1e-3 * expected_gradients[name].norm().clamp(min=0.1), name


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 61])
def test_blocks_are_causal_attention(length: int) -> None:
    """Logits and gradients are those of the plain model, for lengths that blocks do and do not divide."""
    ids = torch.randint(0, 1_000, (2, length), generator=torch.Generator().manual_seed(length))
    expected, expected_gradients = logits_and_gradients(load(), ids)
    model = load()
    prepare(model, compiles=False)
    logits, gradients = logits_and_gradients(model, ids)
    assert_near(logits, expected, gradients, expected_gradients)


def test_padding_on_the_right_is_never_seen() -> None:
    """What stands behind a token does not reach it."""
    model = load()
    prepare(model, compiles=False)
    ids = torch.randint(0, 1_000, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(input_ids=ids, use_cache=False).logits[:, :23]
        torch.testing.assert_close(whole, model(input_ids=ids[:, :23], use_cache=False).logits, rtol=1e-4, atol=1e-3)


def test_products_in_bfloat16_are_near_and_weights_stay_float32() -> None:
    """Rounding moves the logits a little, and gradients come in the weights' own type."""
    ids = torch.randint(0, 1_000, (2, 30), generator=torch.Generator().manual_seed(0))
    expected, _ = logits_and_gradients(load(), ids)
    model = load()
    prepare(model, compiles=False)
    with products_in("bfloat16"):
        logits, gradients = logits_and_gradients(model, ids)
    assert 0 < (logits - expected).norm() / expected.norm() < 0.05
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}


def test_the_way_of_training_is_not_saved(tmp_path: Path) -> None:
    """The folder that training leaves loads with plain transformers, which attend as they please."""
    model = load()
    prepare(model, compiles=False)
    model.save_pretrained(tmp_path)
    assert "causal_blocks" not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
