"""The forms in which families of models call tools, and what a call is once it is read.

Families differ in the marks around calls, which the chat template shows. What stands between the marks tells by itself
in which notation it is written (`langnorm.text.call_notations`).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

from langnorm.checks import lone_surrogate
from langnorm.text.brackets import spoiled


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How a family of models writes calls.

    Attributes:
        name: Of the family.
        opens: The mark before a call, or before several; empty where there is none.
        closes: The mark after it; empty where the next mark, or the end of the answer, ends it.
        inner: Further marks between the two, which stand around each call.
        arguments_key: The key beside `"name"`.
        is_list: Whether the calls after one mark are a JSON list.
        is_bare: Whether a call that has to be made is written without a mark.
        is_taught_bare: Whether an answer that begins with a brace is a call, whatever tool it names; else, without a
            mark, it has to name one that is offered.
        id_length: Characters of a call's id, all letters and digits, or 0 where any id will do.
    """

    name: str
    opens: str = ""
    closes: str = ""
    inner: tuple[str, ...] = ()
    arguments_key: str = "arguments"
    is_list: bool = False
    is_bare: bool = False
    is_taught_bare: bool = False
    id_length: int = 0


HERMES = ToolForm("hermes", "<tool_call>", "</tool_call>")
LLAMA = ToolForm("llama", "<|python_tag|>", arguments_key="parameters", is_bare=True, is_taught_bare=True)
MISTRAL = ToolForm("mistral", "[TOOL_CALLS]", is_list=True, id_length=9)
MISTRAL_NAMED = ToolForm("mistral_named", "[TOOL_CALLS]", id_length=9)
HARMONY = ToolForm("harmony", is_bare=True)  # gpt-oss: in channels, which `langnorm.text.harmony` reads
JSON = ToolForm("json", is_bare=True, is_taught_bare=True)
UNKNOWN = ToolForm("unknown", is_bare=True)

