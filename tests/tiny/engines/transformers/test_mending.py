"""A batch that fails or does not fit is run in parts, and sequences that come just after its start join it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch

from langnorm.engines.transformers import batching, late_arrivals
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import MemoryLimitError
from tests.support.calls import (
    PROMPTS,
    answer,
    answers,
    ask,
    counted_passes,
    langnorm_threads,
    num_hooks,
    tokens,
    wait_until,
)
from tests.support.models import NUM_LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(120)

ALL = tuple(range(NUM_LAYERS))
POISON = 777
"""A token that a broken model cannot stand."""


@pytest.fixture
def model(model_of):
    """Returns a model that never ends an answer by itself."""
    return model_of("llama", eos_token_id=1023, vocab_size=1023)


@pytest.fixture
def engine(model, tokenizer) -> Iterator[TransformersEngine]:
    """Returns an engine with a memory of its own, and checks that nothing is left behind."""
    engine = TransformersEngine(model, tokenizer)
    yield engine
    wait_until(lambda: not langnorm_threads())
    assert num_hooks(model) == 0


@contextmanager
def failing(model: Any, error: Callable[[torch.Tensor], BaseException | None]) -> Iterator[None]:
    """Makes the third layer raise what `error` returns for its hidden states."""

    def check(_module: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        if raised := error(inputs[0]):
            raise raised

    handle = find_decoder_layers(model)[2].register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def poisoned(model: Any) -> Iterator[None]:
    """Makes the model raise for every batch that has `POISON` in a prompt."""

    def check(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if (inputs[0] == POISON).any():
            msg = "poison"
            raise ArithmeticError(msg)

    handle = model.get_input_embeddings().register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


def at_most(num_rows: int, error: BaseException, *, first_token: int = 0) -> Callable[[torch.Tensor], Any]:
    """Returns an `error` for `failing`: batches of more sequences do not fit, from some token on."""
    num_calls = 0

    def check(states: torch.Tensor) -> BaseException | None:
        nonlocal num_calls
        num_calls += 1
        return error if states.size(0) > num_rows and num_calls > first_token else None

    return check


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("not enough memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("first_token", [0, 5])
def test_a_batch_that_does_not_fit_is_halved(error: BaseException, first_token: int, engine, model) -> None:
    """All sequences get the tokens that they get alone, sampled ones too, from batches that fit."""
    requests = [ask(PROMPTS[i % 5], layers=ALL, max_tokens=8, temperature=0.9, seed=i) for i in range(7)]
    alone = [answer(engine, request) for request in requests]

    with failing(model, at_most(2, error, first_token=first_token)), counted_passes(model) as passes:
        together = answers(engine, requests)

    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert [len(c.norms) for c in together] == [7] * 7
    assert set(passes.batch_sizes) <= {7, 4, 3, 2, 1}
    assert passes.batch_sizes[-1] <= 2


def test_what_fitted_is_remembered_for_a_while(engine, model) -> None:
    """The next batch begins with the size that fitted; after some that fit, larger ones are tried again."""
    requests = [ask(prompt, max_tokens=3) for prompt in PROMPTS[:4]]
    with failing(model, at_most(2, MemoryError())):
        engine.generate(requests)
        with counted_passes(model) as passes:
            engine.generate(requests)
        assert set(passes.batch_sizes) == {2}
    for _ in range(5):
        engine.generate(requests)
    with counted_passes(model) as passes:
        engine.generate(requests)
    assert set(passes.batch_sizes) == {4}


def test_a_row_that_does_not_fit_alone_says_what_to_do(engine, model) -> None:
    """The error names what was asked for, what would be smaller, and what the device said; others are answered."""
    requests = [ask(prompt, max_tokens=4) for prompt in PROMPTS[:4]]
    expected = tokens(engine, requests)

    def too_long(states: torch.Tensor) -> BaseException | None:
        return torch.OutOfMemoryError("CUDA out of memory.\nMore.") if states.size(1) > 20 else None

    with failing(model, too_long), ThreadPoolExecutor(4) as pool, engine.expect(4):
        calls = [pool.submit(answer, engine, request) for request in requests]
        with pytest.raises(
            MemoryLimitError,
            match=r"prompt of 24 tokens with up to 4 new.*`max_tokens`.*bfloat16.*CUDA out of memory\.$",
        ):
            calls[2].result(30)
        assert [calls[i].result(30).token_ids for i in (0, 1, 3)] == [expected[i] for i in (0, 1, 3)]
    with counted_passes(model) as passes:
        engine.generate(requests)
    assert set(passes.batch_sizes) == {4}  # nothing was learnt of batches


@pytest.mark.parametrize("way", ["generate", "agenerate", "stream"])
async def test_a_failing_request_fails_alone(way: str, engine, model) -> None:
    """Only the one whose fault it is gets the error; the others get what they get alone."""
    requests = [ask((*prompt, POISON) if i == 2 else prompt, max_tokens=6) for i, prompt in enumerate(PROMPTS)]
    expected = [answer(engine, request).token_ids for request in requests]

    async def call(request: Any) -> list[int]:
        if way == "agenerate":
            (response,) = await engine.agenerate([request])
            return response.completions[0].token_ids
        if way == "generate":
            return (await asyncio.to_thread(answer, engine, request)).token_ids
        deltas = await asyncio.to_thread(lambda: list(engine.stream(request)))
        return deltas[-1].completion.token_ids

    with poisoned(model), engine.expect(5):
        results = await asyncio.wait_for(asyncio.gather(*map(call, requests), return_exceptions=True), 60)

    assert isinstance(results[2], ArithmeticError)
    assert [results[i] for i in (0, 1, 3, 4)] == [expected[i] for i in (0, 1, 3, 4)]


def test_a_retried_stream_says_nothing_twice(engine, model) -> None:
    """A stream whose batch failed midway goes on where it was."""
    requests = [ask(prompt, max_tokens=12, temperature=0.8, seed=3) for prompt in PROMPTS[:3]]
    expected = [list(engine.stream(request)) for request in requests]

    with failing(model, at_most(1, MemoryError(), first_token=6)), engine.expect(3), ThreadPoolExecutor(3) as pool:
        streams = list(pool.map(lambda request: list(engine.stream(request)), requests))

    for deltas, alone in zip(streams, expected, strict=True):
        assert [p for delta in deltas for p in delta.pieces] == [p for delta in alone for p in delta.pieces]
        assert deltas[-1].completion == alone[-1].completion
        assert sum(delta.completion is not None for delta in deltas) == 1


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a batch be joined at any time, however slow the machine is."""
    monkeypatch.setattr(late_arrivals, "_HARMLESS_SECONDS", 1000.0)
    monkeypatch.setattr(late_arrivals, "_LARGEST_LOSS", 1)
    monkeypatch.setattr(batching, "_LINGER_SECONDS", 0.2)


