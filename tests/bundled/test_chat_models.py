"""The chat model on Abacus: every way of calling it gives the same message, and bad input a clear error."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.runnables import ConfigurableField

from langnorm import ChatLangNorm, NormTrace
from langnorm.chat.settings import CALL_NAMES
from langnorm.errors import LangNormError, ModelError, OptionError, PromptError
from tests.support.calls import counted_passes, langnorm_threads, wait_until

QUESTIONS: list[LanguageModelInput] = [
    "What is 47 + 385?",
    [("system", "You are brief."), ("human", "Start with 12. Add 30. Subtract 4. What is the result?")],
    [HumanMessage("Hi!"), AIMessage("Hello!"), HumanMessage("Repeat after me: Łódź 北京")],
]


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """A greedy Abacus with short answers."""
    return ChatLangNorm(temperature=0, max_tokens=60, norms="tokens")


_LAST_DIGITS = {"token_percentiles": 1.1e-4, "token_distances": 1.1e-3}
"""Of what messages keep with few digits, the last one, by which values may differ that are rounded to either side."""


def facts(message: BaseMessage) -> dict[str, Any]:
    """Return all of a message that must not depend on how it was asked for; norms to five digits."""
    fields = message.model_dump(include={"content", "usage_metadata", "response_metadata", "additional_kwargs"})
    return _rounded(fields, 1e-12)


def _rounded(value: Any, least: float) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-4, abs=least)
    if isinstance(value, dict):
        return {key: _rounded(item, _LAST_DIGITS.get(key, least)) for key, item in value.items()}
    return [_rounded(item, least) for item in value] if isinstance(value, list) else value


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """Return the sum of the chunks."""
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stream_adds_up_to_the_message_of_invoke(chat: ChatLangNorm, question: LanguageModelInput) -> None:
    """Text, reasoning, usage, metadata and norms are the same, streamed or not."""
    chunks = list(chat.stream(question))
    assert facts(merged(chunks)) == facts(chat.invoke(question))
    assert len(chunks) > 3
    assert [bool(chunk.response_metadata.get("langnorm")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].chunk_position == "last"


@pytest.mark.parametrize("question", QUESTIONS)
async def test_async_gives_what_sync_gives(chat: ChatLangNorm, question: LanguageModelInput) -> None:
    """`ainvoke` and `astream` give the message of `invoke`."""
    expected = facts(chat.invoke(question))
    assert facts(await chat.ainvoke(question)) == expected
    assert facts(merged([chunk async for chunk in chat.astream(question)])) == expected


async def test_batches_give_what_single_calls_give(chat: ChatLangNorm) -> None:
    """`batch` and `abatch` keep the order, and each message is that of its question alone."""
    expected = [facts(chat.invoke(question)) for question in QUESTIONS]
    assert [facts(message) for message in chat.batch(QUESTIONS)] == expected
    assert [facts(message) for message in await chat.abatch(QUESTIONS)] == expected


def test_a_batch_is_one_padded_batch(chat: ChatLangNorm) -> None:
    """All inputs of `batch` share forward passes, up to `max_batch_size` of them."""
    engine: Any = chat.loaded_engine()
    with counted_passes(engine.model) as passes:
        chat.batch(["Hi!"] * 12)
    assert passes.prompt_batch_sizes == [12]
    with counted_passes(engine.model) as passes:
        chat.model_copy(update={"max_batch_size": 4}).batch(["Hi!"] * 8)
    assert passes.prompt_batch_sizes == [4, 4]
    with counted_passes(engine.model) as passes:
        chat.generate([[HumanMessage("Hi!")]], n=8, temperature=1.0)
    assert passes.prompt_batch_sizes == [8]


@pytest.mark.parametrize(
    "ask",
    [
        lambda chat: chat.batch(["Hi!"] * 20, max_batch_size=20),
        lambda chat: chat.bind(max_batch_size=20).batch(["Hi!"] * 20),
        lambda chat: chat.generate([[HumanMessage("Hi!")]] * 20, max_batch_size=20),
    ],
)
def test_a_call_may_say_how_many_run_together(chat: ChatLangNorm, ask: Callable[[ChatLangNorm], Any]) -> None:
    """More than the model does as well as fewer, whether it is given or bound."""
    engine: Any = chat.loaded_engine()
    with counted_passes(engine.model) as passes:
        ask(chat)
    assert max(passes.batch_sizes) == 20


async def test_a_batch_waits_for_no_more_calls_than_may_run_at_once(chat: ChatLangNorm) -> None:
    """The others of it come when these have ended."""
    engine: Any = chat.loaded_engine()
    with patch.object(engine, "expect", wraps=engine.expect) as expect:
        for at_once in (1, 3, 16, None):
            config: Any = {"max_concurrency": at_once}
            chat.batch(["Hi!"] * 20, config, max_tokens=1)
            await chat.abatch(["Hi!"] * 20, config, max_tokens=1)
    assert [call.args[0] for call in expect.call_args_list] == [1, 1, 3, 3, 20, 20, 20, 20]


async def test_a_batch_returns_exceptions_in_their_place(chat: ChatLangNorm) -> None:
    """One bad input does not cost the others their answer."""
    inputs: list[LanguageModelInput] = ["Hi!", [], "Hi!"]
    for answers in (
        chat.batch(inputs, return_exceptions=True),
        await chat.abatch(inputs, return_exceptions=True),
    ):
        assert [type(answer) for answer in answers] == [AIMessage, PromptError, AIMessage]


def test_events_carry_the_norms(chat: ChatLangNorm) -> None:
    """`invoke` inside a streaming run takes the streaming path and still has its metadata."""
    expected = facts(chat.invoke(QUESTIONS[0]))

    async def last_event() -> Any:
        return [event async for event in chat.astream_events(QUESTIONS[0], version="v2")][-1]

    assert facts(asyncio.run(last_event())["data"]["output"]) == expected


def test_n_gives_n_messages_with_norms(chat: ChatLangNorm) -> None:
    """Each of n completions has usage, a finish reason and a trace of its own."""
    generations = chat.generate([[HumanMessage("What is 12 + 7?")]], n=3, temperature=1.0, seed=5).generations[0]
    messages = [generation.message for generation in generations]  # type: ignore[union-attr]
    assert len(messages) == 3
    for message in messages:
        assert NormTrace.from_message(message).tokens == message.usage_metadata["output_tokens"]  # type: ignore[attr-defined]


def test_a_seed_repeats_the_sample(chat: ChatLangNorm) -> None:
    """The same seed gives the same text, alone, streamed or in a batch; another seed another text."""
    hot = chat.bind(temperature=1.5, seed=11)
    text = hot.invoke(QUESTIONS[1]).text
    assert merged(list(hot.stream(QUESTIONS[1]))).text == text  # type: ignore[arg-type]
    assert hot.batch([QUESTIONS[0], QUESTIONS[1]])[1].text == text
    assert any(chat.invoke(QUESTIONS[1], temperature=1.5, seed=seed).text != text for seed in range(5))


def test_stop_ends_the_answer_and_is_cut_from_it(chat: ChatLangNorm) -> None:
    """Generation really stops: fewer tokens are made, the reason is `stop`, streamed too."""
    whole = chat.invoke(QUESTIONS[1])
    reasoning = whole.additional_kwargs.get("reasoning_content", "") or whole.text
    stop = reasoning[3:6]
    cut = chat.invoke(QUESTIONS[1], stop=[stop])
    text = cut.additional_kwargs.get("reasoning_content", "") or cut.text
    assert text == reasoning[: reasoning.index(stop)].rstrip()
    assert cut.usage_metadata["output_tokens"] < whole.usage_metadata["output_tokens"]  # type: ignore[index]
    assert cut.response_metadata["finish_reason"] == "stop"
    assert facts(merged(list(chat.stream(QUESTIONS[1], stop=[stop])))) == facts(cut)


def test_max_tokens_is_a_finish_reason(chat: ChatLangNorm) -> None:
    """An answer that was cut short says `length`."""
    message = chat.invoke(QUESTIONS[1], max_tokens=3)
    assert message.response_metadata["finish_reason"] == "length"
    assert message.usage_metadata["output_tokens"] == 3  # type: ignore[index]


def test_norms_off_leaves_no_trace_and_the_same_answer(chat: ChatLangNorm) -> None:
    """Recording changes nothing but the metadata."""
    on, off = chat.invoke(QUESTIONS[0]), chat.invoke(QUESTIONS[0], norms="off")
    assert off.text == on.text
    assert "langnorm" not in off.response_metadata
    assert "langnorm" not in off.additional_kwargs


def test_layers_are_chosen_per_call(chat: ChatLangNorm) -> None:
    """`late` are the last quarter without the last layer; indices may count from the end."""
    layers = [NormTrace.from_message(chat.invoke("Hi!", layers=given)).layers for given in ("late", "all", [-1, 0])]
    assert layers == [(9, 10), tuple(range(12)), (0, 11)]


def test_thinking_can_be_switched_off(chat: ChatLangNorm) -> None:
    """Without thinking there is no reasoning."""
    message = chat.invoke(QUESTIONS[0], enable_thinking=False)
    assert "reasoning_content" not in message.additional_kwargs
    assert message.usage_metadata["output_token_details"] == {"reasoning": 0}  # type: ignore[index]


def test_fields_are_configurable(chat: ChatLangNorm) -> None:
    """`configurable_fields` changes a field for one call and loads nothing again."""
    runnable = chat.configurable_fields(norms=ConfigurableField(id="norms"))
    message = runnable.with_config(configurable={"norms": "off"}).invoke("Hi!")
    assert "langnorm" not in message.response_metadata
    assert ChatLangNorm(temperature=0).loaded_engine() is chat.loaded_engine()


def test_a_chat_model_can_be_pickled(chat: ChatLangNorm) -> None:
    """The weights stay behind; the copy finds them again."""
    again = pickle.loads(pickle.dumps(chat))
    assert again == chat
    assert again.invoke("Hi!").text == chat.invoke("Hi!").text


def test_what_changes_an_answer_changes_the_cache_key() -> None:
    """Two models that may answer differently never share a cached answer."""
    changes: list[dict[str, Any]] = [
        {},
        {"model": "other"},
        {"temperature": 0.5},
        {"top_k": 3},
        {"stop": ["x"]},
        {"seed": 1},
        {"n": 2},
        {"enable_thinking": False},
        {"norms": "off"},
        {"layers": "all"},
        {"model_kwargs": {"dtype": "bfloat16"}},
    ]
    keys = [ChatLangNorm(**change)._get_llm_string() for change in changes]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"temperatur": 1}, r"no option `temperatur`\. Did you mean `temperature`\?"),
        ({"temperature": "hot"}, r"`temperature='hot'` is not allowed"),
        ({"temperature": -1}, r"`temperature=-1` is not allowed\. Use 0 \(greedy\) or above"),
        ({"norms": "step"}, r"`norms='step'` is not allowed"),
        ({"layers": "lat"}, r"Did you mean `late`\?"),
        ({"engine": "transformer"}, r"no engine `transformer`.*Did you mean `transformers`\?"),
        ({"engine": 3}, "is not an engine"),
        ({"model": ""}, "`model=''` is not allowed"),
        ({"timeout": 0}, r"`timeout=0` is not allowed\. Use seconds above 0"),
        ({"max_batch_size": 0}, "`max_batch_size=0` is not allowed"),
    ],
)
def test_bad_fields_are_refused_by_the_constructor(fields: dict[str, Any], error: str) -> None:
    """Before any weights are loaded, with the mend in the message."""
    with pytest.raises(OptionError, match=error):
        ChatLangNorm(**fields)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"temperatur": 1}, r"This call has no option `temperatur`\. Did you mean `temperature`\?"),
        ({"layers": [40]}, r"Layer `40` is outside this model \(0 to 11\)"),
        ({"stop": [""]}, "`stop="),
        ({"norms": "all"}, "`norms='all'` is not allowed"),
        ({"max_tokens": 0}, "`max_tokens=0` is not allowed"),
    ],
)
def test_bad_options_of_a_call_are_refused(chat: ChatLangNorm, given: dict[str, Any], error: str) -> None:
    """Invoke, stream and batch say the same."""
    for call in (
        lambda: chat.invoke("Hi!", **given),
        lambda: list(chat.stream("Hi!", **given)),
        lambda: chat.batch(["Hi!", "Hi!"], **given),
    ):
        with pytest.raises(OptionError, match=error):
            call()


def test_a_prompt_that_is_too_long_is_refused(chat: ChatLangNorm) -> None:
    """The error has both lengths and says what to do."""
    with pytest.raises(PromptError, match=r"prompt has \d+ tokens.*context of 2048.*Shorten"):
        chat.invoke("one " * 3000)


def test_a_model_that_cannot_be_loaded_is_an_error_of_ours(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the model and what would work; all our errors have one base."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ModelError, match=r"`empty` could not be loaded: its folder is empty.*Give the folder"
    ) as caught:
        ChatLangNorm(model="empty").invoke("Hi!")
    assert isinstance(caught.value, LangNormError)


async def test_a_timeout_ends_the_call(chat: ChatLangNorm) -> None:
    """It is raised soon after its time, for every kind of call, and the next call works."""
    engine: Any = chat.loaded_engine()
    slow = chat.bind(timeout=0.02, max_tokens=1000, temperature=2.0)
    with counted_passes(engine.model) as passes:
        with pytest.raises(TimeoutError, match=r"timeout=0\.02"):
            slow.invoke("Hi!")
        with pytest.raises(TimeoutError, match=r"timeout=0\.02"):
            list(slow.stream("Hi!"))
        with pytest.raises(TimeoutError, match=r"timeout=0\.02"):
            await slow.ainvoke("Hi!")
        with pytest.raises(TimeoutError, match=r"timeout=0\.02"):
            _ = [chunk async for chunk in slow.astream("Hi!")]
        wait_until(lambda: not langnorm_threads())
    assert len(passes) < 1000  # all four together did less than one whole answer
    assert chat.invoke("Hi!").usage_metadata["output_tokens"] > 0  # type: ignore[index]


@pytest.mark.parametrize("role", ["system", "human", "ai"])
def test_a_conversation_may_end_with_any_role(chat: ChatLangNorm, role: str) -> None:
    """The last message need not be the user's."""
    assert chat.invoke([("human", "Hi!"), (role, "Hello.")]).usage_metadata


