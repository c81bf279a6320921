"""What model a loaded one is: the same answer for the same weights under any name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langnorm.engines.checkpoint import hash_bytes, hash_weights, sample_values
from langnorm.engines.transformers.packed_weights import packed_form
from langnorm.norms.identity import ModelIdentity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def identify_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_layers: int, weights: str | None
) -> ModelIdentity:
    """Return the identity of a loaded model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        num_layers: Number of its decoder layers.
        weights: Hash of the checkpoint that it was loaded from; by default one of the parameters in memory.
    """
    dtype, packed = str(model.dtype).removeprefix("torch."), packed_form(model)
    return ModelIdentity(
        model=type(model).__name__,
        weights=weights or _hash_parameters(model),
        dtype=f"{dtype} packed as {packed}" if packed else dtype,
        num_layers=num_layers,
        chat_template=hash_bytes(str(tokenizer.chat_template).encode()),
    )


@torch.inference_mode()
def _hash_parameters(model: PreTrainedModel) -> str:
    """Return what `hash_checkpoint` returns for a model that was saved as it is, in float32 or a narrower type."""
    weights = []
    for name, weight in model.named_parameters():  # tied ones once, as in a checkpoint
        values = b""
        if weight.device.type != "meta" and weight.numel():  # a weight that accelerate keeps on disk is not read
            values = sample_values(weight.reshape(-1)).float().cpu().numpy().tobytes()
        weights.append((name, tuple(weight.shape), values))
    return hash_weights(weights)
