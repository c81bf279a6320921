"""Steps on a GPU: forward and backward pass of a shape are recorded once and replayed as one command.

A model this small keeps a GPU busy for less time than the processor takes to hand it the work piece by piece. So
batches have few shapes, each of which is met often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_NUM_WARM_UPS = 2

Gradients = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Computes the gradients for token ids (B, T) and their weights (B, T); returns what is watched, 0-d."""

Loss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Returns the loss and what is to be watched, both 0-d."""


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    ids: torch.Tensor
    weights: torch.Tensor
    watched: torch.Tensor


class RecordedSteps:
    """`Gradients` of which each shape of batches has its recording.

    Args:
        model: Its gradients are those of the last step alone, and stay where they are.
        loss: What is recorded. It must not wait for the device.
        budget: Tokens of a batch, padding included: batches of the same length get the same number of rows.
        pad_id: Token of rows that are added, whose weights are zero.
    """

    def __init__(self, model: torch.nn.Module, loss: Loss, budget: int, pad_id: int) -> None:
        self._model, self._loss, self._budget, self._pad_id = model, loss, budget, pad_id
        self._recordings: dict[int, _Recording] = {}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Compute the gradients; what is returned holds until the next call."""
        rows, length = ids.shape
        if length not in self._recordings:
            self._recordings[length] = self._record(max(1, self._budget // length), length)
        recording = self._recordings[length]
        recording.ids[rows:] = self._pad_id
        recording.weights[rows:] = 0.0
        recording.ids[:rows].copy_(ids)
        recording.weights[:rows].copy_(weights)
        recording.graph.replay()
        return recording.watched

    def _record(self, rows: int, length: int) -> _Recording:
        device = next(self._model.parameters()).device
        ids = torch.full((rows, length), self._pad_id, device=device)
        weights = torch.ones(rows, length, device=device)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # what libraries set up at their first call must not be recorded
            for _ in range(_NUM_WARM_UPS):
                self._step(ids, weights)
        torch.cuda.current_stream().wait_stream(beside)
        pool = next((recording.graph.pool() for recording in self._recordings.values()), None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            watched = self._step(ids, weights)
        return _Recording(graph, ids, weights, watched)

    def _step(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        self._model.zero_grad(set_to_none=False)
        loss, watched = self._loss(ids, weights)
        loss.backward()
        return watched
