"""Runs the prompts of a batch before `generate` does, as far as that saves work: no beginning is run twice.

`generate` is handed a cache of the first positions of the padded batch and goes on from there. What it finds in the
cache comes from

- the prefix cache, which knows what recent sequences began with,
- one run of a beginning that several prompts of the batch share,
- one run of a prompt for all of its samples.

A prompt's last token is always left to `generate`: the first new token follows from its scores.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from langnorm.engines.requests import PrefixHit
from langnorm.engines.transformers.growing_cache import growing_cache
from langnorm.engines.transformers.key_values import KeyValues, Row, fill_cache
from langnorm.engines.transformers.padding import pad_left
from langnorm.engines.transformers.prefill_plan import Run, common_beginnings, is_worth_it, padded_passes
from langnorm.engines.transformers.prefix_cache import SHORTEST_PREFIX, PrefixCache, PrefixTree
from langnorm.engines.transformers.sharing import has_adapters, sharing_of, weights_version

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from langnorm.engines.requests import Completion
    from langnorm.engines.sequence import PendingSequence


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What `generate` starts from.

    Attributes:
        cache: Keys and values of the first positions of the padded batch; None leaves that to `generate`.
        num_positions: How many these are.
        hits: By index of the sequence, what came from the prefix cache.
        tree: Where its sequences are remembered, or None.
    """

    cache: DynamicCache | None = None
    num_positions: int = 0
    hits: dict[int, PrefixHit] = field(default_factory=dict)
    tree: PrefixTree[KeyValues] | None = None


