"""Streams of vLLM show the norms of their tokens while they go on: each once, and those of the whole answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import pytest
import torch

from langnorm import ChatLangNorm, NormTrace
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.trace import KEY
from tests.support.calls import PROMPTS, answer, answers
from tests.support.interventions import SUPPRESSIONS, request_of, thresholds
from tests.vllm.conftest import QUESTIONS, chat_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langnorm.engines.base import Engine
    from langnorm.engines.requests import Completion, Delta

LIVE = Record(layers=(0, 8, 11), live=True)


def assert_streamed(deltas: Sequence[Delta], whole: Completion) -> int:
    """Compares a stream with the answer that was asked for whole; returns how many rows came before its end."""
    completion = deltas[-1].completion
    live = [row for delta in deltas for row in delta.norms]
    assert [token_id for token_id, _ in live] == completion.token_ids[: len(live)]
    assert [row for _, row in live] == completion.norms[: len(live)]
    assert "".join(piece for delta in deltas for _, piece in delta.pieces) == "".join(completion.pieces)
    assert (completion.token_ids, completion.finish_reason) == (whole.token_ids, whole.finish_reason)
    torch.testing.assert_close(torch.tensor(completion.norms), torch.tensor(whole.norms), rtol=1e-4, atol=1e-4)
    assert completion.interventions == whole.interventions
    return len(live)


def streamed(engine: Engine, request: Request, num_deltas: int | None = None) -> list[Delta]:
    """Returns what a stream yields, or the first of it, after which it is closed."""
    with closing(engine.stream(request)) as deltas:
        return [delta for delta, _ in zip(deltas, range(num_deltas or 10**6), strict=False)]


def test_streams_beside_each_other(abacus) -> None:
    """Drawn, cut at a stop text, of one token, with the prompt's norms, some closed early; beside samples."""
    first, second, third = (chat_ids(abacus, question) for question in QUESTIONS)
    samples = Request(second, Sampling(temperature=2.5, seed=5, n=3, max_tokens=40), LIVE)
    requests = [
        Request(first, Sampling(max_tokens=60), LIVE),
        Request(first, Sampling(max_tokens=60), replace(LIVE, prompt=True)),
        Request(second, Sampling(max_tokens=40, stop=("432",)), LIVE),
        Request(second, Sampling(max_tokens=40, temperature=1.5, seed=3), LIVE, top_logprobs=1),
        Request(third, Sampling(max_tokens=1), LIVE),
        Request(third, Sampling(max_tokens=2), LIVE),
    ]
    expected, of_samples = answers(abacus, requests), abacus.generate([samples])[0].completions
    with ThreadPoolExecutor(20) as pool:
        beside = pool.submit(abacus.generate, [samples])
        whole = [pool.submit(streamed, abacus, request) for request in requests for _ in range(2)]
        closed = [pool.submit(streamed, abacus, request, 3) for request in requests]
        for number, future in enumerate(whole):
            assert_streamed(future.result(), expected[number // 2])
        for future in closed:
            assert len(future.result()) <= 3
        for one, other in zip(beside.result()[0].completions, of_samples, strict=True):
            assert one.token_ids == other.token_ids
            torch.testing.assert_close(torch.tensor(one.norms), torch.tensor(other.norms), rtol=1e-4, atol=1e-4)
    assert assert_streamed(streamed(abacus, requests[0]), expected[0]) > 5


async def test_tasks_that_are_cancelled(abacus) -> None:
    """The streams of other tasks lose nothing."""
    request = Request(chat_ids(abacus, QUESTIONS[0]), Sampling(max_tokens=60), LIVE)
    whole = answer(abacus, request)

    async def read() -> list[Delta]:
        async with aclosing(abacus.astream(request)) as deltas:
            return [delta async for delta in deltas]

    tasks = [asyncio.create_task(read()) for _ in range(8)]
    await asyncio.sleep(0.1)
    for task in tasks[::2]:
        task.cancel()
    for deltas in await asyncio.gather(*tasks[1::2]):
        assert_streamed(deltas, whole)
    ends = await asyncio.gather(*tasks[::2], return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)


def test_streams_that_are_preempted(vllm_of) -> None:
    """What has been shown of tokens that are run again is not shown again, nor taken back."""
    engine = vllm_of("qwen3", num_gpu_blocks_override=6)
    requests = [
        Request((*PROMPTS[i % 5], i, *PROMPTS[2]), Sampling(max_tokens=150), Record(layers=(0, 3), live=True))
        for i in range(6)
    ]
    expected = answers(vllm_of("qwen3"), requests)
    with ThreadPoolExecutor(len(requests)) as pool:
        for whole, deltas in zip(expected, pool.map(lambda one: streamed(engine, one), requests), strict=True):
            assert assert_streamed(deltas, whole) > 20


def test_streams_that_are_acted_on(vllm_of) -> None:
    """Show norms as they are after the intervention, the same as without a stream."""
    engine, prompt = vllm_of("qwen3"), PROMPTS[1]
    request = request_of(prompt, thresholds(engine, prompt), SUPPRESSIONS["clamp"])
    whole = answer(engine, request)
    assert_streamed(streamed(engine, replace(request, record=replace(request.record, live=True))), whole)


@pytest.mark.parametrize("settings", [{}, {"layers": [3]}, {"stop": ["="]}, {"max_tokens": 1}, {"profile": None}])
def test_chunks_together_say_what_the_whole_message_says(abacus, settings) -> None:
    """Norms, percentiles, distances, texts and ids, each of them once."""
    chat = ChatLangNorm(engine=abacus, temperature=0, max_tokens=40, norms="tokens")
    chunks = list(chat.stream("What is 47 + 385?", **settings))
    whole = chat.invoke("What is 47 + 385?", **settings)
    together = reduce(add, chunks)
    assert together.content == whole.content
    found, expected = (message.additional_kwargs.get(KEY, {}) for message in (together, whole))
    assert found.keys() == expected.keys()
    assert found.get("token_ids") == expected.get("token_ids")
    for name in ("token_norms", "token_distances", "token_percentiles"):
        if name in expected and settings != {"profile": None}:  # without one, each answer adds to what is compared
            torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(expected[name]), rtol=1e-3, atol=2e-3)
    assert len(NormTrace.from_message(together).token_norms) == NormTrace.from_message(together).tokens - 1
    if not settings:
        assert sum(bool(chunk.additional_kwargs.get(KEY)) for chunk in chunks) > 1