# Of two of which one is found in templates of the other, the more exact one goes first.
_MARKED = (
    ToolForm("minimax_m2", "<minimax:tool_call>", "</minimax:tool_call>"),
    ToolForm("seed", "<seed:tool_call>", "</seed:tool_call>"),
    ToolForm("deepseek_dsml", "<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
    ToolForm(
        "deepseek",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
    ),
    ToolForm(
        "kimi",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        ("<|tool_call_begin|>", "<|tool_call_end|>"),
    ),
    ToolForm("lfm2", "<|tool_call_start|>", "<|tool_call_end|>"),
    ToolForm("command", "<|START_ACTION|>", "<|END_ACTION|>", arguments_key="parameters"),
    ToolForm("olmo3", "<function_calls>", "</function_calls>"),
    ToolForm("nemotron", "<TOOLCALL>", "</TOOLCALL>"),
    ToolForm("functiongemma", "<start_function_call>", "<end_function_call>"),
    ToolForm("gemma4", "<|tool_call>", "<tool_call|>"),
    ToolForm("phi4", "<|tool_call|>", "<|/tool_call|>", is_list=True),
    ToolForm("minimax", "<tool_calls>", "</tool_calls>", ("<tool_call>", "</tool_call>")),
    HERMES,
)

_TAUGHT_JSON = re.compile(r"""["']name\\?["']\s*:.{0,200}?["'](?:arguments|parameters)\\?["']\s*:""", re.DOTALL)


@lru_cache(maxsize=64)
def detect_tool_form(chat_template: str) -> ToolForm:
    """Return the form in which a model with this chat template is taught to call tools; it may be `UNKNOWN`."""
    for form in _MARKED:
        if form.opens in chat_template:
            return form
    if MISTRAL.opens in chat_template:
        return MISTRAL_NAMED if "[ARGS]" in chat_template else MISTRAL
    if "<|start|>" in chat_template and "<|message|>" in chat_template:
        return HARMONY
    if LLAMA.opens in chat_template:
        return LLAMA
    if _TAUGHT_JSON.search(chat_template):
        # Templates of Llama 3.2 and its kin do not write the mark, which their models know all the same.
        return LLAMA if "<|start_header_id|>" in chat_template else JSON
    return UNKNOWN


@dataclass(frozen=True, slots=True)
class CallChunk:
    """What one call gained.

    Attributes:
        index: Number of the call in its answer.
        id: Of the call; in its first chunk only.
        name: Of the tool; in its first chunk only.
        arguments: Some of its arguments' JSON.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A finished call.

    Attributes:
        id: Of the call.
        name: Of the tool; None where it could not be read.
        arguments: By name; None where they could not be read.
        raw: The arguments as the model wrote them; of what could not be read as a call, all of it with its marks.
        error: What is wrong with it, or None.
    """

    id: str
    name: str | None
    arguments: dict[str, Any] | None
    raw: str
    error: str | None = None


class CallList:
    """The calls of an answer while they are read.

    Args:
        id_length: See `ToolForm`.

    Attributes:
        finished: The calls so far.
    """

    def __init__(self, id_length: int = 0) -> None:
        self.finished: list[ToolCall] = []
        self._id_length = id_length
        self._written_ids: set[str] = set()

    @property
    def next_index(self) -> int:
        """Number of the next call."""
        return len(self.finished)

    def new_id(self, written: str | None = None) -> str:
        """Return an id: the one that the model wrote, if it wrote one and not twice."""
        if written and written not in self._written_ids:
            self._written_ids.add(written)
            return written
        return secrets.token_hex(8)[: self._id_length] if self._id_length else f"call_{secrets.token_hex(12)}"

    def add(self, name: str, arguments: dict[str, Any], call_id: str | None = None) -> CallChunk:
        """Add a whole call, and return the chunk that says all of it."""
        raw = json.dumps(arguments, ensure_ascii=False)
        call = ToolCall(self.new_id(call_id), name, arguments, raw)
        self.finished.append(call)
        return CallChunk(len(self.finished) - 1, call.id, name, raw)

    def add_invalid(self, raw: str) -> CallChunk:
        """Add what was meant to be a call and cannot be read, and return the chunk that says all of it."""
        raw = spoiled(raw)  # whoever joins the chunks must not take it for arguments
        call = ToolCall(self.new_id(), None, None, raw, "This is not a call with a name and arguments.")
        self.finished.append(call)
        return CallChunk(len(self.finished) - 1, call.id, None, raw)


def load_json(text: str) -> Any:
    """Return what a JSON text says; line breaks in its strings are allowed.

    Raises:
        ValueError: It is no JSON, or has what a message cannot carry: NaN, infinity, too long a number, too deep lists,
            or half of a surrogate pair.
    """

    def refuse(constant: str) -> None:
        msg = f"`{constant}` is not JSON"
        raise ValueError(msg)

    def finite(number: str) -> float:
        if not isfinite(value := float(number)):
            refuse(number)
        return value

    try:
        value = json.loads(text, strict=False, parse_constant=refuse, parse_float=finite)
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise ValueError(msg) from error
    check_characters(value)
    return value


def check_characters(value: Any) -> None:
    """Raise `ValueError` if a text in a value has half of a surrogate pair, as a cut or mistaken escape leaves it."""
    if half := lone_surrogate(value):
        msg = f"`{half!r}` is half of a surrogate pair"
        raise ValueError(msg)


def load_calls(text: str, *, is_marked: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls in a JSON text that is written in an order or with keys of its own; none if it has others.

    Where a mark says that this is a call, its arguments may be missing.
    """
    try:
        value = load_json(text)
    except ValueError:
        return []
    calls = []
    for item in value if isinstance(value, list) else [value]:
        call = item.get("function", item) if isinstance(item, dict) else {}
        call = call if isinstance(call, dict) else item
        name = call.get("name", call.get("tool_name"))
        arguments = call.get("arguments", call.get("parameters", {} if is_marked else None))
        if isinstance(arguments, str):
            try:
                arguments = load_json(arguments)
            except ValueError:
                return []
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return []
        calls.append((name, arguments))
    return calls


def offered_tools(tools: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the JSON schemas of the tools' arguments, by the names of the tools, which are given in OpenAI's form."""
    functions = [tool["function"] for tool in tools]
    return {function["name"]: function.get("parameters") or {} for function in functions}