class _Beginning:
    """All but the last token of a prompt, or of several that are the same so far."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens = tokens
        self.parts: list[KeyValues] = []
        self.num_known = 0

    def extend(self, part: KeyValues) -> None:
        """Add what was computed for its next tokens."""
        self.parts.append(part)
        self.num_known += part.num_tokens


class Prefiller:
    """Runs prompts for one model.

    Args:
        model: The model.
        prefix_cache: What recent sequences began with.
    """

    def __init__(self, model: PreTrainedModel, prefix_cache: PrefixCache[KeyValues]) -> None:
        self._model: Any = model
        self._sharing = sharing_of(self._model)
        self._prefix_cache = prefix_cache
        parameters = inspect.signature(self._model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        # Scores of the vocabulary are needed of no token.
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def run(self, sequences: Sequence[PendingSequence], own_config: GenerationConfig) -> Prefilled:
        """Run what is worth being run before `generate`.

        Args:
            sequences: Those of the batch.
            own_config: The model's own generation configuration.
        """
        requests = [sequence.request for sequence in sequences]
        is_untouched = not any(r.plans.act_on_prompt or r.records_prompt for r in requests)
        has_dynamic_cache = getattr(own_config, "cache_implementation", None) in (None, "dynamic")
        if self._sharing == "nothing" or not (is_untouched and has_dynamic_cache):
            return Prefilled()
        prompts = [request.prompt_ids for request in requests]
        if self._sharing == "prompts":
            return self._share_prompts(prompts, own_config)
        return self._share_prefixes(prompts, own_config)

    def keep(
        self, sequences: Sequence[PendingSequence], prefilled: Prefilled, completions: Sequence[Completion]
    ) -> None:
        """Remember the sequences of a batch that has ended.

        The answer is remembered with its prompt where a conversation is likely to go on from it: where it is the only
        one, and nothing acted on its states.
        """
        cache, tree = prefilled.cache, prefilled.tree
        if cache is None or tree is None:
            return
        width = max(len(sequence.request.prompt_ids) for sequence in sequences)
        for index, (sequence, completion) in enumerate(zip(sequences, completions, strict=True)):
            request = sequence.request
            is_answer_kept = request.sampling.n == 1 and not request.plans.layers
            tokens = (*request.prompt_ids, *(completion.token_ids[:-1] if is_answer_kept else ()))
            offset = width - len(request.prompt_ids)

            def get_values(start: int, end: int, row: int = index, offset: int = offset) -> KeyValues:
                return KeyValues.of_row(cache, row, offset + start, offset + end)

            tree.add(tokens, get_values)

    def _share_prefixes(self, prompts: Sequence[tuple[int, ...]], own_config: GenerationConfig) -> Prefilled:
        """Share whatever beginnings are the same."""
        longest = max(map(len, prompts))
        tree = self._get_tree() if longest >= SHORTEST_PREFIX else None
        beginnings = {prompt[:-1]: _Beginning(prompt[:-1]) for prompt in prompts}
        if tree:
            for tokens, beginning in beginnings.items():
                for part in tree.find(tokens):
                    beginning.extend(part)
        distinct = list(beginnings.values())
        num_found = [beginning.num_known for beginning in distinct]
        chunk_size = getattr(own_config, "prefill_chunk_size", None)
        tokens_of = [beginning.tokens for beginning in distinct]
        while runs := common_beginnings(tokens_of, [beginning.num_known for beginning in distinct]):
            self._run_passes(padded_passes(runs), distinct, chunk_size)
        # `generate` begins at the same position of the padded batch for all.
        offsets = [longest - 1 - len(beginning.tokens) for beginning in distinct]
        pairs = list(zip(distinct, offsets, strict=True))
        num_positions = min(offset + beginning.num_known for beginning, offset in pairs)
        rests = [
            Run(beginning.num_known, len(beginning.tokens), (number,))
            for number, beginning in enumerate(distinct)
            if beginning.num_known < len(beginning.tokens)
        ]
        passes = padded_passes(rests)
        if rests and is_worth_it(passes, len(prompts) * (longest - 1 - num_positions)):
            self._run_passes(passes, distinct, chunk_size)
            num_positions = longest - 1
        if not num_positions:
            return Prefilled(self._new_cache(), tree=tree)
        numbers = {beginning.tokens: number for number, beginning in enumerate(distinct)}
        row_of = [numbers[prompt[:-1]] for prompt in prompts]
        rows = [Row(offset, beginning.parts) for beginning, offset in pairs]
        cache = fill_cache(self._new_cache(), rows, num_positions, row_of)
        hits = {}
        for index, number in enumerate(row_of):
            num_used = min(num_found[number], num_positions - offsets[number])
            if num_used > 0:
                num_bytes = distinct[number].parts[0].narrow(0, 1).num_bytes * num_used
                hits[index] = PrefixHit(num_used, num_bytes)
        return Prefilled(cache, num_positions, hits, tree)

    def _get_tree(self) -> PrefixTree[KeyValues] | None:
        """Return the sequences that others may start from; None where none are kept."""
        if not self._prefix_cache.max_bytes or has_adapters(self._model):
            return None
        return self._prefix_cache.tree(weights_version(self._model))

    def _run_passes(
        self, passes: Sequence[Sequence[Run]], beginnings: Sequence[_Beginning], chunk_size: int | None
    ) -> None:
        for runs in passes:
            of_runs = self._run_pass(runs, beginnings, chunk_size)
            for run, values in zip(runs, of_runs, strict=True):
                for number in run.members:
                    beginnings[number].extend(values)

    def _run_pass(
        self, runs: Sequence[Run], beginnings: Sequence[_Beginning], chunk_size: int | None
    ) -> list[KeyValues]:
        """Return what is computed for the tokens of some runs together."""
        num_known, num_new = max(run.start for run in runs), max(run.num_tokens for run in runs)
        cache, device = self._new_cache(), self._model.device
        members = [beginnings[run.members[0]] for run in runs]
        if num_known:
            rows = [Row(num_known - run.start, one.parts) for run, one in zip(runs, members, strict=True)]
            fill_cache(cache, rows, num_known, range(len(rows)))
        # Padding of known tokens stands before them, that of new ones behind: each sequence is in one piece.
        ids = [
            [*one.tokens[run.start : run.end], *[0] * (num_new - run.num_tokens)]
            for run, one in zip(runs, members, strict=True)
        ]
        mask = [[0] * (num_known - run.start) + [1] * run.end + [0] * (num_new - run.num_tokens) for run in runs]
        self._forward(torch.tensor(ids, device=device), torch.tensor(mask, device=device), cache, chunk_size)
        return [KeyValues.of_row(cache, row, num_known, num_known + run.num_tokens) for row, run in enumerate(runs)]

    def _share_prompts(self, prompts: Sequence[tuple[int, ...]], own_config: GenerationConfig) -> Prefilled:
        """Share the prompts of several samples."""
        distinct, longest = list(dict.fromkeys(prompts)), max(map(len, prompts))
        of_pass = [Run(0, longest - 1, (number,)) for number in range(len(distinct))]
        if longest < 2 or not is_worth_it([of_pass], len(prompts) * (longest - 1)):
            return Prefilled()
        ids, mask = pad_left(distinct, 0, self._model.device)
        cache = self._new_cache()
        chunk_size = getattr(own_config, "prefill_chunk_size", None)
        self._forward(ids[:, :-1], mask[:, :-1], cache, chunk_size)
        numbers = {prompt: number for number, prompt in enumerate(distinct)}
        cache.batch_select_indices(torch.tensor([numbers[prompt] for prompt in prompts], device=self._model.device))
        return Prefilled(cache, longest - 1)

    def _forward(self, ids: Any, mask: Any, cache: DynamicCache, chunk_size: int | None) -> None:
        """Run new tokens (B, N) after those in the cache, given the mask (B, known + N) of all; the cache is filled."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        num_known = mask.size(1) - ids.size(1)
        is_padded = not bool(mask.all())
        for chunk in ids.split(chunk_size or ids.size(1), dim=1):
            end = num_known + chunk.size(1)
            options = {"position_ids": positions[:, num_known:end]} if self._takes_positions else {}
            inputs = self._model.prepare_inputs_for_generation(
                chunk,
                attention_mask=mask[:, :end] if is_padded else None,
                past_key_values=cache,
                use_cache=True,
                is_first_iteration=True,
                **options,
                **self._options,
            )
            self._model(**inputs, return_dict=True)
            num_known = end

    def _new_cache(self) -> DynamicCache:
        config = self._model.config.get_text_config(decoder=True)
        return growing_cache(config) if self._sharing == "prefixes" else DynamicCache(config=config)
