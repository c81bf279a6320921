"""What is stored is read whole and checked; what does not fit is an error that says where and what to do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langnorm import NormProfile, NormTrace
from langnorm.errors import OptionError
from langnorm.interventions.plan import Plans
from langnorm.norms.baseline import Baseline
from langnorm.norms.identity import ModelIdentity
from langnorm.norms.reading import read_norms
from langnorm.norms.sketch import QuantileSketch
from langnorm.selection import rank
from langnorm.stored import MOST_BYTES, read_text
from langnorm.testing import message_with_norms
from langnorm.trace import KEY
from langnorm.trace_builder import build_trace
from tests.support.traces import READING, trace


def deep(levels: int = 100_000) -> str:
    """Return lists within lists, as JSON."""
    return "[" * levels + "]" * levels


def profile() -> dict[str, Any]:
    """Return the JSON form of a profile."""
    return NormProfile("mine", ModelIdentity("A", "b", "float32", 2, "c"), QuantileSketch((0, 1))).to_dict()


BAD_FILES = ["", "{", "null", "5", "[]", deep(), '{"a":' * 50_000, "\udcff\udcfe", '"\\ud83d"', "1" * 10_000, "NaN"]


@pytest.mark.parametrize("text", BAD_FILES, ids=range(len(BAD_FILES)))
@pytest.mark.parametrize("read", [NormProfile.load, NormTrace.read_jsonl])
def test_files_of_something_else_are_refused(tmp_path: Path, text: str, read: Any) -> None:
    """Whatever is in them; a file of traces may be empty."""
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    if text == "" and read == NormTrace.read_jsonl:
        assert read(path) == []
        return
    with pytest.raises(OptionError, match=r"x\.json` is not a (profile|trace) of this version of .*\. (Make|Use)"):
        read(path)


@pytest.mark.parametrize("path", ["/there/is/none.json", "/", "a\0b", "\udc80/\ud83d", "x" * 5000], ids=range(5))
@pytest.mark.parametrize("read", [NormProfile.load, NormTrace.read_jsonl])
def test_files_that_cannot_be_read_are_refused(path: str, read: Any) -> None:
    """Missing ones, folders, and names that no file can have; the error can be printed."""
    with pytest.raises(OptionError, match="cannot be read") as caught:
        read(path)
    str(caught.value).encode()


def test_a_file_without_end_is_refused() -> None:
    """Before all memory is full."""
    with pytest.raises(OptionError, match=f"more than {MOST_BYTES // 2**20} MiB"):
        read_text("/dev/zero", "Give another one.")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"langnorm_profile": 1}, "langnorm_profile"),
        ({"langnorm_profile": True}, "langnorm_profile"),
        ({"name": 3}, "name"),
        ({"identity": {"model": "A"}}, "identity"),
        ({"identity": profile()["identity"] | {"num_layers": "2"}}, "identity.num_layers"),
        ({"identity": profile()["identity"] | {"num_layers": 1}}, "layer 1 is outside"),
        ({"sketch": None}, "sketch"),
    ],
)
def test_a_damaged_profile_says_where(change: dict[str, Any], where: str) -> None:
    """The place is named, and how to get another one."""
    with pytest.raises(OptionError, match=rf"This is not a profile .*{where}.*`langnorm calibrate`"):
        NormProfile.from_dict(profile() | change)


def stored() -> dict[str, Any]:
    """Return the JSON form of a trace."""
    return trace(READING).to_dict()


BAD_TRACES: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "version"),
    ({"tokens": -1}, "tokens"),
    ({"tokens": True}, "tokens"),
    ({"tokens": 2**62}, ""),
    ({"layers": [10, 9]}, "do not ascend"),
    ({"layers": [9]}, "one for each layer"),
    ({"layers": [9, 11]}, "values by layer"),
    ({"mean": [1.0, math.inf]}, "mean"),
    ({"mean": [1.0, math.nan]}, "mean"),
    ({"mean": ["1.0", 2.0]}, "mean"),
    ({"intensity": 1.5}, "intensity"),
    ({"intensity": False}, "intensity"),
    ({"sinks": [99]}, "tokens that are not among"),
    ({"thresholds": {"9": 10**400, "10": 1.0}}, "thresholds"),
    ({"trigger_rate": {"9": 0.5}}, "values by layer"),
    ({"steps": [{}]}, "steps.0"),
    ({"steps": 5}, "steps"),
    ({"steps": [stored()["steps"][0] | {"end": 77}]}, "tokens that are not among"),
    ({"steps": [stored()["steps"][0] | {"text_span": [5, 1]}]}, "ends before it starts"),
    ({"steps": [stored()["steps"][0] | {"kind": "song"}]}, "kind"),
    ({"recursion": {"a": math.inf}}, "recursion"),
    ({"token_norms": [[1.0, 2.0]]}, "norms of 1 tokens"),
    ({"token_texts": ["a"]}, "texts of 1 tokens"),
]


@pytest.mark.parametrize(("change", "where"), [case for case in BAD_TRACES if case[1]])
def test_a_garbled_trace_says_where(change: dict[str, Any], where: str) -> None:
    """In a dict, in a message and in a line alike."""
    garbled = stored() | change
    message = AIMessage("x", response_metadata={KEY: garbled})
    readings = [lambda: NormTrace.from_dict(garbled), lambda: NormTrace.from_message(message)]
    if 10**400 not in (change.get("thresholds") or {}).values():
        readings.append(lambda: NormTrace.from_json(json.dumps(garbled)))
    for read in readings:
        with pytest.raises(OptionError, match=rf"is not a trace of this version .*{where}"):
            read()


@pytest.mark.parametrize("garbled", [5, "x", ["steps"], {"steps": None}, {"steps": object()}])
def test_garbled_metadata_is_refused(garbled: Any) -> None:
    """Wherever it is read."""
    message = AIMessage("x", response_metadata={KEY: garbled})
    for read in (
        lambda: NormTrace.from_message(message),
        lambda: NormTrace.from_messages([message]),
        lambda: rank([message], score="mean"),
    ):
        with pytest.raises(OptionError, match="What this `AIMessage` carries is not a trace"):
            read()


@pytest.mark.parametrize("given", [5, None, "text", [5], [None], {"messages": 5}])
def test_what_is_no_conversation_is_refused(given: Any) -> None:
    """The error says what it is."""
    with pytest.raises(OptionError, match="is no (conversation|message)"):
        NormTrace.from_messages(given)
    with pytest.raises(OptionError, match="`int` is no message"):
        NormTrace.from_message(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [[HumanMessage("x")], [5], [AIMessage("a"), None]])
def test_only_answers_are_ranked(given: Any) -> None:
    """The error says which one is none."""
    with pytest.raises(OptionError, match=r"Number \d of what is to be ranked .* Give AIMessages"):
        rank(given, score=None)


@pytest.mark.parametrize("given", [None, 5, "text", {}, AIMessage("x"), ()])
def test_only_lists_are_ranked(given: Any) -> None:
    """One message, too, stands in a list."""
    with pytest.raises(OptionError, match="Give at least one, in a list"):
        rank(given, score=None)


@pytest.mark.parametrize(
    "garbled",
    [5, "x", [1], {"content": 5}, {"content": [{}]}, {"content": [{"token": "a", "logprob": math.nan}]},
     {"content": [{"token": "a", "logprob": "-1"}]}],
)  # fmt: skip
def test_garbled_log_probabilities_are_refused_where_they_are_read(garbled: Any) -> None:
    """A score that reads none does not mind them."""
    messages = [message_with_norms("Yes."), message_with_norms("No.")]
    for message in messages:
        message.response_metadata["logprobs"] = garbled
    with pytest.raises(OptionError, match="under `logprobs` is not log-probabilities in OpenAI's form"):
        rank(messages, score="mean_logprob")
    assert len(rank(messages, score=None, vote="majority")) == 2


@pytest.mark.parametrize("given", [5, None, [], "x"])
def test_plans_are_a_mapping(given: Any) -> None:
    """The error says where they come from."""
    with pytest.raises(OptionError, match=r"`Plans\.to_dict`"):
        Plans.from_dict(given)


def test_states_that_overflowed_leave_a_trace_that_can_be_read() -> None:
    """Their tokens are sinks, and their norms the greatest number that there is."""
    norms = [[1.0], [math.inf], [2.0]]
    reading = read_norms(norms, (3,), Baseline())
    made = build_trace(4, (3,), norms, [], reading, keep_tokens=True)
    assert made.sinks == (1,)
    assert made.mean == (1.5,)
    assert made.token_norms == ((1.0,), (3.4028235e38,), (2.0,))
    assert NormTrace.from_json(made.to_json()) == made


def test_a_trace_that_cannot_be_json_says_so() -> None:
    """One that was made by hand."""
    made = NormTrace(tokens=1, layers=(0,), mean=(math.nan,), steps=())
    with pytest.raises(OptionError, match="Give it finite numbers"):
        made.to_json()
