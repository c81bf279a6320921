"""The part of the chat model that counts tokens, for LangChain's `trim_messages` and the like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from langnorm.chat.counting import count_prompt_tokens, token_ids
from langnorm.chat.fields import ChatFields
from langnorm.chat.tools import convert_tools
from langnorm.engines.tokenizers import get_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenCounts(ChatFields):
    """Counts by the model's own tokenizer and chat template; no weights are loaded for that."""

    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids of the tokens of a text, by the model's tokenizer.

        Raises:
            ModelError: The tokenizer cannot be loaded.
        """
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return token_ids(self._tokenizer(), text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return how many tokens a prompt of these messages has, with the beginning of the answer.

        A part of a conversation that the template would refuse is counted with a short question before it, or as the
        sum of its turns.

        Args:
            messages: The conversation, or a part of one.
            tools: The tools that are offered, as `bind_tools` takes them.

        Raises:
            PromptError: A message has something else than text.
            ModelError: The tokenizer cannot be loaded, or has no chat template, or none with a place for tools.
        """
        return count_prompt_tokens(
            self._tokenizer(),
            messages,
            convert_tools(tools or ()),
            enable_thinking=self.enable_thinking,
            special_tokens=self.special_tokens,
        )

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if isinstance(self.engine, str):
            return get_tokenizer(self.engine, self.model, self.model_kwargs, self.engine_kwargs)
        return self.engine.tokenizer
