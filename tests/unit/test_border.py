"""What callers give is checked before anything is computed, in every place where it can be given."""

from __future__ import annotations

import math
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langnorm import ChatLangNorm
from langnorm.checks import brief, is_nested_deeply, lone_surrogate
from langnorm.errors import LangNormError, OptionError, PromptError
from langnorm.testing import ScriptedEngine

HALF = "a \ud83d b"
CALL = {"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@pytest.fixture
def chat() -> ChatLangNorm:
    """Return a chat model without weights."""
    return ChatLangNorm(engine=ScriptedEngine(["Yes."], is_repeated=True))


def unchecked(kind: type[BaseMessage], **fields: Any) -> BaseMessage:
    """Return a message that nothing has checked."""
    return kind.model_construct(**{"additional_kwargs": {}, "response_metadata": {}, **fields})


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage(HALF),
        HumanMessage([{"type": "text", "text": HALF}]),
        AIMessage(HALF),
        AIMessage("", tool_calls=[CALL | {"args": {"x": [HALF]}}]),
        AIMessage("", tool_calls=[CALL | {"args": {HALF: 1}}]),
        AIMessage("", tool_calls=[CALL | {"name": HALF}]),
        AIMessage("", additional_kwargs={"reasoning_content": HALF}),
        ToolMessage(HALF, tool_call_id="1"),
    ],
)
@pytest.mark.parametrize("special_tokens", ["literal", "raise", "allow"])
def test_half_a_character_in_a_message_is_refused(
    chat: ChatLangNorm, message: BaseMessage, special_tokens: str
) -> None:
    """Wherever it is; the error says in which message, and how to remove it."""
    conversation = [HumanMessage("x"), message]
    for run in (chat.invoke, lambda *given, **options: list(chat.stream(*given, **options))):
        with pytest.raises(PromptError, match=r"Message \d.* half of a surrogate pair.*Remove it") as caught:
            run(conversation, special_tokens=special_tokens)
        str(caught.value).encode()


def test_half_a_character_in_a_part_of_a_conversation_is_not_counted(chat: ChatLangNorm) -> None:
    """Counting tokens reads the same texts."""
    with pytest.raises(PromptError, match="half of a surrogate pair"):
        chat.get_num_tokens_from_messages([AIMessage(HALF)])
    with pytest.raises(OptionError, match="half of a surrogate pair"):
        chat.get_token_ids(HALF)


@pytest.mark.parametrize(
    "options",
    [
        {"stop": HALF},
        {"stop": ["x", HALF]},
        {"model": HALF},
        {"tools": [{**TOOL, "function": {**TOOL["function"], "description": HALF}}]},
        {"tools": [{**TOOL, "function": {**TOOL["function"], "parameters": {"type": "object", "title": HALF}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": [HALF]}}}},
        {"tools": [TOOL], "tool_choice": HALF},
        {"step_splitter": HALF},
        {HALF: 1},
    ],
)
def test_half_a_character_in_an_option_is_refused(chat: ChatLangNorm, options: dict[str, Any]) -> None:
    """In a call and in `bind`; the error can be printed."""
    for run in (lambda: chat.invoke("x", **options), lambda: chat.bind(**options)):
        with pytest.raises(OptionError) as caught:
            run()
        str(caught.value).encode()


@pytest.mark.parametrize(
    "message",
    [
        unchecked(HumanMessage, content=None),
        unchecked(HumanMessage, content=5),
        unchecked(HumanMessage, content=[None]),
        unchecked(AIMessage, content=[5]),
        unchecked(HumanMessage, content=[{"type": "text"}]),
        unchecked(HumanMessage, content=[{"type": "text", "text": None}]),
        unchecked(AIMessage, content="x", tool_calls=[5]),
        unchecked(AIMessage, content="x", tool_calls=5),
        unchecked(AIMessage, content="x", additional_kwargs=None),
    ],
)
def test_a_malformed_message_is_refused(chat: ChatLangNorm, message: BaseMessage) -> None:
    """Not all that makes messages checks them."""
    with pytest.raises(PromptError, match="malformed|Give a string as its `text`"):
        chat.invoke([HumanMessage("x"), message])


NUMBERS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed", "n", "timeout",
           "low_below", "max_batch_size", "max_retries", "top_logprobs")  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "1", [1], 0.5j])
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_finite_number_is_refused(chat: ChatLangNorm, name: str, value: Any) -> None:
    """Neither True, which Python takes for 1, nor what never ends."""
    for run in (
        lambda: ChatLangNorm(**{name: value}),
        lambda: chat.invoke("x", **{name: value}),
        lambda: list(chat.stream("x", **{name: value})),
        lambda: chat.bind(**{name: value}),
    ):
        with pytest.raises(OptionError, match=f"`{name}="):
            run()


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty", "timeout", "low_below"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
def test_numbers_beyond_floats_are_refused(chat: ChatLangNorm, name: str, value: int) -> None:
    """With an error of reasonable length."""
    with pytest.raises(OptionError, match=f"`{name}=") as caught:
        chat.invoke("x", **{name: value})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [1e300, 4_000_001])
