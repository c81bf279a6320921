"""Reads the states after late layers as distributions of the next token while a model decodes (a logit lens)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor

from langnorm.engines.token_choice.logprobs import LOWEST_LOGPROB
from langnorm.engines.transformers.decoder_layers import hooked
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.reductions import SETTLED_WITHIN, Lens

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST_LOGITS = 2**23  # of a table that is computed at once: 32 MiB in float32, and some of these are there together
_LN_2 = math.log(2)


class LensRecorder(LogitsProcessor):
    """Records the numbers of `Lens` for the sequences of one batch that ask for them.

    Numbers stay on the device of the scores until they are asked for. Of the lens' logits only those of one layer are
    there at a time, of a part of the batch where the vocabulary is large.

    Args:
        layers: Which layers each sequence reads; none for no lens.
        num_layers: Number of decoder layers.
        unembed: Returns the logits (R, V) of states (R, d).
    """

    def __init__(
        self, layers: Sequence[tuple[int, ...]], num_layers: int, unembed: Callable[[Tensor], Tensor] | None
    ) -> None:
        self._layers = layers
        self._num_layers = num_layers
        self._unembed = unembed
        self._recorded = [index for index, of_sequence in enumerate(layers) if of_sequence]  # R of the B sequences
        # The last layer leads to the distribution itself: there is nothing to compute.
        self._hooked = sorted({layer for of_sequence in layers for layer in of_sequence} - {num_layers - 1})
        self._states: dict[int, Tensor] = {}  # by layer, of the last position of the pass under way (B, d)
        self._groups: list[tuple[tuple[int, ...], Tensor]] | None = None  # layers, and who reads them, on the device
        self._order: list[int] = []  # indices of the sequences in the rows of `_numbers`
        self._numbers: list[Tensor] = []  # (R, 2) a step

    @property
    def is_needed(self) -> bool:
        """Whether any sequence asks for something."""
        return bool(self._recorded)

    @contextmanager
    def attached(self, decoder_layers: nn.ModuleList) -> Iterator[None]:
        """Listen to the layers inside the `with` block; no hook is left behind, whatever happens there."""
        with hooked(decoder_layers, {layer: self._hook(layer) for layer in self._hooked}):
            yield

    def _hook(self, layer: int) -> Callable[..., None]:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._states[layer] = get_residual_stream(output)[:, -1].clone()  # the model may write over it

        return read

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores (B, V) as they are: the model's own, with which the lens is compared."""
        if self._groups is None:
            self._groups = self._group(scores.device)
        at_once = max(1, _MOST_LOGITS // scores.size(1))
        parts = [
            self._numbers_of(layers, part, scores) for layers, rows in self._groups for part in rows.split(at_once)
        ]
        self._numbers.append(torch.cat(parts))
        self._states.clear()
        return scores

    def _group(self, device: torch.device) -> list[tuple[tuple[int, ...], Tensor]]:
        """Return the sequences that read the same layers together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index in self._recorded:
            groups.setdefault(self._layers[index], []).append(index)
        self._order = [index for rows in groups.values() for index in rows]
        return [(layers, torch.tensor(rows, device=device)) for layers, rows in groups.items()]

    def _numbers_of(self, layers: tuple[int, ...], rows: Tensor, scores: Tensor) -> Tensor:
        """Return settling and agreement (r, 2) of some sequences (r,)."""
        assert self._unembed
        final = _logprobs(scores[rows])
        likeliest = final.argmax(dim=-1)
        has_settled = torch.ones_like(rows, dtype=torch.bool)
        settling = torch.ones_like(rows, dtype=torch.float32)
        num_agreeing = torch.zeros_like(settling)
        for layer in reversed(layers):
            if layer == self._num_layers - 1:
                num_agreeing += 1
                continue
            states = self._states[layer]
            lens = _logprobs(self._unembed(states[rows.to(states.device)]).to(scores.device))
            has_settled &= divergence(final, lens) <= SETTLED_WITHIN
            settling = torch.where(has_settled, (layer + 1) / self._num_layers, settling)
            num_agreeing += lens.argmax(dim=-1) == likeliest
        return torch.stack([settling, num_agreeing / len(layers)], dim=-1)

    def lens(self, index: int, num_tokens: int) -> Lens | None:
        """Return the numbers of the first tokens of a sequence; None if it did not ask for them.

        Args:
            index: Of the sequence in the batch.
            num_tokens: How many of its tokens.
        """
        if not self._layers[index]:
            return None
        steps = self._numbers[:num_tokens]
        table = torch.stack(steps)[:, self._order.index(index)] if steps else torch.empty(0, 2)
        settling, agreement = table.double().cpu().numpy().T
        return Lens(settling=settling, agreement=agreement)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence (R,), in bits, of distributions given as finite log-probabilities (R, V)."""
    middle = torch.logaddexp(first, second).sub_(_LN_2)
    of_first = torch.linalg.vecdot(first.exp(), first - middle)
    divergences: Tensor = (of_first + torch.linalg.vecdot(second.exp(), second - middle)) / (2 * _LN_2)
    return divergences


def _logprobs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(dim=-1).clamp_(min=LOWEST_LOGPROB)