@contextmanager
def held(model: Any, is_held: Callable[[int], bool]) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Holds the model at the first pass for which `is_held` says so; yields events "it is held" and "it may go on"."""
    at, go_on, passes = threading.Event(), threading.Event(), 0

    def hold(_module: object, _inputs: object, _output: object) -> None:
        nonlocal passes
        passes += 1
        if is_held(passes) and not at.is_set():
            at.set()
            assert go_on.wait(30)

    handle = find_decoder_layers(model)[0].register_forward_hook(hold)
    try:
        yield at, go_on
    finally:
        go_on.set()
        handle.remove()


@pytest.mark.usefixtures("eager")
def test_rows_join_a_batch_that_has_hardly_begun(engine, model) -> None:
    """The batch begins anew with those that came, and everybody gets what they get alone."""
    requests = [ask(prompt, layers=ALL, max_tokens=16, temperature=0.7, seed=5) for prompt in PROMPTS]
    expected = [answer(engine, request) for request in requests]

    with counted_passes(model) as passes, ThreadPoolExecutor(5) as pool, held(model, lambda n: n == 2) as (at, go_on):
        first = pool.submit(answer, engine, requests[0])
        assert at.wait(30)
        others = [pool.submit(answer, engine, request) for request in requests[1:]]
        wait_until(lambda: engine.num_waiting == 4)
        go_on.set()
        completions = [call.result(30) for call in (first, *others)]

    assert [c.token_ids for c in completions] == [c.token_ids for c in expected]
    assert [len(c.norms) for c in completions] == [15] * 5
    assert passes.batch_sizes == [1] * 2 + [5] * 16


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("limits", [(1, 16), (16, 1)])
def test_nobody_joins_against_a_limit(limits: tuple[int, int], engine, model) -> None:
    """`max_batch_size` of those who run and of those who come holds."""
    requests = [ask(PROMPTS[0], max_tokens=8, max_batch_size=limit) for limit in limits]
    with counted_passes(model) as passes, ThreadPoolExecutor(2) as pool, held(model, lambda n: n == 2) as (at, go_on):
        first = pool.submit(answer, engine, requests[0])
        assert at.wait(30)
        second = pool.submit(answer, engine, requests[1])
        wait_until(lambda: engine.num_waiting > 0)
        go_on.set()
        assert first.result(30).token_ids == second.result(30).token_ids
    assert passes.batch_sizes == [1] * 16


@pytest.mark.usefixtures("eager")
def test_a_stream_that_was_read_is_not_begun_anew(engine, model) -> None:
    """Those who come after its first text take the next batch."""
    with counted_passes(model) as passes, ThreadPoolExecutor(1) as pool, held(model, lambda n: n == 4) as (at, go_on):
        stream = engine.stream(ask(PROMPTS[0], max_tokens=8))
        deltas = [next(stream)]
        assert at.wait(30)
        second = pool.submit(answer, engine, ask(PROMPTS[1], max_tokens=8))
        wait_until(lambda: engine.num_waiting > 0)
        go_on.set()
        deltas += stream
        second.result(30)
    assert passes.batch_sizes == [1] * 16
    assert "".join(p for d in deltas for _, p in d.pieces) == "".join(deltas[-1].completion.pieces)


def test_a_late_batch_is_not_begun_anew(engine, model) -> None:
    """After an eighth of an answer nothing is thrown away."""
    with counted_passes(model) as passes, ThreadPoolExecutor(2) as pool, held(model, lambda n: n == 40) as (at, go_on):
        first = pool.submit(answer, engine, ask(PROMPTS[0], max_tokens=64))
        assert at.wait(30)
        second = pool.submit(answer, engine, ask(PROMPTS[1], max_tokens=4))
        wait_until(lambda: engine.num_waiting > 0)
        go_on.set()
        assert len(first.result(30).token_ids) == 64
        second.result(30)
    assert passes.batch_sizes == [1] * 68


async def test_joined_rows_that_are_cancelled_meanwhile_are_dropped(engine, model, monkeypatch) -> None:
    """A sequence that is cancelled in a batch that begins anew is not run again."""
    monkeypatch.setattr(late_arrivals, "_HARMLESS_SECONDS", 1000.0)
    with counted_passes(model) as passes, ThreadPoolExecutor(2) as pool, held(model, lambda n: n == 2) as (at, go_on):
        first = asyncio.create_task(engine.agenerate([ask(PROMPTS[0], max_tokens=64)]))
        assert await asyncio.to_thread(at.wait, 30)
        second = pool.submit(answer, engine, ask(PROMPTS[1], max_tokens=6))
        await asyncio.to_thread(wait_until, lambda: engine.num_waiting > 0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        completion = await asyncio.to_thread(second.result, 30)
        assert len(completion.token_ids) == 6
    assert passes.batch_sizes == [1] * 8
