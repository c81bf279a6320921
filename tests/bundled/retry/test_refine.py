"""A retry that refines goes on from the last good step, and its message is that of the whole answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from langnorm import ChatLangNorm, NormRetry, NormSelector, NormTrace
from langnorm.chat.answer_prefix import AnswerPrefix, prefix_of
from langnorm.errors import OptionError
from langnorm.middleware import NormRetryMiddleware
from langnorm.norms.thresholds import ReferenceThreshold
from langnorm.retry.attempts import Attempts
from langnorm.retry.escalation import NO_CHANGE, resolve_change, resolve_escalation, settings_for_refining
from langnorm.retry.policy import RetryPolicy
from langnorm.testing import ScriptedAnswer, ScriptedEngine, message_with_norms
from tests.bundled.test_chat_models import merged

QUESTION = "Start with 12. Add 30. Subtract 4. Multiply the result by 7. What is the result?"  # several steps
WHOLE = {"norms": "tokens", "logprobs": True, "top_logprobs": 2, "answer_prefix": AnswerPrefix()}
"""Settings under which a message says all there is, and can be gone on from."""


HALF = 0.5
"""As `low_below`: half of the model's steps are low."""


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


class Sum(BaseModel):
    """A sum."""

    total: int


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """A greedy Abacus."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=150)


@pytest.fixture(scope="module")
def whole(chat) -> Any:
    """The lone greedy answer, with all there is to know of it."""
    return chat.invoke(QUESTION, **WHOLE)


def agree(found: Any, expected: Any) -> None:
    """Asserts that two messages are of the same answer: tokens, texts, norms, steps, log-probabilities and usage."""
    assert found.content == expected.content
    assert found.additional_kwargs["reasoning_content"] == expected.additional_kwargs["reasoning_content"]
    ours, theirs = found.additional_kwargs["langnorm"], expected.additional_kwargs["langnorm"]
    assert ours["resume"]["token_ids"] == theirs["resume"]["token_ids"]
    assert ours["token_texts"] == theirs["token_texts"]
    np.testing.assert_allclose(ours["token_norms"], theirs["token_norms"], rtol=1e-4)
    one, other = NormTrace.from_message(found), NormTrace.from_message(expected)
    spans = [(step.kind, step.start, step.end, step.text_span) for step in one.steps]
    assert spans == [(step.kind, step.start, step.end, step.text_span) for step in other.steps]
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-4)
    assert one.intensity == pytest.approx(other.intensity, abs=2e-3)
    (ours, theirs) = (message.response_metadata["logprobs"]["content"] for message in (found, expected))
    assert [entry["token"] for entry in ours] == [entry["token"] for entry in theirs]
    np.testing.assert_allclose([e["logprob"] for e in ours], [e["logprob"] for e in theirs], atol=1e-3)
    assert [len(entry["top_logprobs"]) for entry in ours] == [2] * len(theirs)
    for name in ("input_tokens", "output_tokens", "output_token_details"):
        assert found.usage_metadata[name] == expected.usage_metadata[name]
    assert found.response_metadata["finish_reason"] == expected.response_metadata["finish_reason"]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.9, 1.0])
def test_a_continuation_is_the_lone_answer(chat, whole, share) -> None:
    """Greedy, from any of its beginnings: token by token and norm by norm."""
    most = len(whole.additional_kwargs["langnorm"]["resume"]["token_ids"]) - 1
    num_kept = round(share * most)
    prefix = prefix_of(whole, num_kept)
    agree(chat.invoke(QUESTION, **WHOLE | {"answer_prefix": prefix}), whole)


async def test_every_way_of_asking_goes_on(chat, whole) -> None:
    """Streams and the asynchronous twins too, and answers of a batch that begin differently."""
    settings = [WHOLE | {"answer_prefix": prefix_of(whole, number)} for number in (20, 3)]
    agree(await chat.ainvoke(QUESTION, **settings[0]), whole)
    agree(merged(list(chat.stream(QUESTION, **settings[0]))), whole)
    agree(merged([chunk async for chunk in chat.astream(QUESTION, **settings[1])]), whole)
    for message in RunnableLambda(lambda one: chat.invoke(QUESTION, **one)).batch(settings):
        agree(message, whole)


def test_what_was_kept_is_taken_over_exactly(chat, whole) -> None:
    """Its norms and log-probabilities are those of the first attempt, to the last digit."""
    found = chat.invoke(QUESTION, **WHOLE | {"answer_prefix": prefix_of(whole, 10), "temperature": 5.0, "seed": 3})
    ours, theirs = found.additional_kwargs["langnorm"], whole.additional_kwargs["langnorm"]
    assert ours["token_norms"][:10] == theirs["token_norms"][:10]
    assert ours["resume"]["token_ids"][:10] == theirs["resume"]["token_ids"][:10]
    assert ours["resume"]["token_ids"] != theirs["resume"]["token_ids"]
    ours, theirs = (message.response_metadata["logprobs"]["content"] for message in (found, whole))
    assert ours[:10] == theirs[:10]
    assert len(ours) == found.usage_metadata["output_tokens"]


def test_what_was_kept_is_learnt_once(chat, whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process compares later answers with it as often as it was generated."""
    monkeypatch.setattr("langnorm.norms.online.FEWEST_STEPS", 1)
    rule, online = ReferenceThreshold(warm_up=10), {"profile": None, "threshold": 40.0}
    for _ in range(12):  # until the process has seen enough
        chat.invoke(QUESTION, **WHOLE | online)

    def num_learnt() -> tuple[int, int]:
        snapshot = chat.engine.statistics.snapshot()
        return len(snapshot.step_intensities("layer", (9, 10)) or ()), snapshot.estimator(rule, (9, 10)).num_samples

    prefix = prefix_of(whole, 20)
    for changed in ({"threshold": 40.0}, {"threshold": rule}):
        before = num_learnt()
        found = NormTrace.from_message(chat.invoke(QUESTION, **WHOLE | online | changed | {"answer_prefix": prefix}))
        num_steps, num_rows = (now - then for now, then in zip(num_learnt(), before, strict=True))
        assert num_steps == sum(step.start >= 20 for step in found.steps) < len(found.steps)
        assert num_rows == (found.tokens - 1 - 20 if changed["threshold"] is rule else 0)


