"""What stands in front of vLLM, with a script in its place."""

from __future__ import annotations

import asyncio
import gc
import os
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from langnorm.engines.deadline import Deadline
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Partial, PrefixHit, Record, Request
from langnorm.engines.vllm import scheduler
from langnorm.engines.vllm.engine import VllmEngine
from langnorm.engines.vllm.scoring import PendingText, TextScorer
from langnorm.errors import OptionError, PromptError
from langnorm.interventions.options import Recursion, Suppression
from langnorm.interventions.plan import Plan, Plans
from tests.support.calls import answer, answers, langnorm_threads, wait_until
from tests.support.scripted_vllm import ScriptedCore

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS = (20, 21, 22, 23, 24)
PLANS = {
    "recursion": Plans(recursion=Plan(Recursion(), (1, 2), (1.0, 1.0))),
    "suppression": Plans(suppression=Plan(Suppression(), (1, 2), (1.0, 1.0))),
}


@pytest.fixture
def core() -> ScriptedCore:
    """Returns a script."""
    return ScriptedCore(WORDS)


@pytest.fixture
def engine(core, tokenizer) -> VllmEngine:
    """Returns an engine over it."""
    return VllmEngine(core, tokenizer, "0123", name="scripted")


def test_what_the_model_says_of_itself(engine, tokenizer) -> None:
    """Its name, its sizes, its sampling, and what a profile of it is tied to."""
    assert (engine.kind, engine.name, engine.num_layers, engine.context_length) == ("vllm", "scripted", 4, 64)
    assert engine.tokenizer is tokenizer
    assert engine.sampling_defaults["temperature"] == 0.5
    assert (engine.identity.model, engine.identity.weights, engine.identity.dtype) == ("Scripted", "0123", "float32")
    assert engine.profile is None
    assert engine.num_waiting == 0


def test_tokens_norms_and_logprobs(engine, core) -> None:
    """Of the answer and the prompt, in the columns of the layers that were asked for."""
    record = Record(layers=(1, 3), prompt=True, distribution=True)
    request = Request((5, 6), Sampling(max_tokens=3), record, top_logprobs=1)
    plain = Request((5,), Sampling(max_tokens=2))
    completion, other = answers(engine, [request, plain])
    assert completion.token_ids == [20, 21, 22]
    assert completion.finish_reason == "length"
    assert completion.prompt_norms == [[11, 13], [21, 23]]
    assert completion.norms == [[31, 33], [41, 43]]
    assert [(token.logprob, token.top) for token in completion.logprobs] == [(-0.5, ((3, -0.1),))] * 3
    assert list(completion.reductions.distribution.logprob) == [-0.5] * 3
    assert (other.token_ids, other.norms, other.logprobs) == ([20, 21], [], [])
    assert len(core.forgotten) == 1  # of the other one nothing was noted
    assert completion.prefix_hit is None
    core.num_cached = 2
    assert answer(engine, plain).prefix_hit == PrefixHit(2, 128)


def test_ends(engine, core, tokenizer) -> None:
    """An end token is the last one; a text that stops is cut, and vLLM is told to stop."""
    core.answer = [20, 7, 21]
    assert answer(engine, Request((5,), Sampling())).token_ids == [20, 7]
    core.answer = tokenizer.encode("one two three")
    stopped = answer(engine, Request((5,), Sampling(stop=("tw",), max_tokens=50)))
    assert "".join(stopped.pieces) == "one "
    assert stopped.finish_reason == "stop"
    assert len(core.aborted) == 1
    assert not core.running


def test_streams(engine, core) -> None:
    """Text comes token by token; one that is closed, or whose timeout is over, is given up."""
    pieces = [piece for delta in engine.stream(Request((5,), Sampling(max_tokens=4))) for _, piece in delta.pieces]
    assert "".join(pieces) == "".join(answer(engine, Request((5,), Sampling(max_tokens=4))).pieces)
    stream = engine.stream(Request((5,), Sampling(max_tokens=60), Record(layers=(1,))))
    next(stream)
    stream.close()
    wait_until(lambda: not core.running)
    wait_until(lambda: not langnorm_threads())


@pytest.mark.parametrize("has_prompt", [False, True])
def test_streams_have_norms(engine, core, monkeypatch, has_prompt) -> None:
    """Each row once and in order, as the workers have them; what is missing comes with the completion."""
    monkeypatch.setattr(scheduler, "_SECONDS_BETWEEN_NORMS", 0.0)
    record = Record(layers=(1, 3), prompt=has_prompt, live=True)
    request = Request((5, 6), Sampling(max_tokens=6), record)
    *deltas, last = engine.stream(request)
    live = [row for delta in deltas for row in delta.norms]
    assert [token_id for token_id, _ in live] == last.completion.token_ids[:4]
    assert [row for _, row in live] == last.completion.norms[:4]
    assert last.completion == answer(engine, request)
    assert core.num_asked == 4


