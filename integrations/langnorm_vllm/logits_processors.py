"""What vLLM calls with the logits of a pass: for its V1 model runner and for its V2."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from vllm.v1.sample.logits_processor import LogitsProcessor as ProcessorV1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as ProcessorV2

from langnorm.engines.vllm.order import Order
from langnorm.engines.vllm.starting import CONFIG_NAME
from langnorm_vllm.token_choice import CHOOSERS, Chooser, needs_chooser

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
    from vllm import SamplingParams
    from vllm.config import VllmConfig


def _tokenizer_loader(config: VllmConfig) -> Callable[[], PreTrainedTokenizerBase]:
    """Return a function that loads the tokenizer of an engine's model once, when it is first needed."""
    model = config.model_config

    @cache
    def load() -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model.tokenizer, revision=model.tokenizer_revision, trust_remote_code=model.trust_remote_code
        )
        return tokenizer

    return load


def _find_chooser(params: SamplingParams, load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> Chooser | None:
    """Return the chooser of a sequence, which may have been there before; None where it needs none."""
    fields = (params.extra_args or {}).get(CONFIG_NAME)
    if fields is None:
        return None
    order = Order.from_dict(fields)
    if not needs_chooser(order):
        return None
    if order.key not in CHOOSERS:
        CHOOSERS[order.key] = Chooser(order, load_tokenizer)
    return CHOOSERS[order.key]


class TokenChoiceV1(ProcessorV1):  # type: ignore[misc]
    """For the V1 runner, which says by index in the batch who comes, goes and moves."""

    def __init__(self, config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002, FBT001
        self._load_tokenizer = _tokenizer_loader(config)
        self._choosers: dict[int, tuple[Chooser, list[int]]] = {}  # with the tokens of the answer, which grow

    def is_argmax_invariant(self) -> bool:
        """Return False: it decides which logit is the largest."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the batch."""

        def enter(params: SamplingParams, _prompt_ids: Any, output_ids: list[int]) -> tuple[Chooser, list[int]] | None:
            chooser = _find_chooser(params, self._load_tokenizer)
            return None if chooser is None else (chooser, output_ids)

        process_dict_updates(self._choosers, batch_update, enter)

    def apply(self, logits: Tensor) -> Tensor:
        """Put the scores of those that need it in place of their logits."""
        for row, (chooser, output_ids) in self._choosers.items():
            scores = chooser.choose(logits[row : row + 1], len(output_ids), partial(_last, output_ids))
            logits[row] = scores[0]
        return logits


class TokenChoiceV2(ProcessorV2):  # type: ignore[misc]
    """For the V2 runner, which has a slot for each request."""

    def __init__(self, config: VllmConfig, req_states: Any) -> None:
        self._load_tokenizer = _tokenizer_loader(config)
        self._states = req_states
        self._choosers: dict[int, Chooser] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Note the chooser of a slot, and return whether there is one."""
        chooser = _find_chooser(sampling_params, self._load_tokenizer)
        self._choosers.pop(req_idx, None)
        if chooser is not None:
            self._choosers[req_idx] = chooser
        return chooser is not None

    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """Put the scores of those that need it in place of their logits."""
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            if (chooser := self._choosers.get(slot)) is None:
                continue
            step = max(0, int(ctx.seq_lens_upper_bound_np[row]) - int(self._states.prompt_len.np[slot]))
            scores = chooser.choose(logits[row : row + 1], step, partial(_last, ctx.input_ids[: row + 1]))
            logits[row] = scores[0]
        return logits


def _last(token_ids: Any) -> int:
    return int(token_ids[-1])