ODD_VALUES: list[tuple[str, Any]] = [
    ("temperature", True),
    ("temperature", "0.7"),
    ("temperature", float("nan")),
    ("top_p", 0),
    ("top_k", 1.5),
    ("min_p", "x"),
    ("repetition_penalty", 0),
    ("max_tokens", True),
    ("max_tokens", 2.0),
    ("stop", 3),
    ("stop", [""]),
    ("seed", "1"),
    ("n", 0),
    ("logprobs", 1),
    ("top_logprobs", 21),
    ("top_logprobs", True),
    ("distribution", 1),
    ("lens", 1),
    ("lens", "lat"),
    ("lens", []),
    ("enable_thinking", "yes"),
    ("special_tokens", ["literal"]),
    ("norms", ["steps"]),
    ("layers", 5),
    ("layers", []),
    ("layers", [True]),
    ("layers", b"ab"),
    ("norm_profile", 3),
    ("threshold", [1]),
    ("intensity", "tokens"),
    ("low_below", True),
    ("step_splitter", ["x"]),
    ("recursion", {"layers": 5}),
    ("recursion", {"layers": []}),
    ("steering", 3),
    ("suppression", {"mode": ["high"]}),
    ("selection", {"vote": ["none"]}),
    ("timeout", True),
    ("timeout", "5"),
    ("max_retries", -1),
    ("max_batch_size", True),
    ("max_batch_size", 2.0),
    ("model", 3),
]


