"""However a call ends, the engine is clean afterwards: no hook, no thread, and the next call works."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from langnorm import ChatLangNorm, NormTrace
from langnorm.engines.transformers import batching
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from tests.support.calls import (
    PROMPTS,
    answer,
    ask,
    counted_passes,
    langnorm_threads,
    num_hooks,
    plain_tokens,
    tokens,
    wait_until,
)
from tests.support.models import NUM_LAYERS
from tests.tiny.engines.transformers.test_norms import assert_norms

pytestmark = pytest.mark.timeout(120)  # a hang is what these tests are after

ALL = tuple(range(NUM_LAYERS))
LONG = ask(PROMPTS[1], layers=ALL, max_tokens=480)
"""A request that is still running whenever a test ends it: random models seldom end by themselves."""


@pytest.fixture
def model(model_of):
    """Returns a model that never ends an answer by itself."""
    return model_of("llama", eos_token_id=1023, vocab_size=1023)


@pytest.fixture
def engine(engine_of, model):
    """Returns an engine, and checks at the end that nothing is left behind and the next call is right."""
    engine = engine_of("llama", eos_token_id=1023, vocab_size=1023)
    yield engine
    wait_until(lambda: not langnorm_threads())
    assert num_hooks(model) == 0
    request = ask(PROMPTS[0], layers=ALL, max_tokens=6, timeout=30)
    completion = answer(engine, request)
    assert completion.token_ids == plain_tokens(model, PROMPTS[0], max_new_tokens=6)
    assert_norms(model, request, completion)
    wait_until(lambda: not langnorm_threads())


@pytest.fixture
def broken(model, monkeypatch):
    """Returns a function that makes a decoder layer raise in its third pass from then on."""

    def break_layer(error: Exception) -> None:
        layer = find_decoder_layers(model)[2]
        forward, num_calls = layer.forward, 0

        def failing(*args, **kwargs):
            nonlocal num_calls
            num_calls += 1
            if num_calls >= 3:
                raise error
            return forward(*args, **kwargs)

        monkeypatch.setattr(layer, "forward", failing)

    yield break_layer
    monkeypatch.undo()


def test_nothing_is_left_after_an_answer(engine, model) -> None:
    """Between calls there is no hook and no thread."""
    assert num_hooks(model) == 0

    engine.generate([ask(prompt, layers=ALL, max_tokens=5) for prompt in PROMPTS])
    list(engine.stream(ask(PROMPTS[0], layers=ALL, max_tokens=5)))

    wait_until(lambda: not langnorm_threads())
    assert num_hooks(model) == 0


async def _consume(engine, way: str, timeout: float | None = None) -> None:
    request = ask(PROMPTS[0], layers=ALL, max_tokens=20, timeout=timeout)
    if way == "generate":
        await asyncio.to_thread(engine.generate, [request, request])
    elif way == "stream":
        await asyncio.to_thread(lambda: list(engine.stream(request)))
    elif way == "agenerate":
        await engine.agenerate([request, request])
    else:
        assert [delta async for delta in engine.astream(request)]


@pytest.mark.parametrize("way", ["generate", "stream", "agenerate", "astream"])
async def test_error_in_model_reaches_caller(way, engine, broken) -> None:
    """What the model raises in the middle of an answer is raised to whoever asked."""
    broken(ArithmeticError("the layer is broken"))

    with pytest.raises(ArithmeticError, match="the layer is broken"):
        await asyncio.wait_for(_consume(engine, way), 30)


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("way", ["generate", "stream", "agenerate", "astream"])
async def test_timeout_inside_model_is_not_ours(way, timeout, engine, broken) -> None:
    """A `TimeoutError` that the model raises reaches the caller as it is, while the request has time left."""
    broken(TimeoutError("the device did not answer"))

    with pytest.raises(TimeoutError, match="the device did not answer"):
        await _consume(engine, way, timeout)


def test_error_reaches_all_threads_that_share_a_batch(engine, broken) -> None:
    """Every caller in a failing batch gets the error, and callers after it get answers."""
    broken(ArithmeticError("the layer is broken"))
    with engine.expect(3), ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(answer, engine, ask(prompt, max_tokens=9)) for prompt in PROMPTS[:3]]

        assert [type(call.exception(30)) for call in calls] == [ArithmeticError] * 3


def test_closed_stream_stops_generation(engine, model) -> None:
    """Closing a stream early ends the forward passes within two steps."""
    with counted_passes(model) as passes:
        stream = engine.stream(LONG)
        for _ in range(3):
            next(stream)
        stream.close()
        at_close = len(passes)
        wait_until(lambda: not langnorm_threads())

        assert len(passes) <= at_close + 2
        assert len(passes) < 300


def test_forgotten_stream_stops_generation(engine, model) -> None:
    """A stream that nobody holds any more ends by itself."""
    with counted_passes(model) as passes:
        for _ in engine.stream(LONG):
            break
        wait_until(lambda: not langnorm_threads())

        assert len(passes) < 300


def test_stream_that_is_never_read_costs_nothing(engine, model) -> None:
    """Nothing runs before the first delta is asked for."""
    with counted_passes(model) as passes:
        engine.stream(LONG).close()

        assert not langnorm_threads()
        assert len(passes) == 0


async def test_closed_async_stream_stops_generation(engine, model) -> None:
    """`aclose` ends the forward passes within two steps."""
    with counted_passes(model) as passes:
        stream = engine.astream(LONG)
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        at_close = len(passes)
        await asyncio.to_thread(wait_until, lambda: not langnorm_threads())

        assert len(passes) <= at_close + 2


@pytest.mark.parametrize("num_requests", [1, 3])
async def test_cancelled_task_stops_generation(num_requests, engine, model) -> None:
    """Cancelling a task ends the forward passes of its requests within two steps."""
    with counted_passes(model) as passes:
        task = asyncio.create_task(engine.agenerate([LONG] * num_requests))
        await asyncio.to_thread(wait_until, lambda: len(passes) > 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        at_cancel = len(passes)
        await asyncio.to_thread(wait_until, lambda: not langnorm_threads())

        assert len(passes) <= at_cancel + 2


async def test_cancelled_task_leaves_its_batch_alone(engine, model) -> None:
    """Other callers whose rows share the batch of a cancelled task get their answers."""
    request = ask(PROMPTS[4], layers=ALL, max_tokens=60)
    with counted_passes(model) as passes, engine.expect(2):
        cancelled = asyncio.create_task(engine.agenerate([LONG]))
        other = asyncio.create_task(engine.agenerate([request]))
        await asyncio.to_thread(wait_until, lambda: len(passes) > 3)
        cancelled.cancel()
        (response,) = await asyncio.wait_for(other, 30)

    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert response.completions[0].token_ids == plain_tokens(model, PROMPTS[4], max_new_tokens=60)
    assert_norms(model, request, response.completions[0])


async def test_cancelled_reader_stops_stream(engine, model) -> None:
    """Cancelling the task that reads a stream stops it, also between two deltas."""

    async def read() -> None:
        async for _ in engine.astream(LONG):
            pass

    with counted_passes(model) as passes:
        task = asyncio.create_task(read())
        await asyncio.to_thread(wait_until, lambda: len(passes) > 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: not langnorm_threads())

        assert len(passes) < 300


@pytest.mark.parametrize("way", ["generate", "agenerate", "stream", "astream"])
async def test_timeout_stops_generation(way, engine, model) -> None:
    """A request that takes too long is an error, and its forward passes end."""
    request = ask(PROMPTS[1], max_tokens=480, timeout=0.05)

    async def consume() -> None:
        if way == "generate":
            await asyncio.to_thread(engine.generate, [request])
        elif way == "agenerate":
            await engine.agenerate([request])
        elif way == "stream":
            await asyncio.to_thread(lambda: list(engine.stream(request)))
        else:
            assert [delta async for delta in engine.astream(request)]

    with counted_passes(model) as passes:
        with pytest.raises(TimeoutError, match=r"timeout=0\.05"):
            await asyncio.wait_for(consume(), 30)
        await asyncio.to_thread(wait_until, lambda: not langnorm_threads())

        assert len(passes) < 300


def test_threads_get_their_own_norms(engine, model) -> None:
    """Concurrent calls never see each other's tokens or norms."""
    requests = [ask(PROMPTS[i % 4], layers=ALL[i % 3 :], max_tokens=10 + i) for i in range(8)]

    with ThreadPoolExecutor(4) as pool:
        completions = list(pool.map(lambda request: answer(engine, request), requests))

    for request, completion in zip(requests, completions, strict=True):
        expected = plain_tokens(model, request.prompt_ids, max_new_tokens=request.sampling.max_tokens)
        assert completion.token_ids == expected
        assert_norms(model, request, completion)