def test_a_timeout_is_one_that_a_lock_can_wait_for(chat: ChatLangNorm, value: float) -> None:
    """None is no limit."""
    with pytest.raises(OptionError, match="up to 4,000,000, or None"):
        chat.invoke("x", timeout=value)
    assert chat.invoke("x", timeout=4_000_000).content == "Yes."


@pytest.mark.parametrize("value", ["false", "no", 0, 1, None])
@pytest.mark.parametrize("name", ["enable_thinking", "streaming"])
def test_words_and_numbers_are_no_flags(name: str, value: Any) -> None:
    """`"false"` would be true."""
    with pytest.raises(OptionError, match=f"`{name}=.*Use True or False"):
        ChatLangNorm(**{name: value})


@pytest.mark.parametrize("n", [0, -1, True, "2"])
async def test_a_stream_checks_how_many_answers_it_is_to_have(chat: ChatLangNorm, n: Any) -> None:
    """It has one, but not whatever is said."""
    with pytest.raises(OptionError, match="`n="):
        list(chat.stream("x", n=n))
    with pytest.raises(OptionError, match="`n="):
        async for _ in chat.astream("x", n=n):
            pass


class Unshown:
    """Has no `repr`."""

    def __repr__(self) -> str:
        msg = "never"
        raise RuntimeError(msg)


def endless() -> list[Any]:
    """Return a list that contains itself."""
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", "'a'"),
        (Unshown(), "<Unshown>"),
        (10**5000, "<int>"),
        ("x" * 900, "'" + "x" * 499 + "..."),
        (endless(), "[[...]]"),
    ],
    ids=range(5),
)
def test_any_value_can_be_shown(value: Any, shown: str) -> None:
    """Cut where it is long, and by its type where it cannot be shown."""
    assert brief(value) == shown


@pytest.mark.parametrize(
    "name", ["model", "layers", "threshold", "step_splitter", "profile", "stop", "recursion", "norms"]
)
def test_values_that_cannot_be_shown_are_refused(chat: ChatLangNorm, name: str) -> None:
    """In an error that names the option."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in (Unshown(), [Unshown()], deep):
        with pytest.raises(LangNormError):
            chat.invoke("x", **{name: value})


def test_half_characters_are_found_in_what_contains_itself() -> None:
    """Keys, values, tuples; nothing is looked through twice."""
    assert lone_surrogate(endless()) is None
    assert lone_surrogate({"a": [1, ("x", {"b\udc80": 2})]}) == "\udc80"
    assert lone_surrogate({"a": "\U0001f600"}) is None


@pytest.mark.parametrize("value", [-(2**63), -(2**63) + 1, float(-(2**63))])
def test_a_number_that_would_end_the_process_is_refused(chat: ChatLangNorm, value: float) -> None:
    """The stack of llguidance overflows on the least integer of 64 bits."""
    with pytest.raises(OptionError, match="would end the process"):
        chat.invoke("x", response_format={"enum": [1, {"a": value}]})


@pytest.mark.parametrize("levels", [150, 5000])
def test_arguments_that_are_nested_too_deeply_are_refused(chat: ChatLangNorm, levels: int) -> None:
    """No template can write them."""
    deep: Any = 1
    for _ in range(levels):
        deep = {"a": [deep]}
    assert is_nested_deeply(deep)
    assert is_nested_deeply(endless())
    assert not is_nested_deeply([[{"a": (1, [2])}]])
    message = unchecked(AIMessage, content="x", tool_calls=[CALL | {"args": {"x": deep}}])
    with pytest.raises(PromptError, match="Message 1, .*within each other on more levels|malformed"):
        chat.invoke([HumanMessage("x"), message])
