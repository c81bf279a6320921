"""Messages as they come in: whether they are whole, and whether a tokenizer can read all of their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import ValidationError

from langnorm.chat.turns import to_turn
from langnorm.checks import is_nested_deeply, lone_surrogate
from langnorm.errors import PromptError


def to_turns(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages as chat templates take them.

    Raises:
        PromptError: A message is malformed, is of an unknown kind or has something else than text, or its text has half
            of a surrogate pair.
    """
    turns = [to_turn(message) for message in _validated(messages)]
    _check_readable(turns)
    return turns


def _validated(messages: Sequence[Any]) -> list[BaseMessage]:
    """Return messages whose fields are what their classes say: not all that makes or changes messages checks them.

    Raises:
        PromptError: A message is no message, or has a field that its class does not allow.
    """
    checked = []
    for number, message in enumerate(messages):
        if not isinstance(message, BaseMessage):
            msg = (
                f"Message {number} is a `{type(message).__name__}`. Give messages of LangChain, such as a HumanMessage."
            )
            raise PromptError(msg)
        try:
            checked.append(type(message).model_validate(dict(message.__dict__)))
        except Exception as error:  # pydantic's, or whatever LangChain stumbles over in it
            msg = f"Message {number}, a `{type(message).__name__}`, is malformed ({_first_fault(error)}). Make it anew."
            raise PromptError(msg) from error
    return checked


def _first_fault(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"


def _check_readable(turns: Sequence[dict[str, Any]]) -> None:
    """Do nothing if a tokenizer can read every text of a conversation as the chat template gets it.

    Raises:
        PromptError: A text has half of a surrogate pair, or arguments are nested too deeply.
    """
    for number, turn in enumerate(turns):
        if is_nested_deeply(turn):
            msg = (
                f"Message {number}, of role `{turn['role']!r:.40}`, has lists or dicts within each other on more "
                "levels than a chat template can write. Make them flatter, or give them as text."
            )
            raise PromptError(msg)
        if half := lone_surrogate(turn):
            msg = (
                f"Message {number}, of role `{turn['role']!r:.40}`, has `{half!r}`, half of a surrogate pair, which is "
                'not a character. Remove it, for example with `text.encode("utf-16", "surrogatepass").decode("utf-16", '
                '"replace")`.'
            )
            raise PromptError(msg)