def test_workers_are_not_asked_for_norms_at_every_token(engine, core, monkeypatch) -> None:
    """But after some time, once for all streams; and not for streams that show none."""
    monkeypatch.setattr(scheduler, "_SECONDS_BETWEEN_NORMS", 3600.0)
    request = Request((5,), Sampling(max_tokens=20), Record(layers=(1,), live=True))
    *deltas, last = engine.stream(request)
    assert core.num_asked == 1
    assert sum(len(delta.norms) for delta in deltas) == 1
    assert len(last.completion.norms) == 19
    list(engine.stream(replace(request, record=Record(layers=(1,)))))
    answer(engine, request)
    assert core.num_asked == 1


def test_rows_that_were_run_again_stay_what_a_stream_has_shown(tokenizer, monkeypatch) -> None:
    """A token may be run twice, and be rounded otherwise; one that is missing for a while is waited for."""
    monkeypatch.setattr(scheduler, "_SECONDS_BETWEEN_NORMS", 0.0)

    class Preempting(ScriptedCore):
        def norms(self, *args: Sequence) -> list[bytes]:
            found = super().norms(*args)
            if self.num_asked == 3:
                self.rounding, self.missing_rows = 1.0, 2
            elif self.num_asked == 6:
                self.missing_rows = 0
            return found

    engine = VllmEngine(Preempting(WORDS), tokenizer, None)
    *deltas, last = engine.stream(Request((5,), Sampling(max_tokens=10), Record(layers=(1,), live=True)))
    assert [len(delta.norms) for delta in deltas if not delta.pieces] == [1, 1, 1, 1, 3, 1]
    live = [row for delta in deltas for _, row in delta.norms]
    assert live == last.completion.norms[:8]
    assert last.completion.norms == [[10.0 * row + (1 if row <= 3 else 2)] for row in range(1, 10)]


def test_tasks(engine) -> None:
    """The asynchronous twins give the same."""
    request = Request((5,), Sampling(max_tokens=4))

    async def ask() -> tuple[list[int], str]:
        whole = await engine.agenerate([request])
        pieces = [piece async for delta in engine.astream(request) for _, piece in delta.pieces]
        return whole[0].completions[0].token_ids, "".join(pieces)

    token_ids, text = asyncio.run(ask())
    completion = answer(engine, request)
    assert (token_ids, text) == (completion.token_ids, "".join(completion.pieces))


def test_pruners_see_and_stop_samples(engine, core) -> None:
    """With their norms as they were after so many tokens."""
    seen: list[Partial] = []

    class Pruner:
        every = 3

        def stopped(self, samples: Sequence[Partial]) -> list[int]:
            seen.extend(samples)
            return [1] if len(samples) > 1 else []

    request = Request((5,), Sampling(max_tokens=6, n=2), Record(layers=(0,)), pruner=Pruner())
    first, second = engine.generate([request])[0].completions
    assert (first.finish_reason, len(first.token_ids)) == ("length", 6)
    assert (second.finish_reason, len(second.token_ids)) == ("pruned", 3)
    assert seen[0].norms == [[10.0], [20.0]]
    assert len(core.aborted) == 1


def test_texts_are_scored(engine, core) -> None:
    """The tokens after the prompt, of which an empty continuation has none; what cannot be scored is refused."""
    likelihoods = engine.score([(5, 6), (5,), (5,), (5, 6, 7)], [(8, 9, 3), (3,), (), (9,)])
    assert [likelihood.token_logprobs for likelihood in likelihoods] == [(-0.8, -0.9, -0.3), (-0.3,), (), (-0.9,)]
    assert [likelihood.is_greedy for likelihood in likelihoods] == [False, True, True, False]
    assert not core.texts
    engine.score([(5,) * 63], [(9,)])
    with pytest.raises(PromptError, match="need 64 tokens, and there is no room for more than 63"):
        engine.score([(5,) * 63], [(9, 9)])


def test_texts_and_answers_run_beside_each_other(engine) -> None:
    """Each gets its own."""
    request = Request((5,), Sampling(max_tokens=30), Record(layers=(1,)))
    whole = answer(engine, request)
    with ThreadPoolExecutor(8) as pool:
        generated = [pool.submit(answer, engine, request) for _ in range(4)]
        scored = [pool.submit(engine.score, [(5,), (6,)], [(8, number), (number,)]) for number in range(10, 30)]
        assert all(future.result() == whole for future in generated)
        for number, future in enumerate(scored, 10):
            first, second = future.result()
            assert (first.token_logprobs, second.token_logprobs) == ((-0.8, -number / 10), (-number / 10,))