@pytest.mark.parametrize(("name", "value"), ODD_VALUES)
def test_one_check_for_each_option_wherever_it_is_set(name: str, value: Any) -> None:
    """Constructor, `bind`, call and configurable fields refuse it in the same words, before weights are loaded."""
    chat = ChatLangNorm(model="/there/is/no/such/folder")
    configurable = chat.configurable_fields(**{name: ConfigurableField(id="option")})
    ways: list[Callable[[], Any]] = [
        lambda: ChatLangNorm(**{name: value}),
        lambda: chat.bind(**{name: value}),
        lambda: chat.invoke("Hi", **{name: value}),
        lambda: configurable.invoke("Hi", {"configurable": {"option": value}}),
    ]
    messages = []
    for ask in ways:
        with pytest.raises(OptionError) as refused:
            ask()
        messages.append(str(refused.value))
    assert len(set(messages)) == 1
    assert "Use " in messages[0]


def test_every_option_is_checked() -> None:
    """The table of odd values has all options of a call."""
    assert {name for name, _ in ODD_VALUES} == set(CALL_NAMES)


@pytest.mark.parametrize("name", sorted(set(ChatLangNorm.model_fields) - set(BaseChatModel.model_fields)))
def test_every_field_says_what_it_is(name: str) -> None:
    """Its type is no `Any`, and it has a docstring."""
    field = ChatLangNorm.model_fields[name]
    assert field.annotation is not Any
    assert field.description
