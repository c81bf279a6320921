"""What model it is: the same answer for the same weights under any name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from langnorm.norms.identity import ModelIdentity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NUM_SAMPLED = 64  # values of each weight: a fine-tune moves them all, and a large model is read in a moment


def identity_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_layers: int) -> ModelIdentity:
    """Return the identity of a loaded model."""
    return ModelIdentity(
        model=type(model).__name__,
        weights=_weights_hash(model),
        dtype=str(model.dtype).removeprefix("torch."),
        num_layers=num_layers,
        chat_template=_hash(str(tokenizer.chat_template).encode()),
    )


@torch.inference_mode()
def _weights_hash(model: PreTrainedModel) -> str:
    parts = []
    for name, weight in sorted(model.named_parameters()):
        parts.append(f"{name}{tuple(weight.shape)}".encode())
        if weight.device.type != "meta" and weight.numel():  # a weight that accelerate keeps on disk is not read
            flat = weight.reshape(-1)
            sampled = flat[:: max(1, len(flat) // _NUM_SAMPLED)][:_NUM_SAMPLED]
            parts.append(sampled.float().cpu().numpy().tobytes())
    return _hash(*parts)


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
