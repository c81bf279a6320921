"""Selections on Abacus draw no more samples than they need, however they are asked, and the same ones as ever."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langnorm import ChatLangNorm, NormSelector
from langnorm.engines.requests import Response
from langnorm.selection.stopping import STOP_RULES
from langnorm.testing import ScriptedEngine
from tests.bundled.test_chat_models import facts, merged
from tests.reference.stopping import reference_beta, reference_confidence, reference_weights, reference_window
from tests.support.selections import QUESTION, ranking

# Answers are kept short, and some are cut off.
pytestmark = pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")

EASY = "Start with 2. Add 3. What is the result?"
QUESTIONS = [QUESTION, EASY, "Start with 47. Add 38. Multiply by 3. What is it?"]


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Abacus with samples that differ, the same ones in every call."""
    return ChatLangNorm(temperature=1.0, seed=5, max_tokens=64)


def drawn_by(rule: str, votes: list[str | None], scores: list[float | None], window: int, above: float) -> int:
    """Returns after how many samples the rule stops, given what a full call has, by the reference."""
    for number in range(window, len(votes), window):
        so_far = votes[:number]
        if rule == "unanimous":
            is_enough = reference_window(so_far, window) is not None
        elif rule == "beta":
            lead = reference_beta(so_far)
            is_enough = lead is not None and lead[1] > above
        else:
            weights = reference_weights(scores[:number])
            is_enough = max(reference_confidence(so_far, weights).values(), default=0) > above
        if is_enough:
            return number
    return len(votes)


