"""The forward pass as training runs it: layers compiled, attention in blocks, products in bfloat16 where asked.

Nothing here changes what is computed beyond rounding. It is there because a CPU spends most of a plain step outside
the products: the fused attention of torch is slow for heads this small, and each elementwise operation walks through
the memory once more.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

Precision = Literal["float32", "bfloat16"]

_NAME = "causal_blocks"
_NUM_BLOCKS = 4


def causal_blocks(
    module: torch.nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    scaling: float,
    **options: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, None]:
    """Return causal attention as transformers' attention functions do, for sequences that are padded on the right.

    The queries are cut into blocks, each of which meets only the keys up to its own end.

    Args:
        module: The attention layer.
        query: [B, H, T, D].
        key: [B, H_kv, T, D], with H a multiple of H_kv.
        value: [B, H_kv, T, D].
        attention_mask: Not looked at: padding on the right is behind every real token.
        scaling: Factor on the scores.
        options: Not looked at.

    Returns:
        The attended values [B, T, H, D], and no weights.
    """
    groups, length = query.size(1) // key.size(1), query.size(2)
    key, value = key.repeat_interleave(groups, 1).transpose(2, 3), value.repeat_interleave(groups, 1)
    places = torch.arange(length)
    size = -(-length // _NUM_BLOCKS)
    attended = []
    for block in range(_NUM_BLOCKS):
        start, end = block * size, length if block == _NUM_BLOCKS - 1 else (block + 1) * size
        scores = (query[:, :, start:end] @ key[..., :end]).float() * scaling
        scores = scores.masked_fill(places[:end] > places[start:end, None], float("-inf"))
        attended.append(torch.softmax(scores, -1).to(value.dtype) @ value[:, :, :end])
    return torch.cat(attended, 2).transpose(1, 2).contiguous(), None


def prepare(model: Qwen3ForCausalLM, *, compiles: bool) -> None:
    """Let the model attend in blocks and, where asked, compile its layers: one program for all of them."""
    AttentionInterface.register(_NAME, causal_blocks)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, lambda *_, **__: None)
    model.set_attn_implementation(_NAME)
    if compiles:
        for layer in model.model.layers:
            layer.compile(dynamic=True)


def products_in(precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which matrix products are computed in `precision`; weights and sums stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast("cpu", torch.bfloat16)
