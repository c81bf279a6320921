"""The bundled weights are what the package promises."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

import langnorm.abacus
from langnorm.norms.layers import select_layers


def test_the_model_loads_with_plain_transformers() -> None:
    """Qwen3, 12 layers, 2 to 4 million parameters, tied embeddings, run in float32."""
    model = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path())
    assert isinstance(model, Qwen3ForCausalLM)
    assert model.dtype == torch.float32
    assert 2e6 <= model.num_parameters() <= 4e6
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert select_layers("late", model.config.num_hidden_layers) == (9, 10)
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert model.config.max_position_embeddings == langnorm.abacus.CONTEXT_LENGTH


def test_the_model_is_small() -> None:
    """At most 8 MB of weights, and a card, a template and generation settings beside them."""
    folder: Path = langnorm.abacus.path()
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    for name in ("README.md", "chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert (folder / name).exists()
