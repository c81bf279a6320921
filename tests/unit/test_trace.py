"""A trace says what it measured, in plain JSON, and comes back from a message as it went in."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, messages_from_dict, messages_to_dict

from langnorm.errors import MissingDependencyError, OptionError
from langnorm.norms.reading import NormReading
from langnorm.scores.samples import sample_of
from langnorm.trace import KEY, NormStep, NormTrace
from tests.support.traces import READING, ROWS, trace


def test_thresholds_are_told_by_layer() -> None:
    """JSON has text keys only."""
    stored = trace(READING).to_dict()
    assert stored["thresholds"] == {"9": 2.5, "10": 40.0}
    assert stored["trigger_rate"] == {"9": 0.5, "10": 0.3333333}
    assert stored["profile"] == "mine"


@pytest.mark.parametrize("keep_tokens", [False, True])
@pytest.mark.parametrize("reading", [NormReading(), READING])
def test_a_message_gives_back_its_trace(reading: NormReading, keep_tokens: bool) -> None:
    """Through JSON and LangChain's serialisation, too."""
    made = trace(reading, keep_tokens=keep_tokens)
    extra = {KEY: made.token_dict()} if keep_tokens else {}
    message = AIMessage(content="x", response_metadata={KEY: made.to_dict()}, additional_kwargs=extra)
    (again,) = messages_from_dict(json.loads(json.dumps(messages_to_dict([message]))))
    assert NormTrace.from_message(again) == made


def test_the_text_of_a_step_is_cut_from_its_part_of_the_message() -> None:
    """Reasoning and answer each by its own offsets; a call has no text, as the message has not what the model wrote."""
    steps = (
        NormStep(0, 1, "reasoning", (0, 5), (1.0,)),
        NormStep(1, 2, "answer", (0, 5), (1.0,)),
        NormStep(2, 3, "tool_call", (0, 5), (1.0,)),
        NormStep(3, 4, "answer", (6, 11), (1.0,)),
    )
    of_layer = NormTrace(tokens=5, layers=(9,), mean=(1.0,), steps=steps)
    message = AIMessage("Eight words", additional_kwargs={"reasoning_content": "1 + 1, 2 + 2"})
    assert of_layer.step_texts(message) == ["1 + 1", "Eight", "", "words"]
    assert of_layer.step_texts(AIMessage([{"type": "text", "text": "Eight words"}])) == ["", "Eight", "", "words"]


def test_a_message_without_norms_is_refused() -> None:
    """The error says which messages have norms."""
    with pytest.raises(OptionError, match=r"carries no norms.*norms=\"steps\""):
        NormTrace.from_message(AIMessage(content="x"))


def messages() -> list[BaseMessage]:
    """Return a conversation with two traces."""
    stored = {KEY: trace(READING).to_dict()}
    return [
        HumanMessage("a"),
        AIMessage(content="b", response_metadata=stored),
        AIMessage(content="of another model"),
        AIMessage(content="c", response_metadata=stored),
    ]


def test_a_conversation_gives_its_traces() -> None:
    """As a list of messages or as an agent's state."""
    assert NormTrace.from_messages(messages()) == [trace(READING)] * 2
    assert NormTrace.from_messages({"messages": messages(), "jumps": 1}) == [trace(READING)] * 2
    assert NormTrace.from_messages([]) == []


def test_a_state_without_messages_is_refused() -> None:
    """The error names what it has."""
    with pytest.raises(OptionError, match="no `messages`, only answer"):
        NormTrace.from_messages({"answer": 1})


def test_a_trace_becomes_a_sample() -> None:
    """With everything that scores look at."""
    sample = sample_of(trace(replace(READING, sinks=(1,)), keep_tokens=True), logprobs=[-0.5] * 4)
    assert sample.rows.tolist() == [ROWS[0], ROWS[2]]
    assert sample.tau.tolist() == [2.5, 40.0]
    assert list(sample.steps) == [(0, 2), (2, 4)]
    with pytest.raises(OptionError, match='`norms="tokens"`'):
        sample_of(trace(READING))


@pytest.mark.parametrize("keep_tokens", [False, True])
def test_lines_of_json_give_back_their_traces(tmp_path: Path, keep_tokens: bool) -> None:
    """A file has a trace a line, the norms of tokens with it."""
    made = [trace(READING, keep_tokens=keep_tokens), trace(keep_tokens=keep_tokens)]
    NormTrace.write_jsonl(tmp_path / "traces.jsonl", made)
    assert len((tmp_path / "traces.jsonl").read_text().splitlines()) == 2
    assert NormTrace.read_jsonl(tmp_path / "traces.jsonl") == made


@pytest.mark.parametrize("line", ["{}", "[]", "1", "{", '{"version": 2}'])
def test_a_line_that_is_no_trace_is_refused(line: str) -> None:
    """The error shows the line."""
    with pytest.raises(OptionError, match="not a trace of this version"):
        NormTrace.from_json(line)


def test_a_frame_of_steps() -> None:
    """A row has the step's fields and its mean of each layer."""
    pytest.importorskip("pandas")
    frame = trace(READING).to_dataframe()
    assert list(frame.columns) == [
        "kind",
        "start",
        "end",
        "text_start",
        "text_end",
        "intensity",
        "low",
        "mean_9",
        "mean_10",
    ]
    assert frame["mean_10"].tolist() == [20.0, 50.0]
    assert frame["low"].tolist() == [False, True]


def test_a_frame_of_tokens() -> None:
    """A row has the norm of each layer, the step, and whether it is a sink."""
    pytest.importorskip("pandas")
    frame = trace(replace(READING, sinks=(1,)), keep_tokens=True).to_dataframe("token")
    assert frame["norm_9"].tolist() == [1.0, 3.0, 5.0]
    assert frame["step"].tolist() == [0, 0, 1]
    assert frame["sink"].tolist() == [False, True, False]


def test_a_frame_that_cannot_be_is_refused() -> None:
    """Without the norms of tokens, or with a wrong word."""
    pytest.importorskip("pandas")
    with pytest.raises(OptionError, match='`norms="tokens"`'):
        trace().to_dataframe("token")
    with pytest.raises(OptionError, match="`by='layer'` is not allowed"):
        trace().to_dataframe("layer")


def test_a_frame_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        trace().to_dataframe()
