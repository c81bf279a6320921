"""What LangChain's unit and integration tests are told of this chat model."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from langnorm import ChatLangNorm


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
