"""The engine and the messages that langnorm offers for tests are those of real models in all but their weights."""

from __future__ import annotations

import doctest
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

import langnorm.testing
from langnorm import ChatLangNorm, NormRetry, NormSelector, NormTrace, Steering
from langnorm.engines.base import Engine
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.errors import OptionError, PromptError
from langnorm.testing import ScriptedAnswer, ScriptedEngine, message_with_norms

THOUGHT = "<think>\n6 * 7 = 42\n</think>\n\nIt is 42."


def chat_of(*answers: Any, **options: Any) -> ChatLangNorm:
    """Returns a chat model over a scripted engine."""
    return ChatLangNorm(engine=ScriptedEngine(answers), **options)


def test_the_examples_are_true() -> None:
    """The docstring of the module is run."""
    assert doctest.testmod(langnorm.testing) == doctest.TestResults(failed=0, attempted=8)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """A test module that imports it pays for neither torch nor transformers nor LangChain."""
    program = (
        "import sys, langnorm.testing; langnorm.testing.ScriptedEngine(['a'])\n"
        "print([name for name in ('torch', 'transformers', 'langchain_core') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "[]"


def test_it_is_an_engine() -> None:
    """It follows the protocol, and remembers what it was asked."""
    engine = ScriptedEngine(["a"], context_length=None)
    assert isinstance(engine, Engine)
    assert engine.profile is None
    request = Request((1, 2), Sampling())
    assert engine.generate([request])[0].completions[0].pieces == ["a", ""]
    assert engine.requests == [request]


def test_answers_come_in_order_and_end() -> None:
    """Each sample takes the next one; after the last there is an error, unless the script is repeated."""
    chat = chat_of("one", "two", "three")
    first = chat.generate([[HumanMessage("?")]], n=2).generations[0]
    assert [generation.text for generation in first] == ["one", "two"]
    assert chat.invoke("?").content == "three"
    with pytest.raises(OptionError, match="All `3` answers of the script are used up"):
        chat.invoke("?")
    again = ChatLangNorm(engine=ScriptedEngine(["one", "two"], is_repeated=True))
    assert [again.invoke("?").content for _ in range(3)] == ["one", "two", "one"]


def test_exceptions_in_the_script_are_raised() -> None:
    """Once, in their turn."""
    chat = chat_of(ValueError("broken"), "whole")
    with pytest.raises(ValueError, match="broken"):
        chat.invoke("?")
    assert chat.invoke("?").content == "whole"


async def test_all_ways_of_asking_give_the_same() -> None:
    """Streams are token by token, and their chunks add up to the message."""
    chat = chat_of(*[THOUGHT] * 4, max_tokens=100)
    message = chat.invoke("?")
    assert (message.content, message.additional_kwargs["reasoning_content"]) == ("It is 42.", "6 * 7 = 42")
    chunks = list(chat.stream("?"))
    achunks = [chunk async for chunk in chat.astream("?")]
    assert len(chunks) == len(achunks) > 5
    for other in (await chat.ainvoke("?"), sum(chunks[1:], chunks[0]), sum(achunks[1:], achunks[0])):
        assert other.content == message.content
        assert other.usage_metadata == message.usage_metadata
        assert other.response_metadata["langnorm"] == message.response_metadata["langnorm"]


def test_limits_and_stop_texts_are_obeyed() -> None:
    """An answer is cut as a model's would be, by the call or by the context."""
    chat = chat_of("one two three", "one two three", ScriptedAnswer("one two three", finish_reason="length"))
    cut = chat.invoke("?", max_tokens=2)
    assert cut.response_metadata["finish_reason"] == "length"
    assert cut.usage_metadata is not None
    assert cut.usage_metadata["output_tokens"] == 2
    stopped = chat.invoke("?", stop=["two"])
    assert (stopped.content, stopped.response_metadata["finish_reason"]) == ("one ", "stop")
    assert chat.invoke("?").response_metadata["finish_reason"] == "length"
    small = ScriptedEngine(["one two three"] * 2, context_length=4)
    assert len(small.generate([Request((1, 2, 3), Sampling())])[0].completions[0].token_ids) == 1
    with pytest.raises(PromptError, match="leaves no room"):
        small.generate([Request((1, 2, 3, 4), Sampling())])


def test_norms_are_those_of_the_script() -> None:
    """A number, or a row for each token with a norm for each layer, of which the asked layers are taken."""
    ids = (5, 6, 7)
    rows = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    engine = ScriptedEngine([ScriptedAnswer(ids, norms=rows), ScriptedAnswer(ids, norms=2), ScriptedAnswer(ids)])
    request = Request((1,), Sampling(), Record(layers=(1, 3)))
    assert engine.generate([request])[0].completions[0].norms == [[2.0, 4.0], [6.0, 8.0]]
    assert engine.generate([request])[0].completions[0].norms == [[2.0, 2.0], [2.0, 2.0]]
    assert engine.generate([Request((1,), Sampling())])[0].completions[0].norms == []


@pytest.mark.parametrize("rows", [[[1.0] * 4], [[1.0] * 3] * 2])
def test_norms_have_to_fit(rows: list[list[float]]) -> None:
    """Too few rows, or rows of too few layers, are an error that says what fits."""
    engine = ScriptedEngine([ScriptedAnswer((5, 6, 7), norms=rows)])
    with pytest.raises(OptionError, match="Give `2` rows or more.*with `4` norms each"):
        engine.generate([Request((1,), Sampling(), Record(layers=(1,)))])


def test_logprobs_are_those_of_the_script() -> None:
    """Where they are asked for, and one for each token."""
    chat = chat_of(ScriptedAnswer("one", logprobs=[-0.5, -0.25]), "one", ScriptedAnswer("one", logprobs=[-0.5]))
    content = chat.invoke("?", logprobs=True).response_metadata["logprobs"]["content"]
    assert [token["logprob"] for token in content] == [-0.5, -0.25]
    content = chat.invoke("?", logprobs=True, top_logprobs=1).response_metadata["logprobs"]["content"]
    assert [token["logprob"] for token in content[0]["top_logprobs"]] == [-1.0]
    with pytest.raises(OptionError, match="has `1` `logprobs`. Give one for each of its `2` tokens"):
        chat.invoke("?", logprobs=True)


def test_interventions_are_accepted_and_reported() -> None:
    """They change nothing, and the message says what the script says."""
    answer = ScriptedAnswer("one", interventions={"steering": {"pulls": []}})
    message = chat_of(answer).invoke("?", steering=Steering())
    assert NormTrace.from_message(message).steering == {"pulls": []}


def test_an_engine_needs_a_script() -> None:
    """An empty one is refused."""
    with pytest.raises(OptionError, match="The script is empty"):
        ScriptedEngine([])


def test_a_tokenizer_of_its_own(tokenizer: Any) -> None:
    """The one that was given is the one that is used."""
    assert ScriptedEngine(["a"], tokenizer=tokenizer).tokenizer is tokenizer


def test_a_message_has_the_steps_that_it_is_given() -> None:
    """With their texts, kinds, intensities and norms; what is low follows from the intensities."""
    call = {"name": "add", "args": {"a": 1}}
    message = message_with_norms(
        ["So ", "it is 4."], reasoning=["1 + 1\n", "2 + 2"], intensities=[0.05, 0.5, None, 0.9, 0.01],
        layers=(3, 4), norms=[1, 2, 3, 4, 5], tool_calls=[call],
    )  # fmt: skip
    assert message.content == "So it is 4."
    assert message.additional_kwargs["reasoning_content"] == "1 + 1\n2 + 2"
    assert message.tool_calls[0]["args"] == {"a": 1}
    assert message.response_metadata["finish_reason"] == "tool_calls"
    trace = NormTrace.from_message(message)
    assert NormTrace.from_json(trace.to_json()) == trace
    assert [step.kind for step in trace.steps] == ["reasoning", "reasoning", "answer", "answer", "tool_call"]
    assert trace.low_steps == (0, 4)
    assert trace.steps[1].text_span == (6, 11)
    assert trace.mean == (3.0, 3.0)
    assert trace.intensity == pytest.approx(0.365)


def test_unknown_intensity_is_unknown_everywhere() -> None:
    """As before a model has a profile."""
    trace = NormTrace.from_message(message_with_norms("It is 4.", intensities=None))
    assert (trace.intensity, trace.low_steps, trace.profile, trace.steps[0].low) == (None, None, None, None)


@pytest.mark.parametrize("options", [{"intensities": [0.1]}, {"low": [True] * 3}, {"norms": [1.0]}])
def test_there_is_a_value_for_each_step(options: dict[str, Any]) -> None:
    """Another number of them is an error."""
    with pytest.raises(OptionError, match="does not fit. Give `2` values, one for each step"):
        message_with_norms(["a", "b"], **options)


def test_what_reads_norms_takes_such_messages() -> None:
    """A retry asks again because of them."""

    class Scripted(ChatLangNorm):
        """Answers a weak message, then a strong one."""

        def invoke(self, *_args: Any, **_kwargs: Any) -> AIMessage:
            """Returns the next message."""
            return messages.pop(0)

    messages = [message_with_norms("4?", intensities=0.01), message_with_norms("4.", intensities=0.9)]
    assert NormRetry(Scripted(engine=ScriptedEngine(["unused"]))).invoke("?").content == "4."


def test_scores_that_it_cannot_record_for_are_refused() -> None:
    """Before an answer is taken from the script; a score that needs nothing of the kind asks for nothing."""
    for score, what in (
        ("edis", "distributions"),
        ("update_cosine", "layers add"),
        ("coe_c", "means of hidden states"),
    ):
        engine = ScriptedEngine(["a", "b", "c", "d"])
        chat = ChatLangNorm(engine=engine, temperature=1.0)
        with pytest.raises(OptionError, match=f"`ScriptedEngine` cannot record .*{what}"):
            NormSelector(chat, n=2, score=score).invoke("Hello")
        assert engine.requests == []
        NormSelector(chat, n=2, score="tail").invoke("Hello")
        record = engine.requests[0].record
        assert record == Record(layers=record.layers)