def test_concurrent_calls_share_forward_passes(engine, model, monkeypatch) -> None:
    """Announced calls from threads run as one batch, in as many passes as the longest needs."""
    monkeypatch.setattr(batching, "_LINGER_SECONDS", 10.0)  # a busy machine joins the same ones
    limits = (12, 3, 7, 9)
    requests = [ask(prompt, max_tokens=limit) for prompt, limit in zip(PROMPTS, limits, strict=False)]

    with counted_passes(model) as passes, engine.expect(4), ThreadPoolExecutor(4) as pool:
        completions = list(pool.map(lambda request: answer(engine, request), requests))

    assert passes.batch_sizes == [4] * 12
    assert [len(completion.token_ids) for completion in completions] == list(limits)


def test_concurrent_invokes_of_a_chat_have_right_traces(engine, model) -> None:
    """Each of several concurrent `invoke`s gets the norms of its own answer."""
    chat = ChatLangNorm(engine=engine, norms="tokens", layers="all", max_tokens=15)
    questions = ["One?", "What is two and two?", "Three", "Is it four or five, and why is it so?"]
    expected = [NormTrace.from_message(chat.invoke(question)) for question in questions]

    with ThreadPoolExecutor(4) as pool:
        traces = [NormTrace.from_message(reply) for reply in pool.map(chat.invoke, questions)]

    for trace, alone in zip(traces, expected, strict=True):
        assert trace.tokens == alone.tokens == 15
        assert len(trace.token_norms) == 14
        for row, row_alone in zip(trace.token_norms, alone.token_norms, strict=True):
            assert row == pytest.approx(row_alone, rel=1e-4)


