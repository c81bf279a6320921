"""What the samples of one request know of each other, so that some can be stopped early."""

from __future__ import annotations

from collections.abc import Mapping

from langnorm.engines.requests import Completion, Partial, Pruner


class SampleGroup:
    """The samples of one request; they may be spread over several batches, one after the other.

    Args:
        pruner: Decides which of them stop.
    """

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner
        self._ended: dict[int, Partial] = {}  # of batches that are over

    def is_due(self, num_tokens: int) -> bool:
        """Return whether the running ones are looked at after so many tokens."""
        return num_tokens % self._pruner.every == 0

    def stopped(self, samples: Mapping[int, Partial]) -> list[int]:
        """Return the numbers of the samples that stop, of those in the batch under way that were not stopped before."""
        together = {number: partial for number, partial in self._ended.items() if number not in samples} | dict(samples)
        numbers = list(together)
        return [numbers[place] for place in self._pruner.stopped(list(together.values()))]

    def end(self, number: int, completion: Completion) -> None:
        """Note how a sample ended, for those that run later."""
        if completion.finish_reason != "pruned":
            logprobs = [token.logprob for token in completion.logprobs]
            self._ended[number] = Partial(completion.token_ids, completion.norms, logprobs, is_running=False)
