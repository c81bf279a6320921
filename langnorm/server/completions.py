"""`/v1/chat/completions`: a request becomes one call of the chat model, and its messages an answer."""

from __future__ import annotations

import json
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from langnorm.chat_models import ChatLangNorm
from langnorm.server.bodies import read_json
from langnorm.server.gate import Gate
from langnorm.server.guard import JSON
from langnorm.server.limits import limited
from langnorm.server.metrics import Metrics
from langnorm.server.options import ServerOptions
from langnorm.server.streams import ClientLeftError, EventStream, while_wanted
from langnorm.wire.answers import write_choice, write_delta, write_usage
from langnorm.wire.errors import WireError, error_status, write_error
from langnorm.wire.requests import ChatCall, read_call

_CLIENT_LEFT = 499  # as nginx counts it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of one answer begin with.

    Attributes:
        model: The name of the model.
        id: Of the answer.
        created: When it was asked for, in seconds since 1970.
    """

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """Return a whole answer."""
        return self._form("chat.completion", choices) | {"usage": usage}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a chunk of a streamed answer."""
        return self._form("chat.completion.chunk", choices)

    def _form(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class Completions:
    """Answers requests for completions.

    Args:
        chat: The chat model.
        name: What it is called.
        server: The limits.
        gate: Lets requests in.
        metrics: Counts them.
    """

    def __init__(self, chat: ChatLangNorm, name: str, server: ServerOptions, gate: Gate, metrics: Metrics) -> None:
        self._chat = chat.model_copy(update={"output_version": "v0", "streaming": False})
        self._streaming_chat = self._chat.model_copy(update={"streaming": True})
        self._name = name
        self._server = server
        self._gate = gate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            WireError: It is refused; so is it by langnorm's own errors.
        """
        status = 200
        try:
            call = read_call(await read_json(Request(scope, receive), self._server.max_body_bytes))
            if call.model is not None:
                check_model(call.model, self._name)
            options = limited(call.options, self._server, self._chat.max_tokens)
            with self._gate.admit():
                if call.is_streamed:
                    status = await self._stream(call, options, receive, send)
                else:
                    await JSON(await self._whole(call, options, receive))(scope, receive, send)
        except (ClientLeftError, ClientDisconnect):
            status = _CLIENT_LEFT
        except Exception as error:
            status = error_status(error)
            raise
        finally:
            self._metrics.count_request(status)

    async def _whole(self, call: ChatCall, options: dict[str, Any], receive: Receive) -> dict[str, Any]:
        started = time.monotonic()
        messages = await while_wanted(self._messages(call, options), receive, self._gate)
        self._metrics.count_answers(messages, time.monotonic() - started)
        choices = [write_choice(each, i, with_findings=call.with_findings) for i, each in enumerate(messages)]
        return Head(self._name).whole(choices, write_usage(messages))

    async def _messages(self, call: ChatCall, options: dict[str, Any]) -> list[AIMessage]:
        result = await self._chat.agenerate([call.messages], **options)
        generations = [each for each in result.generations[0] if isinstance(each, ChatGeneration)]
        return [each.message for each in generations if isinstance(each.message, AIMessage)]

    async def _stream(self, call: ChatCall, options: dict[str, Any], receive: Receive, send: Send) -> int:
        """Send an answer as it is generated, and return the status of its end."""
        stream = EventStream(send)
        try:
            await while_wanted(self._pump(call, options, stream), receive, self._gate, stream.watch())
        except ClientLeftError:
            raise
        except Exception as error:
            if not stream.is_started:
                raise
            if error_status(error) == 500:
                _log.exception("A stream has met an error.")
            await stream.fail(write_error(error))
            return error_status(error)
        return 200

    async def _pump(self, call: ChatCall, options: dict[str, Any], stream: EventStream) -> None:
        """Send all events of an answer. Several answers can be streamed when all have ended."""
        started, head = time.monotonic(), Head(self._name)
        last: list[AIMessage] = []
        begun: set[int] = set()

        async def send(chunk: AIMessageChunk, index: int) -> None:
            choice = write_delta(chunk, index, with_findings=call.with_findings)
            if index not in begun:
                if not begun:
                    self._metrics.count_first_chunk(time.monotonic() - started)
                begun.add(index)
                choice["delta"] = {"role": "assistant", "content": ""} | choice["delta"]
            await stream.send(head.chunk([choice]) | ({"usage": None} if call.with_usage else {}))
            if chunk.chunk_position == "last":
                last.append(chunk)

        if options.get("n", self._chat.n) > 1:
            for index, message in enumerate(await self._messages(call, options)):
                await send(_as_chunk(message), index)
        else:
            async with aclosing(self._streaming_chat.astream(call.messages, **options)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    if isinstance(chunk, AIMessageChunk) and _says_something(chunk):
                        await send(chunk, 0)
        self._metrics.count_answers(last, time.monotonic() - started)
        if call.with_usage:
            await stream.send(head.chunk([]) | {"usage": write_usage(last)})
        await stream.end()


def check_model(model: str, name: str) -> None:
    """Raise `WireError` unless a model is the served one, which is called `name`."""
    if model != name:
        msg = f"There is no model `{model}` here. Use `{name}`."
        raise WireError(msg, status=404, code="model_not_found", param="model")


def _says_something(chunk: AIMessageChunk) -> bool:
    return bool(chunk.content or chunk.additional_kwargs or chunk.tool_call_chunks or chunk.chunk_position == "last")


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a whole message as the one chunk of its stream."""
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    return AIMessageChunk(
        content=message.content,
        tool_call_chunks=[_call_chunk(call, index) for index, call in enumerate(calls)],
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )


def _call_chunk(call: Any, index: int) -> ToolCallChunk:
    args = call["args"] if isinstance(call["args"], str | None) else json.dumps(call["args"], ensure_ascii=False)
    return tool_call_chunk(name=call["name"], args=args, id=call["id"], index=index)