@pytest.mark.parametrize("num_kept", range(1, 8))
def test_stop_texts_are_found_across_the_border(chat, num_kept) -> None:
    """A stop text that begins in what was kept ends the answer where it would have ended."""
    expected = chat.invoke(QUESTION, **WHOLE, stop=["42"])
    assert expected.response_metadata["finish_reason"] == "stop"
    ids = expected.additional_kwargs["langnorm"]["resume"]["token_ids"]
    found = chat.invoke(QUESTION, **WHOLE | {"answer_prefix": prefix_of(expected, len(ids) - num_kept)}, stop=["42"])
    agree(found, expected)


def test_max_tokens_is_of_the_whole_answer(chat, whole) -> None:
    """What was kept counts, and leaves room."""
    found = chat.invoke(QUESTION, **WHOLE | {"answer_prefix": prefix_of(whole, 20)}, max_tokens=25)
    assert found.usage_metadata["output_tokens"] == 25
    assert found.response_metadata["finish_reason"] == "length"
    with pytest.raises(OptionError, match="`max_tokens=20` allows no more"):
        chat.invoke(QUESTION, **WHOLE | {"answer_prefix": prefix_of(whole, 20)}, max_tokens=20)


def test_cached_tokens_are_those_of_the_prompt(chat, whole) -> None:
    """What an answer begins with is in the cache too, and is none of the prompt's tokens."""
    usage = chat.invoke(QUESTION, **WHOLE | {"answer_prefix": prefix_of(whole, 40)}).usage_metadata
    assert 0 < usage["input_token_details"]["cache_read"] <= usage["input_tokens"]


