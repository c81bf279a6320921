"""The distribution of all norms that an engine has seen, for models without a profile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from langnorm.norms.frozen import snapshot_of
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.sinks import sinks_among
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.step_ranks import FEWEST_STEPS, MOST_STEPS, IntensityKind
from langnorm.norms.thresholds import ReferenceThreshold
from langnorm.norms.token_sums import TokenSums

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP = 500
"""Decode tokens per layer before which nothing is said; the paper's number."""

_MOST_ESTIMATORS = 16  # rules whose state is kept, those that learned last
_MOST_SELECTIONS = 16  # of layers, whose norms of tokens are kept, those that were recorded last

_StepsKey = tuple[IntensityKind, tuple[int, ...]]
_EstimatorKey = tuple[ReferenceThreshold, tuple[int, ...]]


class OnlineSnapshot:
    """What an engine had seen at one moment; nothing that is generated later changes it.

    Args:
        sketch: The norms of all layers.
        tokens: The norms of token ids, for each selection of layers that was recorded.
        estimators: The states of the paper's reference rule, which nobody else has.
        steps: Intensities of the last steps, for each selection of layers and each kind.
        lock: That of the statistics, so that of the requests of a batch one computes what all of them ask for.
    """

    def __init__(
        self,
        sketch: QuantileSketch,
        tokens: Sequence[TokenSums],
        estimators: Mapping[_EstimatorKey, ReferenceEstimator],
        steps: Mapping[_StepsKey, Sequence[float]],
        lock: threading.Lock,
    ) -> None:
        self._sketch = sketch
        self._tokens = tokens
        self._estimators = estimators
        self._steps = steps
        self._lock = lock

    def select(self, layers: Sequence[int]) -> QuantileSketch | None:
        """Return the distribution of these layers, or None before the warm-up is over."""
        with self._lock:
            selected = self._sketch.select(layers)
            return selected if selected.num_samples >= WARM_UP else None

    def tokens(self, layers: Sequence[int]) -> TokenSums:
        """Return the norms of token ids in these layers, of all sequences that recorded all of them."""
        covering = [sums.select(layers) for sums in self._tokens if set(layers) <= set(sums.layers)]
        found, *others = covering or [TokenSums(layers)]
        for other in others:
            found.merge(other)
        return found

    def step_intensities(self, kind: IntensityKind, layers: Sequence[int]) -> tuple[float, ...] | None:
        """Return the intensities of the last steps in these layers, ascending; None while there are too few."""
        steps = self._steps.get((kind, tuple(layers)), ())
        return tuple(sorted(steps)) if len(steps) >= FEWEST_STEPS else None

    def estimator(self, rule: ReferenceThreshold, layers: Sequence[int]) -> ReferenceEstimator:
        """Return the state of the paper's rule for these layers; it is the snapshot's own: copy it to go on."""
        return self._estimators.get((rule, tuple(layers))) or ReferenceEstimator(rule, layers)


class OnlineStatistics:
    """Samples every decode token of every sequence, and hands out snapshots.

    A request takes its snapshot before it starts. What runs beside or before it in the same batch is not in there.

    Args:
        num_layers: Number of decoder layers of the model.
    """

    def __init__(self, num_layers: int) -> None:
        self._sketch = QuantileSketch(range(num_layers))
        self._tokens: dict[tuple[int, ...], TokenSums] = {}  # by layers, those that were recorded last at the end
        self._estimators: dict[_EstimatorKey, ReferenceEstimator] = {}
        self._steps: dict[_StepsKey, deque[float]] = {}  # those that were recorded last at the end
        self._lock = threading.Lock()

    def update(
        self,
        norms: Tensor,
        layers: Sequence[int],
        lengths: Sequence[int],
        token_ids: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            norms: Of all steps (steps, B, L).
            layers: The L layers, as indices.
            lengths: Number of steps of each of the B sequences; what follows is padding.
            token_ids: Of the generated tokens of each sequence, at least as many as it has steps; None where nobody
                knows them, and nothing is learnt about tokens.
        """
        steps = torch.arange(norms.size(0), device=norms.device)
        is_token = steps[:, None] < torch.tensor(lengths, device=norms.device)  # (steps, B)
        by_sequence = norms.masked_fill(~is_token[..., None], torch.nan).transpose(0, 1)  # (B, steps, L)
        is_counted = is_token.T & ~sinks_among(by_sequence)
        with self._lock:
            self._sketch.update(by_sequence, is_counted, layers)
            if token_ids is not None:
                self._learn_tokens(by_sequence, is_counted, tuple(layers), lengths, token_ids)

    def _learn_tokens(
        self,
        norms: Tensor,
        is_counted: Tensor,
        layers: tuple[int, ...],
        lengths: Sequence[int],
        token_ids: Sequence[Sequence[int]],
    ) -> None:
        sums = self._tokens.pop(layers, None) or TokenSums(layers)
        self._tokens[layers] = sums  # the last one now
        if len(self._tokens) > _MOST_SELECTIONS:
            del self._tokens[next(iter(self._tokens))]
        rows = [norms[i, :length] for i, length in enumerate(lengths)]
        counted = [is_counted[i, :length] for i, length in enumerate(lengths)]
        ids = [token_id for of_one, length in zip(token_ids, lengths, strict=True) for token_id in of_one[:length]]
        sums.update(ids, torch.cat(rows).double().cpu().numpy(), torch.cat(counted).cpu().numpy())

    def snapshot(self) -> OnlineSnapshot:
        """Return what has been seen as of now, or as of the first time inside the enclosing `frozen_snapshots`."""
        return snapshot_of(self)

    def take_snapshot(self) -> OnlineSnapshot:
        """Return what has been seen as of now."""
        with self._lock:
            estimators = {key: estimator.copy() for key, estimator in self._estimators.items()}
            tokens = [sums.copy() for sums in self._tokens.values()]
            steps = {key: tuple(intensities) for key, intensities in self._steps.items()}
            return OnlineSnapshot(self._sketch.copy(), tokens, estimators, steps, self._lock)

    def learn(self, rule: ReferenceThreshold, layers: Sequence[int], rows: Sequence[Sequence[float]]) -> None:
        """Let the paper's rule go on over the tokens of an answer, in their order.

        As in the paper its state goes on from request to request, so it is meaningful for one sequence at a time only.
        The states of 16 rules are kept; the one that has not learned for longest begins anew.

        Args:
            rule: The rule.
            layers: 0-based indices of the recorded layers.
            rows: One norm per layer for each token that is no attention sink.
        """
        with self._lock:
            key = (rule, tuple(layers))
            estimator = self._estimators.pop(key, None) or ReferenceEstimator(rule, layers)
            self._estimators[key] = estimator  # the last one now
            if len(self._estimators) > _MOST_ESTIMATORS:
                del self._estimators[next(iter(self._estimators))]
            for row in rows:
                estimator.add(row)

    def learn_steps(self, kind: IntensityKind, layers: Sequence[int], intensities: Sequence[float]) -> None:
        """Add the steps of an answer, with which the steps of later answers are compared.

        Args:
            kind: What the intensities are measured by.
            layers: 0-based indices of the recorded layers.
            intensities: One for each step.
        """
        with self._lock:
            key = (kind, tuple(layers))
            steps = self._steps.pop(key, None) or deque(maxlen=MOST_STEPS)
            self._steps[key] = steps  # the last one now
            if len(self._steps) > _MOST_SELECTIONS:
                del self._steps[next(iter(self._steps))]
            steps.extend(intensities)
