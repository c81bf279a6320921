"""Attempts are judged by their low steps, the best is kept, and its message says what became of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage

from langnorm import ChatLangNorm, NormTrace, Recursion
from langnorm.errors import OptionError, WeakReasoningError
from langnorm.retry.attempts import (
    Attempts,
    low_share,
    to_plain,
    with_metadata,
)
from langnorm.retry.policy import RetryPolicy
from langnorm.trace import NormStep


def trace(*low: bool | None, intensity: float | None = 0.5) -> NormTrace:
    """Returns the trace of a message with these steps."""
    steps = tuple(
        NormStep(i, i + 1, "answer", (i, i + 1), (1.0,), None if is_low is None else 0.5, is_low)
        for i, is_low in enumerate(low)
    )
    return NormTrace(tokens=len(low), layers=(3,), mean=(1.0,), steps=steps, intensity=intensity)


def answer(*low: bool | None, intensity: float | None = 0.5, reason: str = "stop", calls: bool = False) -> AIMessage:
    """Returns a message with these steps."""
    call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
    return AIMessage(
        "text",
        tool_calls=[call] if calls else [],
        usage_metadata={"input_tokens": 3, "output_tokens": 9, "total_tokens": 12},
        response_metadata={"finish_reason": reason, "langnorm": trace(*low, intensity=intensity).to_dict()},
    )


def attempts(*messages: AIMessage | Exception, **options: Any) -> Attempts:
    """Returns attempts that came out like this."""
    found = Attempts(RetryPolicy(**options))
    for i, message in enumerate(messages):
        if isinstance(message, Exception):
            found.fail({"seed": i}, message)
        else:
            found.add({"seed": i}, message)
    return found


@pytest.mark.parametrize(
    ("low", "share"),
    [
        ((True, False, False, False), 0.25),
        ((True, None, False), 0.5),
        ((False,), 0.0),
        ((None, None), None),
        ((), None),
    ],
)
def test_low_share_is_that_of_the_known_steps(low, share) -> None:
    """Steps of unknown intensity count neither way; with none known there is no share."""
    assert low_share(trace(*low)) == share


def test_finished_answers_come_before_those_that_were_cut_short() -> None:
    """A weak answer that is whole is better than the beginning of a good one, and does not suffice."""
    found = attempts(answer(True), answer(False, reason="length"))
    assert found.best.settings == {"seed": 0}
    assert found.need_retry


@pytest.mark.parametrize(
    "end",
    [{"stop_reason": "max_tokens"}, {"finish_reason": "MAX_TOKENS"}, {"finish_reason": "content_filter"}],
)
def test_the_words_of_other_models_for_being_cut_short_are_known(end) -> None:
    """As a selection knows them; what is kept and what is said follows."""
    found = attempts(answer(True), AIMessage("4 + ", response_metadata=end))
    assert found.best.settings == {"seed": 0}
    record = found.build_message(found.best).response_metadata["langnorm"]["attempts"]
    assert [attempt["finish_reason"] for attempt in record] == ["stop", *end.values()]


def test_the_smallest_share_of_low_steps_is_best() -> None:
    """Then the highest intensity, then the earliest."""
    assert attempts(answer(True, True), answer(True, False)).best.settings == {"seed": 1}
    assert attempts(answer(True, intensity=0.2), answer(True, intensity=0.4)).best.settings == {"seed": 1}
    assert attempts(answer(True), answer(True)).best.settings == {"seed": 0}


def test_answers_that_cannot_be_judged_are_enough() -> None:
    """Unknown intensity, no norms at all, and norms that were off are no ground for a retry."""
    for message in (answer(None, intensity=None), AIMessage("text"), with_metadata(AIMessage("text"), recursion={})):
        assert not attempts(message).need_retry
        assert attempts(answer(True), message).best.message is message


def test_tool_calls_are_enough_unless_they_are_to_be_retried() -> None:
    """A weak answer that calls tools is kept, but called weak."""
    found = attempts(answer(True, calls=True))
    assert not found.need_retry
    assert found.build_message(found.best).response_metadata["langnorm"]["weak"] is True
    assert attempts(answer(True, calls=True), retry_tool_calls=True).need_retry


@pytest.mark.parametrize(("on_exhausted", "seed"), [("best", 1), ("last", 2)])
def test_exhausted_attempts_leave_the_best_or_the_last(on_exhausted, seed) -> None:
    """An attempt that raised is neither."""
    found = attempts(
        answer(True, True), answer(True, False), answer(True, True), ValueError("x"), on_exhausted=on_exhausted
    )
    assert found.choose().settings == {"seed": seed}


def test_a_good_answer_is_kept_whatever_comes_last() -> None:
    """`on_exhausted` is about weak answers alone."""
    for on_exhausted in ("last", "raise"):
        found = attempts(answer(False), ValueError("x"), on_exhausted=on_exhausted)
        assert found.choose().settings == {"seed": 0}


def test_exhausted_attempts_raise_with_the_best_message() -> None:
    """The error says the figures and the mend."""
    with pytest.raises(
        WeakReasoningError, match='best of 2 attempts has 50% low.*allows 30%.*on_exhausted="best"'
    ) as e:
        attempts(answer(True, True), answer(True, False), on_exhausted="raise").choose()
    assert e.value.message is not None
    assert [entry["kept"] for entry in e.value.message.response_metadata["langnorm"]["attempts"]] == [False, True]


def test_the_record_is_plain_json_on_a_copy() -> None:
    """The message that was given stays as it was; its trace is still there in the copy."""
    message = answer(True, False, False, intensity=0.25)
    found = attempts(answer(True), message, OptionError("`x` is wrong"))
    kept = found.build_message(found.best)
    assert "attempts" not in message.response_metadata["langnorm"]
    assert NormTrace.from_message(kept) == NormTrace.from_message(message)
    assert kept.response_metadata["langnorm"]["weak"] is True
    record = kept.response_metadata["langnorm"]["attempts"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    common = {"finish_reason": "stop", "tokens": 9}
    assert record == [
        {"low_share": 1.0, "intensity": 0.5, "settings": {"seed": 0}, "kept": False} | common,
        {"low_share": 0.333333, "intensity": 0.25, "settings": {"seed": 1}, "kept": True} | common,
        {"low_share": None, "intensity": None, "finish_reason": None, "tokens": None, "settings": {"seed": 2},
         "kept": False, "error": "OptionError: `x` is wrong"},
    ]  # fmt: skip


def test_an_only_message_without_norms_is_untouched() -> None:
    """It is the very object; beside other attempts it is recorded."""
    message = AIMessage("text")
    alone, later = attempts(message), attempts(answer(True), message)
    assert alone.build_message(alone.best) is message
    assert later.build_message(later.best).response_metadata["langnorm"]["weak"] is None


def test_settings_become_plain() -> None:
    """Options are dicts of their fields, models and other objects names."""
    settings = {
        "recursion": Recursion(max_extra=2),
        "model": ChatLangNorm(),
        "layers": (1, 2),
        "temperature": float("inf"),
        "profile": Path("a/b.json"),
        "other": FakeListChatModel(responses=[]),
        "response_format": Recursion,
    }
    found = to_plain(settings)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["recursion"]["max_extra"] == 2
    assert found["model"] == "abacus"
    assert found["layers"] == [1, 2]
    assert found["profile"] == "a/b.json"
    assert found["other"] == "FakeListChatModel"
