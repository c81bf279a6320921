"""What LangChain's unit and integration tests are told of this chat model."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from typing import Any, Literal

from langchain_core.messages import AIMessage

from langnorm import ChatLangNorm

Detail = Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]


class SaysWhatItCan:
    """Everything that the suites can ask of a model of text is switched on."""

    @property
    def chat_model_class(self) -> type[ChatLangNorm]:
        return ChatLangNorm

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


class ReasonsAloud:
    """What the integration tests are told of the bundled model, whichever engine runs it."""

    chat_model_params: dict[str, Any]

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Detail]]:
        return {"invoke": ["reasoning_output"], "stream": ["reasoning_output"]}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        chat = ChatLangNorm(**self.chat_model_params)
        question = "Calculate 47 + 385."
        if not stream:
            return chat.invoke(question)
        chunks = iter(chat.stream(question))
        whole = next(chunks)
        for chunk in chunks:
            whole = whole + chunk
        assert isinstance(whole, AIMessage)
        return whole
