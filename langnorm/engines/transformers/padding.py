"""Makes one batch of prompts of unequal lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return prompts padded to the longest of them, and their attention mask.

    Padding stands on the left, so that all sequences generate at the same position.

    Args:
        prompts: Token ids of B prompts.
        pad_id: Token id of the padding.
        device: Where the result is put.

    Returns:
        Token ids and attention mask (0 for padding, 1 for tokens), both (B, longest), int64.
    """
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)