def test_a_retry_keeps_the_steps_before_the_first_low_one(chat) -> None:
    """The message is one answer, says how much was kept, and shows nothing of what the next retry would need."""
    first = chat.invoke(QUESTION, low_below=HALF, norms="tokens")
    steps = NormTrace.from_message(first).steps
    low = next(number for number, step in enumerate(steps) if step.low)
    assert low > 0, "the test needs a good beginning"
    retry = NormRetry(chat, escalation="refine", max_low_share=0.0, max_attempts=2, on_exhausted="last")
    found = retry.invoke(QUESTION, low_below=HALF, norms="tokens")

    trace = NormTrace.from_message(found)
    settings = found.response_metadata["langnorm"]["attempts"][1]["settings"]
    assert settings["refine"] == steps[low].start
    assert set(settings) == {"refine", "seed", "temperature"}
    kept = steps[low].start
    of_first = NormTrace.from_message(first)  # asked again, and so rounded otherwise on some engines
    np.testing.assert_allclose(trace.token_norms[:kept], of_first.token_norms[:kept], rtol=1e-4)
    assert trace.token_texts[:kept] == of_first.token_texts[:kept]
    assert [(step.start, step.end) for step in trace.steps[:low]] == [(step.start, step.end) for step in steps[:low]]
    assert trace.tokens == found.usage_metadata["output_tokens"]
    of_tokens = {"token_ids", "token_norms", "token_percentiles", "token_distances", "token_texts"}
    assert set(found.additional_kwargs["langnorm"]) == of_tokens
    assert "langnorm" not in retry.invoke(QUESTION, low_below=HALF).additional_kwargs


async def test_retries_refine_however_they_are_asked(chat) -> None:
    """Ainvoke and batch give what invoke gives, a model with settings bound too."""
    retry = NormRetry(
        chat.bind(low_below=HALF, seed=4), escalation="refine", max_low_share=0.0, max_attempts=3, on_exhausted="last"
    )
    found = retry.invoke(QUESTION)
    assert (await retry.ainvoke(QUESTION)).content == found.content
    assert [message.content for message in retry.batch([QUESTION] * 2)] == [found.content] * 2
    assert all("refine" in one["settings"] for one in found.response_metadata["langnorm"]["attempts"][1:])


def test_an_agents_middleware_refines(chat) -> None:
    """With tools that it may call or not; the message has nothing that only a retry needs."""
    middleware = NormRetryMiddleware(escalation="refine", max_low_share=0.0, max_retries=1, on_exhausted="last")
    agent = create_agent(chat.model_copy(update={"low_below": HALF}), tools=[], middleware=[middleware])
    message = agent.invoke({"messages": [("human", QUESTION)]})["messages"][-1]
    assert message.response_metadata["langnorm"]["attempts"][1]["settings"]["refine"] > 0
    assert "langnorm" not in message.additional_kwargs


@pytest.mark.parametrize(
    ("wrap", "settings", "words"),
    [
        (lambda chat: chat.with_selection(n=2), {"temperature": 1.0}, "`selection=None`"),
        (lambda chat: NormSelector(chat, n=2), {"temperature": 1.0}, "`selection=None`"),
        (lambda chat: chat, {"response_format": Sum}, "a schema or a forced call"),
        (lambda chat: chat, {"distribution": True}, "`distribution=True`"),
        (lambda chat: chat, {"lens": True}, "a `lens`"),
        (lambda chat: chat.bind_tools([weather], tool_choice="any"), {}, "a schema or a forced call"),
        (lambda chat: chat, {"steering": {}}, "`steering=None`"),
        (lambda chat: chat.bind(suppression={}), {}, "`suppression=None`"),
    ],
)
def test_where_it_cannot_work_it_is_refused(wrap, settings, words) -> None:
    """Before anything is computed."""
    engine = ScriptedEngine(["a"])
    retry = NormRetry(wrap(ChatLangNorm(engine=engine)), escalation=["resample", "refine"])
    with pytest.raises(OptionError) as caught:
        retry.invoke(QUESTION, **settings)
    assert words in str(caught.value)
    assert not engine.requests


