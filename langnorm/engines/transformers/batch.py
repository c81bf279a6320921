"""Generates one batch: `model.generate` with hooks on its decoder layers and choices of tokens for each sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from langnorm.engines.transformers.config_processors import ConfigProcessors, build_batch_config
from langnorm.engines.transformers.grammar_mask import GrammarMask
from langnorm.engines.transformers.intervening import Intervener
from langnorm.engines.transformers.late_arrivals import RestartForLateArrivals
from langnorm.engines.transformers.logprobs import LogprobRecorder
from langnorm.engines.transformers.norm_recorder import NormRecorder
from langnorm.engines.transformers.padding import pad_left
from langnorm.engines.transformers.prefill_guard import PrefillGuard
from langnorm.engines.transformers.state_recorder import StateRecorder
from langnorm.engines.transformers.stopping import SequenceTracker
from langnorm.engines.transformers.token_sampler import TokenSampler

if TYPE_CHECKING:
    from torch import nn
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from langnorm.engines.requests import Completion
    from langnorm.engines.transformers.sequence import PendingSequence
    from langnorm.norms.online import OnlineStatistics


@dataclass(frozen=True, slots=True)
class BatchGenerator:
    """Generates batches with one model, one at a time.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        decoder_layers: Its decoder layers.
        statistics: Where the norms of all sequences are added.
        should_restart: Returns whether others have come that may join a batch which has hardly begun.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    decoder_layers: nn.ModuleList
    statistics: OnlineStatistics
    should_restart: Callable[[], bool]

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
        intervener = Intervener(self.decoder_layers, [r.plans for r in requests], seeds, lengths)
        norm_layers = sorted({layer for request in requests for layer in request.norm_layers})
        recorder = NormRecorder(norm_layers, intervener.norms)
        state_recorder = StateRecorder(requests, input_ids.size(1))
        logprobs = LogprobRecorder([r.top_logprobs for r in requests])
        guard = PrefillGuard(sequences)

        def get_norms(index: int, num_tokens: int) -> list[list[float]]:
            layers = requests[index].norm_layers
            if not layers:
                return []
            columns = [recorder.layers.index(layer) for layer in layers]
            return recorder.rows()[: num_tokens - 1, index, columns].tolist()

        def end_prefill() -> None:
            recorder.end_prefill()
            guard.end_prefill()

        tracker = SequenceTracker(
            sequences,
            limits,
            self.tokenizer,
            end_ids,
            get_norms,
            state_recorder.completed,
            end_prefill,
            intervener if intervener.is_needed else None,
            logprobs if logprobs.is_needed else None,
        )
        processors = (  # in this order: the first reads the model's own scores
            logprobs,
            ConfigProcessors(own_config, input_ids, attention_mask, limits, end_ids),
            GrammarMask([r.grammar for r in requests], limits, self.tokenizer, end_ids),
            TokenSampler([r.sampling for r in requests], seeds, lengths),
        )
        # Before the tracker, which sends what a stream's reader cannot be told again.
        criteria = [RestartForLateArrivals(self.should_restart, max(limits)), tracker]
        with (
            intervener.attached(),
            recorder.attached(self.decoder_layers),  # after the intervener: it sees the states that flow on
            state_recorder.attached(self.decoder_layers),
            guard.attached(self.decoder_layers),
        ):
            output = _configured(self.model, config).generate(
                input_ids,
                attention_mask=attention_mask,
                logits_processor=LogitsProcessorList([p for p in processors if p.is_needed]),
                stopping_criteria=StoppingCriteriaList(criteria),
            )
        generated = output[:, input_ids.size(1) :].tolist()
        completions = [tracker.build_completion(index, ids) for index, ids in enumerate(generated)]
        if recorder.layers:
            # Norms that were acted on are not the model's own.
            num_rows = [
                len(c.token_ids) - 1 if c.norms and not r.plans.layers else 0
                for c, r in zip(completions, requests, strict=True)
            ]
            self.statistics.update(recorder.rows(), recorder.layers, num_rows)
        return completions


def _configured(model: Any, config: GenerationConfig) -> Any:
    """Return the same model, weights and all, with another generation configuration.

    Given to `generate` as an argument, it would be filled up from the model's own; put in the place of that one, it
    would be found there by whoever else uses the model meanwhile.
    """
    twin = copy.copy(getattr(model, "_orig_mod", model))  # what `torch.compile` returns hands attributes on
    twin.generation_config = config
    return twin
