"""Applies what a model's own generation configuration does to scores to each sequence as if it were alone.

In a padded batch, the processors of transformers take padding for tokens, and the length of the
batch for that of a sequence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class _SequenceContext:
    """What a processor is built from, for one sequence."""

    prompt: Any  # Tensor (1, P); transformers' types ask for a LongTensor
    max_length: int  # of prompt and answer
    end_ids: Tensor  # (E,)


# By field of the configuration: the value that changes nothing, and what builds the processor of a sequence.
_PROCESSORS: dict[str, tuple[float | None, Callable[[Any, _SequenceContext], LogitsProcessor]]] = {
    "sequence_bias": (None, lambda value, _: SequenceBiasLogitsProcessor(value)),
    "encoder_repetition_penalty": (
        1,
        lambda value, context: EncoderRepetitionPenaltyLogitsProcessor(value, context.prompt),
    ),
    "no_repeat_ngram_size": (0, lambda value, _: NoRepeatNGramLogitsProcessor(value)),
    "encoder_no_repeat_ngram_size": (
        0,
        lambda value, context: EncoderNoRepeatNGramLogitsProcessor(value, context.prompt),
    ),
    "bad_words_ids": (None, lambda value, context: NoBadWordsLogitsProcessor(value, context.end_ids)),
    "min_length": (0, lambda value, context: MinLengthLogitsProcessor(value, context.end_ids)),
    "forced_bos_token_id": (None, lambda value, _: ForcedBOSTokenLogitsProcessor(value)),
    "forced_eos_token_id": (
        None,
        lambda value, context: ForcedEOSTokenLogitsProcessor(context.max_length, value, str(context.prompt.device)),
    ),
}

# What `TokenSampler` and `SequenceTracker` do as each request says, or what no request can ask for.
_OF_REQUESTS = ("temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
                "stop_strings")  # fmt: skip

# What ends a batch as a whole, allows no batch, or runs passes of its own, which hooks would take for tokens.
_OF_WHOLE_BATCH = ("max_time", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "guidance_scale")


def build_batch_config(own: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return a model's own configuration without what is done sequence by sequence; its end tokens are a list."""
    config: GenerationConfig = copy.deepcopy(own)
    end_ids = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    config.eos_token_id = end_ids if isinstance(end_ids, list) else [] if end_ids is None else [end_ids]
    # Any token will do: padding is masked before the prompt and cut off after the answer. The one that the model or its
    # tokenizer names may have been added to the tokenizer alone, and have no embedding.
    config.pad_token_id = 0
    for name in (*_PROCESSORS, *_OF_REQUESTS, *_OF_WHOLE_BATCH):
        setattr(config, name, None)
    for name in ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions"):
        setattr(config, name, False)
    config.do_sample, config.output_hidden_states, config.repetition_penalty = False, False, 1.0
    config.num_beams = config.num_return_sequences = 1
    config.max_length = None
    return config


def sampling_defaults(config: GenerationConfig) -> dict[str, Any]:
    """Return what a model's own configuration says of sampling, as fields of `Sampling`; greedy unless it samples."""
    names = ("top_p", "top_k", "min_p", "repetition_penalty")
    defaults = {name: getattr(config, name, None) for name in names}
    temperature = config.temperature if config.temperature is not None else 1.0
    defaults["temperature"] = temperature if config.do_sample else 0.0
    defaults["max_tokens"] = config.max_new_tokens
    defaults["stop"] = config.stop_strings
    return {name: value for name, value in defaults.items() if value is not None}


class ConfigProcessors(LogitsProcessor):
    """Applies the processors that look at the tokens before to each sequence without its padding.

    Args:
        config: The model's own configuration.
        input_ids: The prompts (B, longest), padded on the left.
        attention_mask: 0 where there is padding.
        limits: Most tokens to generate per sequence.
        end_ids: Tokens that end a sequence.
    """

    def __init__(
        self,
        config: GenerationConfig,
        input_ids: Tensor,
        attention_mask: Tensor,
        limits: Sequence[int],
        end_ids: Sequence[int],
    ) -> None:
        active = [
            (build, value)
            for name, (off, build) in _PROCESSORS.items()
            if (value := getattr(config, name)) is not None and value != off
        ]
        ends = torch.tensor(end_ids, dtype=torch.long, device=input_ids.device)
        self.is_needed = bool(active)
        self._processors: list[tuple[int, LogitsProcessorList]] = []  # of each sequence, with the length of its padding
        if not active:
            return
        num_paddings = (attention_mask == 0).sum(dim=1).tolist()
        for ids, num_padding, limit in zip(input_ids, num_paddings, limits, strict=True):
            context = _SequenceContext(ids[None, num_padding:], len(ids) - num_padding + limit, ends)
            self._processors.append(
                (num_padding, LogitsProcessorList(build(value, context) for build, value in active))
            )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the processed scores (B, V)."""
        scores = scores.clone()
        for index, (num_padding, process) in enumerate(self._processors):
            scores[index] = process(input_ids[index : index + 1, num_padding:], scores[index : index + 1])[0]  # type: ignore[arg-type]
        return scores
