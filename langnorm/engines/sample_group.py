"""Brings the samples of one request together, so that some of them can be stopped early."""

from __future__ import annotations

from collections.abc import Mapping

from langnorm.engines.requests import Completion, Partial, Pruner


class SampleGroup:
    """The samples of one request, which may be spread over several batches, one after the other.

    Args:
        pruner: Decides which of them stop.
    """

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner
        self._ended: dict[int, Partial] = {}  # by number of the sample, of this batch and of those before

    def is_due(self, num_tokens: int) -> bool:
        """Return whether the pruner decides after this many tokens."""
        return num_tokens % self._pruner.every == 0

    def stopped(self, samples: Mapping[int, Partial]) -> list[int]:
        """Return the numbers of the samples that stop now.

        Args:
            samples: By number, those of the batch under way that were not stopped before.
        """
        all_samples = {number: ended for number, ended in self._ended.items() if number not in samples} | dict(samples)
        numbers = list(all_samples)
        return [numbers[index] for index in self._pruner.stopped(list(all_samples.values()))]

    def end(self, number: int, completion: Completion) -> None:
        """Remember how a sample ended, for the decisions on those that run later."""
        if completion.finish_reason != "pruned":
            logprobs = [token.logprob for token in completion.logprobs]
            self._ended[number] = Partial(
                completion.token_ids, completion.norms, logprobs, is_running=False, reductions=completion.reductions
            )
