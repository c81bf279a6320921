"""Random-weight models of every supported family, small enough to build in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PretrainedConfig, PreTrainedModel

NUM_LAYERS = 4
VOCAB_SIZE = 300
PAD_TOKEN_ID, BOS_TOKEN_ID, EOS_TOKEN_ID = 0, 1, 2

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": PAD_TOKEN_ID,
    "bos_token_id": BOS_TOKEN_ID,
    "eos_token_id": EOS_TOKEN_ID,
    # With tied embeddings a random model repeats the token it has just read.
    "tie_word_embeddings": False,
    # With the default 0.02 greedy decoding settles on one token.
    "initializer_range": 0.3,
}
_GROUPED = {"num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 16}
# Shorter than the answers of most tests, so that the window is left.
_WINDOW = {**_HEADS, "sliding_window": 16}

_FAMILIES: dict[str, tuple[Callable[..., PretrainedConfig], dict[str, Any], str]] = {
    "qwen2": (transformers.Qwen2Config, _GROUPED, "sdpa"),
    "qwen3": (transformers.Qwen3Config, _HEADS, "sdpa"),
    "llama": (transformers.LlamaConfig, _GROUPED, "sdpa"),
    "mistral": (transformers.MistralConfig, _WINDOW, "sdpa"),
    # Soft-capped attention scores: sdpa has no place for them.
    "gemma2": (transformers.Gemma2Config, {**_WINDOW, "query_pre_attn_scalar": 16}, "eager"),
    "gemma3": (transformers.Gemma3TextConfig, {**_WINDOW, "query_pre_attn_scalar": 16}, "sdpa"),
    "olmo2": (transformers.Olmo2Config, _GROUPED, "sdpa"),
    "gpt2": (transformers.GPT2Config, {}, "eager"),
    "gpt_neox": (transformers.GPTNeoXConfig, {}, "sdpa"),
    "mixtral": (transformers.MixtralConfig, {**_GROUPED, "num_local_experts": 4}, "sdpa"),
}

FAMILIES = tuple(_FAMILIES)
"""The names that `tiny_model` takes."""


def tiny_model(
    family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **config_overrides: Any
) -> PreTrainedModel:
    """Returns a causal language model with random weights in evaluation mode.

    The same arguments give the same weights.

    Args:
        family: One of `FAMILIES`.
        seed: Seed of the weights. The global random state stays as it is.
        dtype: Type of the weights.
        **config_overrides: Fields of the family's configuration, and `attn_implementation`.
    """
    config_class, family_fields, attention = _FAMILIES[family]
    fields = {**_COMMON, **family_fields, **config_overrides}
    attention = fields.pop("attn_implementation", attention)
    if family == "gemma3":
        # Five sliding layers for each full one by default: a tiny model would have no full one.
        kinds = ("sliding_attention", "full_attention")
        fields.setdefault("layer_types", [kinds[layer % 2] for layer in range(fields["num_hidden_layers"])])
    config = config_class(**fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return model.eval()
