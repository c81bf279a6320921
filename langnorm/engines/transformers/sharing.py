"""What the sequences of a model may share of the states of their prompts."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Sharing = Literal["prefixes", "prompts", "nothing"]
"""What sequences may share of the states of their prompts: any common beginning, only a whole prompt, or nothing."""

_LEAST_BYTES = 2**28  # for conversations of some thousand tokens with a small model

# Frequencies of rotary position embeddings that depend on how many tokens a forward pass sees.
_ROPE_BY_LENGTH = ("dynamic", "longrope")


def sharing_of(model: Any) -> Sharing:
    """Return what sequences may share, such that their states are those that they would have alone.

    A beginning can be cut from a sequence where every layer keeps the keys and values of all tokens: sliding windows
    forget some, recurrent states cannot go back. Whole prompts can be shared with sliding windows too.
    """
    if "input_ids" not in inspect.signature(model.forward).parameters or hasattr(model, "get_base_model"):
        return "nothing"  # a wrapper, which does not say what its model takes
    text_config = model.config.get_text_config(decoder=True)
    if model.config.is_encoder_decoder or not model._supports_default_dynamic_cache():
        return "nothing"
    if _contains_any(getattr(text_config, "rope_parameters", None), _ROPE_BY_LENGTH):
        return "nothing"
    kinds = {type(layer) for layer in DynamicCache(config=text_config).layers}
    if kinds == {DynamicLayer}:
        return "prefixes"
    return "prompts" if kinds <= {DynamicLayer, DynamicSlidingWindowLayer} else "nothing"


def has_adapters(model: Any) -> bool:
    """Return whether a model has adapters: states change when they are switched, and no version of weights tells."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def weights_version(model: Any) -> Hashable:
    """Return what changes when a weight is replaced or changed in place, but for changes behind autograd's back."""
    return tuple(
        (id(weight), 0 if weight.is_inference() else weight._version, weight.dtype, weight.device)
        for weight in model.parameters()
    )


def prefix_cache_size(model: PreTrainedModel) -> int:
    """Return how much memory the prefix cache of a model may take where nobody says, in bytes."""
    return max(_LEAST_BYTES, sum(weight.numel() * weight.element_size() for weight in model.parameters()) // 16)


def _contains_any(value: Any, kinds: Sequence[str]) -> bool:
    """Return whether rope parameters, of all layers or by kind of layer, are of one of some kinds."""
    if isinstance(value, dict):
        return any(
            _contains_any(item, kinds) for name, item in value.items() if name == "rope_type" or isinstance(item, dict)
        )
    return value in kinds