def test_errors_of_texts(engine, core) -> None:
    """One that vLLM does not take, gives up or fails with ends its call, and the others of that call are given up."""
    core.refusal = ValueError("not this one")
    with pytest.raises(ValueError, match="not this one"):
        engine.score([(5,)], [(8,)])
    core.refusal = None
    core.lost = RuntimeError("vLLM gave the sequence up (abort).")
    with pytest.raises(RuntimeError, match="gave the sequence up"):
        engine.score([(5,), (5,)], [(8,), (9,)])
    core.error = ValueError("out of luck")
    with pytest.raises(ValueError, match="out of luck"):
        engine.score([(5,)], [(8,)])
    wait_until(lambda: not langnorm_threads())
    assert not core.texts
    assert engine.score([(5,)], [(8,)])[0].token_logprobs == (-0.8,)


def test_texts_that_nobody_waits_for_are_given_up(engine, core, monkeypatch) -> None:
    """Those that vLLM is running, and those that it has not got."""
    core.holds_texts = True

    def interrupt(_deadline: Deadline, _future: Future) -> None:
        wait_until(lambda: len(core.texts) == 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Deadline, "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.score([(5,), (5,)], [(8,), (9,)])
    wait_until(lambda: not core.texts)
    wait_until(lambda: not langnorm_threads())
    assert len(core.aborted) == 2
    waiting = PendingText("waiting", (5,), (8,))
    scorer = TextScorer(core)
    scorer.submit([waiting])
    scorer.cancel()
    scorer.begin()
    assert not core.texts
    assert isinstance(waiting.future.exception(timeout=0), CancelledError)


def test_errors_end_what_was_running(engine, core) -> None:
    """An error of a step ends all, one of a sequence ends that one; the next call works."""
    core.error = ValueError("out of luck")
    with pytest.raises(ValueError, match="out of luck"):
        answer(engine, Request((5,), Sampling(max_tokens=2)))
    assert not core.running
    core.lost = RuntimeError("vLLM gave the sequence up (abort).")
    with pytest.raises(RuntimeError, match="gave the sequence up"):
        answer(engine, Request((5,), Sampling(max_tokens=2)))
    core.missing_rows = 1
    with pytest.raises(RuntimeError, match="1 rows of norms came back for 3 tokens"):
        answer(engine, Request((5,), Sampling(max_tokens=3), Record(layers=(1,))))
    core.missing_rows = 0
    assert answer(engine, Request((5,), Sampling(max_tokens=2))).token_ids == [20, 21]


def test_what_cannot_be_done_is_refused(engine, core, tokenizer) -> None:
    """Before anything is computed, with the reason."""

    def refused(request: Request, match: str, by: VllmEngine = engine) -> None:
        with pytest.raises((OptionError, PromptError), match=match):
            by.generate([request])

    refused(Request((), Sampling()), "empty")
    refused(Request((5, 4000), Sampling()), "token id `4000`")
    refused(Request((5,) * 64, Sampling()), "leaves no room")
    refused(Request((5,), Sampling(), Record(layers=(1,), states=True)), "record hidden states")
    refused(Request((5,), Sampling(), Record(layers=(9,))), "Layer `9`")
    below = Plans(recursion=Plan(Recursion(block=3), (1,), (1.0,)))
    refused(Request((5,), Sampling(), plans=below), "reaches below the first layer")
    core.reason_against_recursion = "of the trial"
    refused(Request((5,), Sampling(), plans=PLANS["recursion"]), "not possible with this model on vLLM: of the trial")
    engine.check(Request((5,), Sampling(), plans=PLANS["suppression"]))
    compiled = VllmEngine(ScriptedCore(WORDS, can_act=False), tokenizer, None)
    refused(Request((5,), Sampling(), plans=PLANS["suppression"]), "compiled into a graph", compiled)


def test_norms_are_learned_unless_they_were_acted_on(engine) -> None:
    """What others are compared with is the model's own."""
    request = Request((5,), Sampling(max_tokens=60, n=20), Record(layers=(1,)))
    engine.generate([request])
    num_samples = engine.statistics.snapshot().select((1,)).num_samples
    assert num_samples > 0
    engine.generate([replace(request, plans=PLANS["suppression"])])
    assert engine.statistics.snapshot().select((1,)).num_samples == num_samples


def test_the_prefix_cache_is_cleared(engine, core) -> None:
    """On the thread that runs the model."""
    engine.clear_prefix_cache()
    assert core.num_resets == 1


def test_an_engine_that_nobody_holds_is_closed(core, tokenizer) -> None:
    """Its processes end with it."""
    engine = VllmEngine(core, tokenizer, None)
    answer(engine, Request((5,), Sampling(max_tokens=2)))
    wait_until(lambda: not langnorm_threads())
    del engine
    gc.collect()
    assert core.is_closed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_fork_says_that_it_cannot(engine) -> None:
    """It has no connection of its own to vLLM."""
    engine._scheduler.reset()
    with pytest.raises(RuntimeError, match="A model of vLLM cannot be used in a fork"):
        answer(engine, Request((5,), Sampling(max_tokens=2)))
