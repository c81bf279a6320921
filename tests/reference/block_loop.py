"""The damped block loop as its definition reads: one token at a time, no KV cache, float32.

Independent of langnorm on purpose. An extra pass of the block goes behind the inputs of pass 0 up to the position of
its token, as `tests.reference.interventions` describes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tests.reference.interventions import Decoder, Thresholds, norm, tau_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class BlockLoop:
    """Options of the loop, and what it did."""

    layers: Sequence[int]
    on: str = "decode"
    num_loops: int = 2
    anchor: float = 0.5
    thresholds: Thresholds = field(default_factory=dict)
    num_run: int = 0
    """Tokens that were acted on."""
    moved: list[float] = field(default_factory=list)
    """Of each of them, by which share of its norm after the first pass."""

    def block(self, decoder: Decoder, inputs: list[torch.Tensor], position: int, h: torch.Tensor) -> torch.Tensor:
        """Return g(h) (d,) at a position, against what its layers (T, d) read in pass 0."""
        for layer in self.layers:
            h = decoder.run(layer, torch.cat([inputs[layer][: position + 1], h[None]]), num_extra=1)[-1]
        return h

    def apply(
        self,
        decoder: Decoder,
        inputs: list[torch.Tensor],
        position: int,
        h: torch.Tensor,
        *,
        is_prompt: bool,
    ) -> torch.Tensor:
        """Return what flows on (d,) from the block, of which `h` is the first pass at this position."""
        if is_prompt != (self.on == "prefill"):
            return h
        if self.on == "peaks" and norm(h) <= tau_of(self.thresholds, self.layers[-1], norm(h)):
            return h
        x = inputs[self.layers[0]][position]
        for _ in range(self.num_loops):
            x = (1 - 1 / self.num_loops) * x + 1 / self.num_loops * self.block(decoder, inputs, position, x)
        out = self.anchor * h + (1 - self.anchor) * x
        self.num_run += 1
        self.moved.append(norm(out - h) / norm(h))
        return out
