"""Short ways to ask an engine something, and to see what it does and leaves behind."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.engines.transformers.decoder_layers import find_decoder_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedModel

    from langnorm.engines.base import Engine
    from langnorm.engines.requests import Completion

PROMPTS = (
    (455, 12, 77, 301, 40, 5, 260),
    (33, 34, 35),
    (620, 44, 18, 310, 99, 431, 7, 250, 16, 81, 702, 3, 12, 900, 555, 61, 62, 63, 64, 65, 66, 67, 8, 9),
    (811,),
    (70, 71, 72, 73, 74, 75, 90, 300, 301, 302, 20, 21, 22),
)
"""Prompts of unequal lengths; the longest is longer than the sliding window of the tiny models."""


def ask(
    prompt: Sequence[int],
    *,
    layers: Sequence[int] = (),
    max_batch_size: int = 16,
    timeout: float | None = None,
    **sampling: Any,
) -> Request:
    """Returns a request; what is not named here is an option of `Sampling`."""
    record = Record(layers=tuple(layers)) if layers else None
    return Request(tuple(prompt), Sampling(**sampling), record, max_batch_size, timeout)


def answer(engine: Engine, request: Request) -> Completion:
    """Returns the only completion of a request that is generated alone."""
    return engine.generate([request])[0].completions[0]


def answers(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """Returns the only completions of requests that are generated together."""
    return [response.completions[0] for response in engine.generate(requests)]


def tokens(engine: Engine, requests: Sequence[Request]) -> list[list[int]]:
    """Returns the tokens of requests that are generated together."""
    return [completion.token_ids for completion in answers(engine, requests)]


@torch.no_grad()
def plain_tokens(model: PreTrainedModel, prompt: Sequence[int], **fields: Any) -> list[int]:
    """Returns what `model.generate` of transformers adds to a prompt, greedily."""
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **fields)
    return output[0, len(prompt) :].tolist()


def num_hooks(model: PreTrainedModel) -> int:
    """Returns how many hooks hang on the modules of a model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class Passes:
    """What a hook of our own saw: the batch size of each forward pass, and of those that ran a prompt."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.prompt_batch_sizes: list[int] = []

    def __len__(self) -> int:
        return len(self.batch_sizes)


@contextmanager
def counted_passes(model: PreTrainedModel) -> Iterator[Passes]:
    """Counts the forward passes inside the `with` block, by a hook of our own on the first decoder layer."""
    passes = Passes()

    def count(_module: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        batch_size, num_positions = inputs[0].shape[:2]
        passes.batch_sizes.append(batch_size)
        if num_positions > 1:
            passes.prompt_batch_sizes.append(batch_size)

    handle = find_decoder_layers(model)[0].register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def langnorm_threads() -> list[threading.Thread]:
    """Returns the living threads of engines."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("langnorm")]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Returns as soon as the condition holds, and fails if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
