"""Scores of samples that are still being generated: what stops some of them early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langnorm.norms.reading import read_norms
from langnorm.scores.registry import score_all
from langnorm.scores.samples import Sample, with_relative_norms
from langnorm.text.detokenizer import decode_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.requests import Partial
    from langnorm.norms.baseline import Baseline
    from langnorm.selection.options import Selection
    from langnorm.selection.pruning import Pruning


@dataclass(frozen=True, slots=True)
class ScorePruner:
    """Stops samples by the running score of a selection.

    Attributes:
        selection: With a rule for it.
        layers: The recorded layers.
        baseline: What norms are compared with, or None where the score reads none.
        tokenizer: The model's.
    """

    selection: Selection
    layers: tuple[int, ...]
    baseline: Baseline | None
    tokenizer: PreTrainedTokenizerBase

    @property
    def every(self) -> int:
        """Number of tokens between two decisions."""
        return self._pruning.every

    def stopped(self, samples: Sequence[Partial]) -> list[int]:
        """Return the numbers of the running samples that stop now."""
        seen = self._samples(samples)
        scores = score_all(self.selection.score, seen, self.selection.combine).scores
        return self._pruning.stopped(scores, [partial.is_running for partial in samples])

    @property
    def _pruning(self) -> Pruning:
        pruning = self.selection.pruning
        assert pruning, "only a selection with a rule for it has a pruner"
        return pruning

    def _samples(self, partials: Sequence[Partial]) -> list[Sample]:
        """Return what scores see of samples so far."""
        samples = [self._sample(partial) for partial in partials]
        if self.baseline is None or not self.selection.needs_relative_norms:
            return samples
        return with_relative_norms(samples, [partial.token_ids for partial in partials], self.layers, self.baseline)

    def _sample(self, partial: Partial) -> Sample:
        """Return what scores see of a sample so far but for relative norms; all of it is one step."""
        logprobs = list(partial.logprobs) or None
        texts = decode_pieces(self.tokenizer, partial.token_ids) if self.selection.needs_texts else None
        num_tokens = len(partial.token_ids)
        if self.baseline is None:
            return Sample((), (), logprobs=logprobs, texts=texts, reductions=partial.reductions, num_tokens=num_tokens)
        reading = read_norms(partial.norms, self.layers, self.baseline, partial.token_ids)
        return Sample(
            norms=partial.norms,
            layers=self.layers,
            thresholds=reading.thresholds,
            sinks=reading.sinks,
            logprobs=logprobs,
            texts=texts,
            reductions=partial.reductions,
            num_tokens=num_tokens,
        )
