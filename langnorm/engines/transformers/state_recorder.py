"""Keeps hidden states, and the norms of prompts, for requests whose record asks for more than norms of new tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.transformers.decoder_layers import hooked
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.interventions.token_norms import token_norms

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm.engines.requests import Completion, Request


class StateRecorder:
    """Collects the outputs of decoder layers for the sequences of one batch that ask for them.

    All positions of a pass are kept as they flow on, on the layer's device and in the model's dtype.

    Args:
        requests: One per sequence.
        prompt_width: Number of positions of the padded prompts; padding is on the left.
    """

    def __init__(self, requests: Sequence[Request], prompt_width: int) -> None:
        self._records = {
            index: request.record
            for index, request in enumerate(requests)
            if request.record and (request.record.states or request.record.prompt)
        }
        self._num_prompt_tokens = [len(request.prompt_ids) for request in requests]
        self._prompt_width = prompt_width
        layers = {layer for record in self._records.values() for layer in record.layers}
        self._passes: dict[int, list[Tensor]] = {layer: [] for layer in sorted(layers)}  # (B, positions, d) each

    @contextmanager
    def attached(self, decoder_layers: nn.ModuleList) -> Iterator[None]:
        """Listen to the layers inside the `with` block; no hook is left behind, whatever happens there."""
        with hooked(decoder_layers, {layer: self._hook(layer) for layer in self._passes}):
            yield

    def _hook(self, layer: int) -> Any:
        passes = self._passes[layer]

        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            passes.append(get_residual_stream(output).clone())  # the model may write over what its layer returned

        return record

    def completed(self, index: int, completion: Completion) -> Completion:
        """Return a completion of the batch with what its request asks for beyond norms of new tokens."""
        record = self._records.get(index)
        if record is None:
            return completion
        states = torch.stack([torch.cat(self._passes[layer], dim=1)[index].cpu() for layer in record.layers], dim=1)
        start = self._prompt_width - self._num_prompt_tokens[index]
        prompt = states[start : self._prompt_width]  # (P, L, d)
        generated = states[self._prompt_width :][: len(completion.token_ids) - 1]  # (T - 1, L, d)
        has_prompt_norms, has_prompt_states = record.prompt and record.norms, record.prompt and record.states
        return replace(
            completion,
            prompt_norms=token_norms(prompt).tolist() if has_prompt_norms else [],
            states=generated if record.states else None,
            prompt_states=prompt if has_prompt_states else None,
        )