@pytest.mark.parametrize(
    ("prefix", "settings", "words"),
    [
        ("a", {}, "`answer_prefix='a'` is not allowed"),
        (AnswerPrefix(token_ids=(1, 2), layers=(2,), norms=((1.0,), (1.0,))), {"layers": [1]}, "the same `layers`"),
        (AnswerPrefix(token_ids=(1, 2), layers=(2,), norms=((1.0,),)), {"layers": [2]}, "the same `layers`"),
        (AnswerPrefix(token_ids=(1,)), {"norms": "off", "logprobs": True}, "`logprobs=True`"),
        (AnswerPrefix(token_ids=(1,)), {"norms": "off", "max_tokens": 1}, "allows no more"),
    ],
)
def test_beginnings_that_do_not_fit_are_refused(prefix, settings, words) -> None:
    """With what does not fit, and the mend."""
    engine = ScriptedEngine(["a"])
    with pytest.raises(OptionError) as caught:
        ChatLangNorm(engine=engine).invoke(QUESTION, answer_prefix=prefix, **settings)
    assert words in str(caught.value)
    assert not engine.requests


def test_without_norms_a_beginning_is_only_text() -> None:
    """It is put behind the prompt, and said again."""
    engine = ScriptedEngine([ScriptedAnswer(" is 4.")])
    ids = engine.tokenizer("The answer", add_special_tokens=False)["input_ids"]
    message = ChatLangNorm(engine=engine, norms="off").invoke(
        QUESTION, answer_prefix=AnswerPrefix(token_ids=tuple(ids))
    )
    assert message.content == "The answer is 4."
    assert list(engine.requests[0].prompt_ids[-len(ids) :]) == ids
    assert "langnorm" not in message.response_metadata


def test_steps_that_refine_are_checked() -> None:
    """They may have settings that hold from the kept tokens on, and no others."""
    assert resolve_escalation("refine") == ({"refine": True},)
    steps = resolve_escalation(["refine", {"refine": True, "temperature": 1.0}, {"refine": False}])
    assert resolve_escalation(steps) == steps
    for step, words in (
        ({"refine": 3}, "`refine=3` of `escalation`"),
        ({"refine": True, "recursion": {}}, "cannot set `recursion`"),
        ({"refine": True, "layers": "all"}, "cannot set `layers`"),
        ({"refine": True, "temprature": 1}, "Did you mean `temperature`"),
    ):
        with pytest.raises(OptionError) as caught:
            resolve_escalation([step])
        assert words in str(caught.value)


def beginning_of(message: Any) -> AnswerPrefix | None:
    """Returns what is good of the only attempt, with this message."""
    attempts = Attempts(RetryPolicy())
    attempts.add({}, message)
    return attempts.best.good_beginning


def test_where_nothing_is_good_it_draws_again(chat, whole) -> None:
    """With the first step low, with a model of another package, and where the message lacks what it needs."""
    steps, beginning = resolve_escalation("refine"), prefix_of(whole, 5)
    for intensities in ([0.0, 0.9], [0.9, 0.0]):
        assert beginning_of(message_with_norms(["a ", "b "], intensities=intensities)) is None
    assert beginning_of(chat.invoke(QUESTION, **WHOLE, low_below=1.0)) is None
    assert resolve_change(steps, 1, chat, {}, beginning).settings["answer_prefix"] == beginning
    assert "answer_prefix" not in resolve_change(steps, 1, chat, {}).settings
    fake = FakeListChatModel(responses=["a"])
    assert "answer_prefix" not in resolve_change(steps, 1, fake, {}, beginning).settings
    assert settings_for_refining(steps, fake, NO_CHANGE) == {}
    assert settings_for_refining(steps, chat.with_fallbacks([fake]), NO_CHANGE) == {}
    assert settings_for_refining(resolve_escalation("resample"), chat, NO_CHANGE) == {}
    assert settings_for_refining(steps, chat.bind(temperature=1), NO_CHANGE) == {"answer_prefix": AnswerPrefix()}


def test_a_message_that_was_tampered_with_is_refused(whole) -> None:
    """What it carries is checked whole."""
    extra = whole.additional_kwargs["langnorm"]
    broken = whole.model_copy(update={"additional_kwargs": {"langnorm": {**extra, "resume": {"token_ids": [-1]}}}})
    with pytest.raises(OptionError, match="Take it as the model gave it"):
        prefix_of(broken, 1)
    with pytest.raises(OptionError, match="Ask for fewer"):
        prefix_of(whole, 10_000)
