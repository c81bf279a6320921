"""Reads the answer of a call that was held to a schema; what was cut off, or is not in the schema, is an error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.output_parsers.transform import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.json import parse_partial_json

from langnorm.chat.schemas import build_check

VALUE_KEY = "value"
"""The argument that has the value, where a tool stands for a schema that is not an object's."""


class AnswerParser(BaseTransformOutputParser[Any]):
    """Returns what an answer says: an instance of a pydantic class, or plain data.

    A stream of plain data has what can be read of it so far, again and again; instances come once, whole.
    """

    json_schema: dict[str, Any]
    """What the value has to follow, where there is no pydantic class."""
    model: Any = None
    """The pydantic class, or None."""
    tool: str | None = None
    """The tool whose arguments have the value, or None where it is the content."""
    is_wrapped: bool = False
    """Whether the value is in an argument of its own."""

    @property
    def _type(self) -> str:
        return "langnorm_answer"

    def parse(self, text: str) -> Any:
        """Return what a text says that is the whole content of an answer."""
        return self.parse_result([ChatGeneration(message=AIMessage(text))])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return what an answer says.

        Args:
            result: The answer.
            partial: Whether more of it is to come. Then what can be read already is returned, or None.

        Raises:
            OutputParserException: It was cut off, is no JSON, or is not in the schema.
        """
        message = result[0].message if isinstance(result[0], ChatGeneration) else AIMessage(result[0].text)
        return self._read_partial(message) if partial else self._read(message)

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002 (LangChain's name)
        growing = _Growing(self)
        for chunk in input:
            yield from growing.add(chunk)
        yield from growing.finish()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002
        growing = _Growing(self)
        async for chunk in input:
            for value in growing.add(chunk):
                yield value
        for value in growing.finish():
            yield value

    def _read(self, message: BaseMessage) -> Any:
        value, text = self._read_call(message) if self.tool else self._read_content(message)
        if self.model is None:
            if what := build_check(self.json_schema)(value):
                _fail(f"The answer is not in its schema: {what}", text)
            return value
        try:
            if hasattr(self.model, "model_validate_json"):
                return self.model.model_validate_json(text)
            return self.model.parse_obj(value)
        except ValueError as error:
            _fail(f"The answer is not a {self.model.__name__}: {error}", text, error)

    def _read_content(self, message: BaseMessage) -> tuple[Any, str]:
        """Return the value that is the content, and its text."""
        text = str(message.text)
        _check_end(message, text)
        if (calls := getattr(message, "tool_calls", [])) and not text.strip():
            names = ", ".join(f"`{call['name']}`" for call in calls)
            mend = "Read `tool_calls` of the message, or offer no tools."
            _fail(f"The answer has no value: it calls {names}. {mend}", text)
        return _load(text), text

    def _read_call(self, message: BaseMessage) -> tuple[Any, str]:
        """Return the value that is in the arguments of a call, and its text."""
        calls, broken = getattr(message, "tool_calls", []), getattr(message, "invalid_tool_calls", [])
        text = str(message.text) or "".join(str(call["args"]) for call in broken)
        _check_end(message, text)
        value = next((call["args"] for call in calls if call["name"] == self.tool), None)
        if value is None:
            error = next((call["error"] for call in broken if call["error"]), "there is none")
            _fail(f"The answer has no call of `{self.tool}` that can be read: {error}", text)
        if self.is_wrapped and VALUE_KEY not in value:
            _fail(f"The call of `{self.tool}` has no argument `{VALUE_KEY}`.", json.dumps(value))
        value = value[VALUE_KEY] if self.is_wrapped else value
        return value, json.dumps(value)

    def _read_partial(self, message: BaseMessage) -> Any:
        if self.model is not None:
            return None
        if self.tool is None:
            try:
                return parse_partial_json(str(message.text))
            except ValueError:
                return None
        calls = getattr(message, "tool_calls", [])
        value = next((call["args"] for call in calls if call["name"] == self.tool), None)
        return value.get(VALUE_KEY) if self.is_wrapped and value else value


class _Growing:
    """An answer that arrives in chunks."""

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._message: AIMessageChunk | None = None
        self._waiting: list[AIMessageChunk] = []  # joined at once where nobody reads what is there so far
        self._last: Any = None

    def add(self, chunk: str | BaseMessage) -> Iterator[Any]:
        """Yield what can be read now, if that is something new."""
        if isinstance(chunk, str):
            chunk = AIMessageChunk(content=chunk)
        elif not isinstance(chunk, AIMessageChunk):
            chunk = AIMessageChunk(**chunk.model_dump(exclude={"type"}))
        self._waiting.append(chunk)
        if self._parser.model is None:
            value = self._parser.parse_result([ChatGeneration(message=self._join())], partial=True)
            if value is not None and value != self._last:
                self._last = value
                yield value

    def finish(self) -> Iterator[Any]:
        """Yield the whole, unless that has been seen."""
        if self._waiting or self._message:
            value = self._parser.parse_result([ChatGeneration(message=self._join())])
            if self._parser.model is not None or value != self._last or value is None:
                yield value

    def _join(self) -> AIMessageChunk:
        chunks = [*([self._message] if self._message else []), *self._waiting]
        self._message, self._waiting = add_ai_message_chunks(chunks[0], *chunks[1:]), []
        return self._message


def _check_end(message: BaseMessage, text: str) -> None:
    """Raise the error of an answer that was not brought to its end: half of a number is another number."""
    reason = message.response_metadata.get("finish_reason")
    if reason in ("length", "pruned"):
        where = "at `max_tokens` or the end of the context" if reason == "length" else "by the selection"
        _fail(f"The answer was cut off {where}. Allow it more tokens, or ask for less.", text)


def _load(text: str) -> Any:
    def refuse(constant: str) -> None:
        msg = f"`{constant}` is not JSON"
        raise ValueError(msg)

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        _fail("The answer is nested too deeply.", text, error)
    except ValueError as error:
        _fail(f"The answer is not JSON: {error}.", text, error)


def _fail(what: str, text: str, cause: Exception | None = None) -> NoReturn:
    raise OutputParserException(what, llm_output=text) from cause
