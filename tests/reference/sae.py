"""Sparse autoencoders as their definitions read: one number after the other, in float64, without torch.

Independent of langnorm on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class PlainSAE:
    """Weights as nested lists: `w_enc[j][i]` from entry j of a state to feature i, `w_dec[i][j]` back."""

    w_enc: list[list[float]]
    b_enc: list[float]
    w_dec: list[list[float]]
    b_dec: list[float]
    architecture: str
    k: int = 0
    threshold: list[float] | None = None
    is_centered: bool = True
    rescales: bool = False

    def encode(self, h: list[float]) -> list[float]:
        """Return the activations of one state."""
        num_features = len(self.b_enc)
        shift = self.b_dec if self.is_centered else [0.0] * len(h)
        pre = [
            sum((h[j] - shift[j]) * self.w_enc[j][i] for j in range(len(h))) + self.b_enc[i]
            for i in range(num_features)
        ]
        if self.rescales:
            pre = [pre[i] * math.hypot(*self.w_dec[i]) for i in range(num_features)]
        if self.architecture == "topk":
            best = set(sorted(range(num_features), key=lambda i: pre[i], reverse=True)[: self.k])
            return [max(0.0, pre[i]) if i in best else 0.0 for i in range(num_features)]
        least = self.threshold or [0.0] * num_features
        return [pre[i] if pre[i] > max(0.0, least[i]) else 0.0 for i in range(num_features)]

    def decode(self, f: list[float]) -> list[float]:
        """Return the state that activations stand for."""
        shares = [f[i] / math.hypot(*self.w_dec[i]) if self.rescales else f[i] for i in range(len(f))]
        return [sum(shares[i] * self.w_dec[i][j] for i in range(len(f))) + b for j, b in enumerate(self.b_dec)]

    def bound(self, h: list[float]) -> list[float]:
        """Return what no activation on one state is above, by the norm of its distance from the decoder's bias."""
        shift = self.b_dec if self.is_centered else [0.0] * len(h)
        distance = math.hypot(*(a - b for a, b in zip(h, shift, strict=True)))
        lengths = [math.hypot(*(row[i] for row in self.w_enc)) for i in range(len(self.b_enc))]
        return [max(0.0, length * distance + b) for length, b in zip(lengths, self.b_enc, strict=True)]
