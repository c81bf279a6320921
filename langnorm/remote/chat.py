"""The part of the chat model that asks a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from langnorm.chat.settings import CallSettings
from langnorm.chat.token_counts import TokenCounts
from langnorm.chat.tools import convert_tools
from langnorm.checks import check_text
from langnorm.errors import RemoteError
from langnorm.remote.answering import RemoteAnswering
from langnorm.remote.http import Address
from langnorm.wire.conversations import write_messages
from langnorm.wire.names import COUNT_OPTIONS, FIELD
from langnorm.wire.writing import write_call


class RemoteCalls(TokenCounts):
    """Asks the server at `base_url`, where the engine is `"remote"`."""

    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids of the tokens of a text, by the model's tokenizer.

        Raises:
            ModelError: The tokenizer cannot be loaded.
            RemoteError: The server cannot be reached.
        """
        if not self.is_remote or self.custom_get_token_ids is not None:
            return super().get_token_ids(text)
        check_text("text", text)
        ids: list[int] = self._count({"prompt": text})["tokens"]
        return ids

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return how many tokens a prompt of these messages has; see `TokenCounts`.

        Raises:
            PromptError: A message has something else than text.
            ModelError: The tokenizer cannot be loaded, or has no chat template, or none with a place for tools.
            RemoteError: The server cannot be reached.
        """
        if not self.is_remote:
            return super().get_num_tokens_from_messages(messages, tools)
        if not messages:
            return 0
        own = {name: getattr(self, name) for name in COUNT_OPTIONS}
        body = {"messages": write_messages(messages), "tools": convert_tools(tools or ()), FIELD: own}
        return int(self._count(body)["count"])

    def _remote_answering(
        self, settings: CallSettings, options: dict[str, Any], messages: Sequence[BaseMessage], first_call_index: int
    ) -> RemoteAnswering:
        """Return a call of these settings for the server.

        Raises:
            OptionError: A setting is an object of this process.
            PromptError: A message cannot be put to a model of text.
        """
        return RemoteAnswering(
            address=self._address,
            model=settings.model,
            body=write_call(settings, options.get("step_splitter", self.step_splitter), messages),
            timeout=settings.timeout,
            max_retries=options.get("max_retries", self.max_retries),
            first_call_index=first_call_index,
        )

    def _remote_model(self) -> dict[str, Any]:
        """Return what the server says of its model beside OpenAI's fields; nothing if it is another server.

        Raises:
            RemoteError: The server cannot be reached, or answers with something else.
        """
        listed = self._address.call("GET", "models", timeout=self.timeout, max_retries=self.max_retries)
        try:
            return listed["data"][0].get(FIELD) or {}
        except (LookupError, TypeError, AttributeError) as error:
            msg = f"{self.base_url} has answered with something else than a list of models ({error!r})."
            raise RemoteError(msg) from error

    @property
    def _address(self) -> Address:
        return Address(str(self.base_url), None if self.api_key is None else self.api_key.get_secret_value())

    def _count(self, body: dict[str, Any]) -> Any:
        return self._address.call("POST", "/tokenize", body, timeout=self.timeout, max_retries=self.max_retries)