def test_closed_stream_of_a_chat_stops_generation(engine, model) -> None:
    """Leaving `chat.stream` early reaches the engine."""
    chat = ChatLangNorm(engine=engine, max_tokens=400)
    with counted_passes(model) as passes:
        for _ in chat.stream("Tell me everything"):
            break
        wait_until(lambda: not langnorm_threads())

        assert len(passes) < 300


async def test_closed_async_stream_of_a_chat_stops_generation(engine, model) -> None:
    """Closing `chat.astream` early reaches the engine."""
    chat = ChatLangNorm(engine=engine, max_tokens=400)
    with counted_passes(model) as passes:
        stream = chat.astream("Tell me everything")
        await anext(stream)
        await stream.aclose()
        await asyncio.to_thread(wait_until, lambda: not langnorm_threads())

        assert len(passes) < 300


def test_stream_left_while_it_waits_is_never_run(engine, model) -> None:
    """A stream that times out behind a long answer leaves no pass to do."""
    stop = threading.Event()

    def occupy() -> None:
        for _ in engine.stream(ask(PROMPTS[1], max_tokens=480, max_batch_size=1)):
            if stop.is_set():
                return

    with counted_passes(model) as passes, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(occupy)
        wait_until(lambda: len(passes) > 2)
        with pytest.raises(TimeoutError):
            next(engine.stream(ask(PROMPTS[2], max_tokens=480, timeout=0.02)))
        stop.set()
        busy.result(30)
        wait_until(lambda: not langnorm_threads())
        num_passes = len(passes)
        time.sleep(0.05)

        assert len(passes) == num_passes < 480


def test_calls_after_each_other_are_equal(engine) -> None:
    """No call leaves anything in the model that changes the next one."""
    requests = [ask(prompt, layers=ALL, max_tokens=10) for prompt in PROMPTS]

    assert tokens(engine, requests) == tokens(engine, requests)
    assert engine.generate(requests) == engine.generate(requests)


@pytest.mark.parametrize("num_requests", [1, 3])
def test_timeout_ends_a_prefill_within_one_layer(num_requests, engine, model) -> None:
    """A prompt that nobody waits for any more is not run to the last layer."""
    layers, num_run = find_decoder_layers(model), []

    def run_slowly(_module: object, _inputs: object, _output: object) -> None:
        num_run.append(1)
        time.sleep(0.3)

    handles = [layer.register_forward_hook(run_slowly) for layer in layers]
    try:
        with pytest.raises(TimeoutError):
            engine.generate([ask(PROMPTS[2], max_tokens=480, timeout=0.1)] * num_requests)
        wait_until(lambda: not langnorm_threads())
    finally:
        for handle in handles:
            handle.remove()

    assert len(num_run) < len(layers)


def test_kept_error_keeps_no_tensors(engine, model, monkeypatch) -> None:
    """Whoever keeps an error for later keeps the lines of its traceback, and nothing of the batch."""
    kept, layer = [], find_decoder_layers(model)[2]

    def failing(hidden_states, *args, **kwargs):
        mine = hidden_states + 0
        kept.append(weakref.ref(mine))
        msg = "the layer is broken"
        raise ArithmeticError(msg) from ValueError("for a reason")

    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", failing)
        errors = ChatLangNorm(engine=engine, max_tokens=5).batch(["One?", "Two?"], return_exceptions=True)

    assert [type(error) for error in errors] == [ArithmeticError] * 2
    assert "failing" in "".join(traceback.format_exception(errors[0]))
    gc.collect()
    assert len(kept) >= 2
    assert all(tensor() is None for tensor in kept)
