"""Generates one batch: `model.generate` with hooks on its decoder layers and choices of tokens for each sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from langnorm.engines.token_choice.grammar_mask import GrammarMask
from langnorm.engines.token_choice.logprobs import LogprobRecorder
from langnorm.engines.token_choice.token_sampler import TokenSampler
from langnorm.engines.transformers.config_processors import ConfigProcessors, build_batch_config
from langnorm.engines.transformers.free_memory import give_back_memory
from langnorm.engines.transformers.intervening import Intervener
from langnorm.engines.transformers.late_arrivals import RestartForLateArrivals
from langnorm.engines.transformers.lens_recorder import LensRecorder
from langnorm.engines.transformers.norm_recorder import NormRecorder
from langnorm.engines.transformers.padding import pad_left
from langnorm.engines.transformers.prefill_guard import PrefillGuard
from langnorm.engines.transformers.state_recorder import StateRecorder
from langnorm.engines.transformers.state_reducer import StateReducer
from langnorm.engines.transformers.stopping import SequenceTracker
from langnorm.reductions import Reductions

if TYPE_CHECKING:
    from torch import nn
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from langnorm.engines.requests import Completion
    from langnorm.engines.sequence import PendingSequence
    from langnorm.engines.transformers.prefill import Prefiller
    from langnorm.engines.transformers.unembedding import Unembedding
    from langnorm.norms.online import OnlineStatistics


@dataclass(frozen=True, slots=True)
class BatchGenerator:
    """Generates batches with one model, one at a time.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        decoder_layers: Its decoder layers.
        prefiller: Runs what sequences share of their prompts.
        statistics: Where the norms of all sequences are added.
        should_restart: Returns whether others have come that may join a batch which has hardly begun.
        unembedding: For requests with a lens; None where none has come.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    decoder_layers: nn.ModuleList
    prefiller: Prefiller
    statistics: OnlineStatistics
    should_restart: Callable[[], bool]
    unembedding: Unembedding | None = None

    @torch.inference_mode()
    def generate(self, sequences: Sequence[PendingSequence], limits: Sequence[int]) -> list[Completion]:
        """Return the completions of one batch, in the order of its sequences.

        Args:
            sequences: The sequences.
            limits: Most tokens to generate of each.

        Raises:
            BatchRestart: The batch is to begin anew together with others.
            BatchAbandoned: All sequences were cancelled before the prompts were run.
        """
        requests = [sequence.request for sequence in sequences]
        own_config = self.model.generation_config
        config = build_batch_config(own_config, self.tokenizer)
        config.max_new_tokens = max(limits)
        config.use_cache = True  # without, states of earlier tokens would be computed anew, and not acted on
        config.disable_compile = True  # hooks keep what they see, which compiled code may overwrite
        end_ids = config.eos_token_id
        input_ids, attention_mask = pad_left([r.prompt_ids for r in requests], config.pad_token_id, self.model.device)
        seeds, lengths = [(s.seed, s.sample) for s in sequences], [len(r.prompt_ids) for r in requests]
        # Before the hooks: those listen to the passes of `generate`, one for each token from the prompt's last on.
        late_arrivals = RestartForLateArrivals(self.should_restart, max(limits))
        guard = PrefillGuard(sequences)
        with guard.attached(self.decoder_layers):
            prefilled = self.prefiller.run(sequences, own_config)
        num_left = input_ids.size(1) - prefilled.num_positions
        intervener = Intervener(self.decoder_layers, [r.plans for r in requests], seeds, lengths, num_left)
        norm_layers = sorted({layer for request in requests for layer in request.norm_layers})
        recorder = NormRecorder(norm_layers, intervener.norms)
        state_recorder = StateRecorder(requests, num_left)
        reducer = StateReducer(requests, len(self.decoder_layers), end_ids)
        logprobs = LogprobRecorder([r.top_logprobs for r in requests], [r.records_distribution for r in requests])
        lens = LensRecorder([r.lens_layers for r in requests], len(self.decoder_layers), self.unembedding)

        def get_norms(index: int, num_tokens: int, start: int = 0) -> list[list[float]]:
            layers = requests[index].norm_layers
            if not layers:
                return []
            columns = [recorder.layers.index(layer) for layer in layers]
            return recorder.rows()[start : num_tokens - 1, index, columns].tolist()

        def get_reductions(index: int, num_tokens: int) -> Reductions:
            return Reductions(
                distribution=logprobs.distribution(index, num_tokens),
                lens=lens.lens(index, num_tokens),
                updates=reducer.updates(index, num_tokens),
                mean_states=reducer.mean_states(index, num_tokens),
            )

        def completed(index: int, completion: Completion) -> Completion:
            hit = prefilled.hits.get(index)
            return state_recorder.completed(index, replace(completion, prefix_hit=hit) if hit else completion)

        def end_prefill() -> None:
            recorder.end_prefill()
            reducer.end_prefill()
            guard.end_prefill()
            give_back_memory()  # a prompt's pass takes more than all steps after it

        tracker = SequenceTracker(
            sequences,
            limits,
            self.tokenizer,
            end_ids,
            get_norms,
            get_reductions,
            completed,
            end_prefill,
            intervener if intervener.is_needed else None,
            logprobs if logprobs.is_needed else None,
            reducer if reducer.is_needed else None,
        )
        processors = (  # in this order: the first two read the model's own scores
            logprobs,
            lens,
            ConfigProcessors(own_config, input_ids, attention_mask, limits, end_ids),
            GrammarMask([r.grammar for r in requests], limits, self.tokenizer, end_ids),
            TokenSampler([r.sampling for r in requests], seeds, lengths),
        )
        # Before the tracker, which sends what a stream's reader cannot be told again.
        criteria = [late_arrivals, tracker]
        with (
            intervener.attached(),
            recorder.attached(self.decoder_layers),  # after the intervener: it sees the states that flow on
            state_recorder.attached(self.decoder_layers),
            reducer.attached(self.decoder_layers),
            lens.attached(self.decoder_layers),
            guard.attached(self.decoder_layers),
        ):
            output = _configured(self.model, config).generate(
                input_ids,
                attention_mask=attention_mask,
                **({} if prefilled.cache is None else {"past_key_values": prefilled.cache}),
                logits_processor=LogitsProcessorList([p for p in processors if p.is_needed]),
                stopping_criteria=StoppingCriteriaList(criteria),
            )
        generated = output[:, input_ids.size(1) :].tolist()
        completions = [tracker.build_completion(index, ids) for index, ids in enumerate(generated)]
        self.prefiller.keep(sequences, prefilled, completions)
        if recorder.layers:
            # Norms that were acted on are not the model's own.
            num_rows = [
                len(c.token_ids) - 1 if c.norms and not r.plans.layers else 0
                for c, r in zip(completions, requests, strict=True)
            ]
            self.statistics.update(recorder.rows(), recorder.layers, num_rows, [c.token_ids for c in completions])
        return completions


def _configured(model: Any, config: GenerationConfig) -> Any:
    """Return the same model, weights and all, with another generation configuration.

    Given to `generate` as an argument, it would be filled up from the model's own; put in the place of that one, it
    would be found there by whoever else uses the model meanwhile.
    """
    twin = copy.copy(model)
    twin.generation_config = config
    return twin