def essence(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Returns what candidates are, without how they compare."""
    return [tuple(one[name] for name in ("text", "answer", "tokens", "finish_reason")) for one in found["candidates"]]


OPTIONS: dict[str, Any] = {"n": 12, "score": "mean_logprob"}


@pytest.fixture(scope="module")
def full_rankings(chat) -> dict[str, dict[str, Any]]:
    """All twelve samples of each question."""
    return dict(zip(QUESTIONS, map(ranking, NormSelector(chat, **OPTIONS).batch(QUESTIONS)), strict=True))


@pytest.mark.parametrize("window", [2, 5])
@pytest.mark.parametrize("rule", STOP_RULES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_samples_are_those_of_a_full_call(chat, full_rankings, question, rule, window) -> None:
    """Sample i is the same as without a rule, and the draw ends where the reference would end it."""
    above, full = 0.8, full_rankings[question]
    threshold = {} if rule == "unanimous" else {"stop_above": above}
    found = ranking(NormSelector(chat, **OPTIONS, stop=rule, window=window, **threshold).invoke(question))

    assert essence(found) == essence(full)[: found["drawn"]]
    votes = [one["answer"] if one["finish_reason"] == "stop" else None for one in full["candidates"]]
    scores = [one["score"] for one in full["candidates"]]
    assert found["drawn"] == len(found["candidates"]) == drawn_by(rule, votes, scores, window, above)
    assert found["samples_saved"] == 12 - found["drawn"]
    assert (found["settled"] is None) is (found["drawn"] == 12)
    if found["settled"]:
        assert found["candidates"][found["chosen"]]["answer"] == found["settled"]["answer"]
        assert found["settled"]["value"] == 1 if rule == "unanimous" else found["settled"]["value"] > above


async def test_every_way_of_asking_draws_the_same(chat) -> None:
    """invoke, ainvoke, batch, abatch and both streams agree, metadata and usage included."""
    options = {"n": 12, "stop": "beta", "window": 2}
    selector = NormSelector(chat, **options)
    expected = facts(selector.invoke(EASY))

    assert 1 < ranking(selector.invoke(EASY))["drawn"] < 12
    assert facts(await selector.ainvoke(EASY)) == expected
    assert facts(merged(list(selector.stream(EASY)))) == expected
    assert facts(merged([chunk async for chunk in selector.astream(EASY)])) == expected
    assert facts(selector.batch([EASY, QUESTION])[0]) == expected
    assert facts((await selector.abatch([QUESTION, EASY]))[1]) == expected
    assert facts(chat.with_selection(**options).invoke(EASY)) == expected
    assert facts(chat.invoke(EASY, selection=options)) == expected


def test_usage_counts_what_was_drawn(chat) -> None:
    """And nothing else."""
    message = NormSelector(chat, n=12, stop="unanimous", window=2).invoke(EASY)
    found = ranking(message)
    assert found["drawn"] < 12
    assert message.usage_metadata["output_tokens"] == sum(one["tokens"] for one in found["candidates"])


@pytest.mark.transformers_engine
def test_windows_of_a_batch_run_together(chat, monkeypatch) -> None:
    """Prompts that need as many windows share their batches; nothing is drawn ahead."""
    engine = chat.loaded_engine()
    sizes: list[int] = []
    complete = engine._batcher._attempt
    monkeypatch.setattr(engine._batcher, "_attempt", lambda group: sizes.append(len(group)) or complete(group))
    replies = NormSelector(chat, n=6, stop="beta", window=2, stop_above=0.999).batch(QUESTIONS)

    assert [ranking(reply)["drawn"] for reply in replies] == [6] * 3
    assert max(sizes) == 6  # a batch that has hardly begun may be begun again with those that came later
    assert sizes.count(6) == 3


@pytest.mark.transformers_engine
def test_later_windows_find_the_prompt_in_the_prefix_cache() -> None:
    """It is run once, and the message says nothing of an earlier call that had run it."""
    chat = ChatLangNorm(temperature=1.0, seed=5, max_tokens=20)
    question = "Add up one and two. " * 10 + QUESTION  # shorter prompts are not worth it
    engine = chat.loaded_engine()
    options = {"selection": {"n": 4, "stop": "beta", "window": 2, "stop_above": 0.999}}
    call = chat._prepare(chat._convert_input(question).to_messages(), None, options)
    engine.clear_prefix_cache()
    completions = engine.generate([call.request])[0].completions
    assert [completion.prefix_hit is not None for completion in completions] == [False, False, True, True]
    engine.clear_prefix_cache()
    assert "input_token_details" not in chat.invoke(question, **options).usage_metadata


def test_a_window_counts_for_the_timeout(chat) -> None:
    """The time of a call is that of all its windows together."""
    with pytest.raises(TimeoutError):
        NormSelector(chat, n=10_000, stop="beta", stop_above=0.999999, window=2).invoke(QUESTION, timeout=1.0)
    assert NormSelector(chat, n=2).invoke(EASY).content


async def test_a_cancelled_draw_leaves_nothing_behind(chat) -> None:
    """The next call works."""
    import asyncio

    selector = NormSelector(chat, n=10_000, stop="beta", stop_above=0.999999, window=2)
    task = asyncio.create_task(selector.ainvoke(QUESTION))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await NormSelector(chat, n=2).ainvoke(EASY)).content


def scripted(answers: list[str]) -> ChatLangNorm:
    """Returns a chat model that gives these answers."""
    return ChatLangNorm(engine=ScriptedEngine(answers), temperature=1)


@given(st.lists(st.sampled_from(["The answer is 4.", "The answer is 5.", "Who knows?"]), min_size=8, max_size=8))
@settings(max_examples=25, deadline=None)
def test_any_answers_stop_where_the_reference_stops(texts: list[str]) -> None:
    """With answers that cannot be read among them, by any rule."""
    votes = [text.split()[-1].rstrip(".") if "answer" in text else None for text in texts]
    for rule in STOP_RULES:
        selector = NormSelector(scripted(texts), n=8, stop=rule, window=2, answer="number", score="mean_logprob")
        found = ranking(selector.invoke("?"))
        assert found["drawn"] == drawn_by(rule, votes, [0.0] * 8, 2, 0.95)


def test_an_engine_that_knows_no_windows_refuses_them(chat) -> None:
    """Before it computes anything; all n at once it can do."""

    class Plain(ScriptedEngine):
        abilities = ScriptedEngine.abilities - {"windows"}

        def generate(self, requests: Any) -> list[Response]:
            for request in requests:
                self.check(request)
            return super().generate(requests)

    plain = ChatLangNorm(engine=Plain(["4"] * 9), temperature=1)
    with pytest.raises(ValueError, match="cannot draw samples until they suffice"):
        NormSelector(plain, n=8, stop="beta").invoke("?")
    assert not plain.engine.requests
    assert ranking(NormSelector(plain, n=5, stop="beta").invoke("?"))["drawn"] == 5


def test_an_error_of_a_users_reader_ends_the_call(chat) -> None:
    """It is raised as it is, in a batch for its own input, and the engine goes on."""

    def read(text: str) -> str:
        if "5" in text:
            msg = "five"
            raise RuntimeError(msg)
        return text

    selector = NormSelector(chat, n=6, stop="beta", window=2, answer=read)
    found = selector.batch([EASY, "Start with 10. Add 10. What is the result?"], return_exceptions=True)
    assert isinstance(found[0], RuntimeError)
    assert chat.invoke(EASY).content


async def test_the_event_loop_does_not_read_the_answers_of_windows(chat) -> None:
    """That takes its time where they are long or many."""
    threads: list[threading.Thread] = []

    def read(text: str) -> str:
        threads.append(threading.current_thread())
        return text

    reply = await NormSelector(chat, n=6, stop="beta", window=2, stop_above=0.999, answer=read).ainvoke(EASY)
    assert len(threads) >= ranking(reply)["drawn"] == 6
    assert threading.current_thread() not in threads
