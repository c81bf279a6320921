"""Calls of earlier turns, in the arrangement in which a chat template writes them.

Templates disagree: some write calls only where the content is None, some add the arguments as a text, some write the id
and not the name, some take one call per turn. What a template leaves out it leaves out in silence, and the model would
not know what it has called. So the turns are rendered once with names that nobody else has, and where one of these is
missing another arrangement is tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from langnorm.errors import PromptError

Turn = dict[str, Any]
Render = Callable[[list[Turn]], str]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How earlier calls are put to a template.

    Attributes:
        is_none: The content of a turn with calls is None where it is empty.
        is_json: Arguments are a JSON text, and not a dict.
        is_apart: Content that is not empty has a turn of its own, before that of the calls.
        is_single: Each call has a turn of its own, with its result after it.
        is_named: Ids are made of the name of the tool.
        is_text: Calls are written into the content, for templates without a place for them.
    """

    is_none: bool = False
    is_json: bool = False
    is_apart: bool = False
    is_single: bool = False
    is_named: bool = False
    is_text: bool = False


# Without need, a template gets what most are written for.
_CONTENTS: tuple[dict[str, bool], ...] = ({}, {"is_none": True}, {"is_json": True}, {"is_none": True, "is_json": True})
_ARRANGEMENTS = (
    *(Arrangement(**content) for content in _CONTENTS),
    *(Arrangement(**content, is_apart=True) for content in _CONTENTS[1::2]),
    *(Arrangement(**content, is_single=True) for content in _CONTENTS),
    *(Arrangement(**content, is_apart=True, is_single=True) for content in _CONTENTS[1::2]),
    *(Arrangement(**content, is_named=True) for content in _CONTENTS[::2]),
    Arrangement(is_text=True),
)


def arrange_calls(turns: list[Turn], render: Render) -> list[Turn]:
    """Return turns with their calls as the template writes them.

    Args:
        turns: All turns.
        render: Applies the chat template to turns.

    Raises:
        PromptError: The template refuses the turns, or leaves out calls in every arrangement.
    """
    if not any(turn.get("tool_calls") for turn in turns):
        return turns
    marked, names = _with_own_names(turns)
    first_error: PromptError | None = None
    second_best: list[Turn] | None = None  # names every call, with arguments as Python shows them
    for arrangement in _ARRANGEMENTS:
        try:
            text = render(_arranged(marked, arrangement))
        except PromptError as error:
            first_error = first_error or error
            continue
        if all(name in text for name in names):
            if not _has_wrong_arguments(turns, text, arrangement):
                return _arranged(turns, arrangement)
            second_best = second_best or _arranged(turns, arrangement)
    if second_best is not None:
        return second_best
    if first_error:
        raise first_error
    msg = (
        "The model's chat template leaves out the tool calls of earlier messages, so the model would not know what it "
        "has called. Use a template with a place for them, "
        '`model_kwargs={"chat_template": "..."}`, or leave messages with tool calls and their results out.'
    )
    raise PromptError(msg)


def _with_own_names(turns: list[Turn]) -> tuple[list[Turn], list[str]]:
    """Return turns whose calls have names that occur nowhere else, and these names."""
    everything = json.dumps(turns, ensure_ascii=False, default=str)
    stem = next(stem for number in count() if (stem := f"earliercall{number}n") not in everything)
    names: list[str] = []

    def own_name() -> str:
        names.append(f"{stem}{len(names)}x")
        return names[-1]

    marked = [
        turn | {"tool_calls": [_with(call, name=own_name()) for call in turn["tool_calls"]]}
        if turn.get("tool_calls")
        else turn
        for turn in turns
    ]
    return marked, names


def _with(call: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return call | {"function": call["function"] | fields}


def _has_wrong_arguments(turns: list[Turn], text: str, arrangement: Arrangement) -> bool:
    """Return whether arguments are written as Python shows a dict, or as a JSON text inside of another."""
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            shown = json.dumps(_dumped(arguments)) if arrangement.is_json else str(arguments)
            if shown != _dumped(arguments) and shown in text:
                return True
    return False


def _dumped(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False, default=str)


def _arranged(turns: Sequence[Turn], arrangement: Arrangement) -> list[Turn]:
    turns = list(_named(turns)) if arrangement.is_named else turns
    turns = list(_single(turns)) if arrangement.is_single else turns
    return [arranged for turn in turns for arranged in _arranged_turn(turn, arrangement)]


def _arranged_turn(turn: Turn, arrangement: Arrangement) -> Iterator[Turn]:
    if not (calls := turn.get("tool_calls")):
        yield turn
        return
    if arrangement.is_text:
        written = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in calls]
        texts = [turn["content"], *map(_dumped, written)]
        yield {key: value for key, value in turn.items() if key != "tool_calls"} | {
            "content": "\n".join(filter(None, texts))
        }
        return
    if arrangement.is_json:
        calls = [_with(call, arguments=_dumped(call["function"]["arguments"])) for call in calls]
    if arrangement.is_apart and turn["content"]:
        yield {key: value for key, value in turn.items() if key != "tool_calls"}
        turn = {"role": turn["role"], "content": ""}
    content = None if arrangement.is_none and not turn["content"] else turn["content"]
    yield turn | {"content": content, "tool_calls": calls}


def _single(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Yield turns with one call each, the result of each call after it."""
    results = {turn["tool_call_id"]: turn for turn in turns if "tool_call_id" in turn}
    moved: set[int] = set()
    for turn in turns:
        calls = turn.get("tool_calls") or ()
        if len(calls) < 2:
            if id(turn) not in moved:
                yield turn
            continue
        for number, call in enumerate(calls):
            own = turn if number == 0 else {"role": turn["role"], "content": ""}
            yield own | {"tool_calls": [call]}
            if (result := results.get(call["id"])) and id(result) not in moved:
                moved.add(id(result))
                yield result


def _named(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Yield turns with ids such as `functions.weather:0`, for templates that write no other name of a call."""
    numbers = count()
    new_ids: dict[Any, str] = {}
    for turn in turns:
        if calls := turn.get("tool_calls"):
            renamed = [call | {"id": f"functions.{call['function']['name']}:{next(numbers)}"} for call in calls]
            new_ids |= {old["id"]: new["id"] for old, new in zip(calls, renamed, strict=True)}
            yield turn | {"tool_calls": renamed}
        elif turn.get("tool_call_id") in new_ids:
            yield turn | {"tool_call_id": new_ids[turn["tool_call_id"]]}
        else:
            yield turn
