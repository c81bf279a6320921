"""Tokens are counted by the model's own tokenizer and template, and no weights are loaded for that."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm import ChatLangNorm
from langnorm.chat.counting import count_prompt_tokens
from langnorm.engines import registry
from langnorm.errors import ModelError, PromptError
from langnorm.testing import ScriptedEngine
from tests.support.tool_forms import WEATHER

CALL = {"name": "weather", "args": {"city": "Oslo"}, "id": "1", "type": "tool_call"}
CONVERSATION = [
    SystemMessage("Be brief."),
    HumanMessage("Weather in Oslo?"),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("sunny", tool_call_id="1"),
]


@pytest.fixture
def chat() -> ChatLangNorm:
    """A chat model with the bundled tokenizer and a script."""
    return ChatLangNorm(engine=ScriptedEngine(["Sunny."], is_repeated=True), temperature=0, norms="off")


def test_a_count_is_what_the_call_takes(chat: ChatLangNorm) -> None:
    """Prompt, template and beginning of the answer, as the message's usage says; tools where there are any."""
    for messages in (CONVERSATION[:2], CONVERSATION):
        usage = chat.invoke(messages).usage_metadata
        assert usage is not None
        assert chat.get_num_tokens_from_messages(messages) == usage["input_tokens"]
    usage = chat.bind_tools([WEATHER]).invoke(CONVERSATION).usage_metadata  # type: ignore[attr-defined]
    assert chat.get_num_tokens_from_messages(CONVERSATION, tools=[WEATHER]) == usage["input_tokens"]


@pytest.mark.parametrize("settings", [{"enable_thinking": False}, {"special_tokens": "allow"}], ids=str)
def test_a_count_is_by_the_settings_of_the_model(chat: ChatLangNorm, settings: dict[str, Any]) -> None:
    """Whether it may reason, and whether a control token in a message is one token or its letters."""
    other = chat.model_copy(update=settings)
    messages: list[Any] = [HumanMessage("Say <|im_end|>.")]
    usage = other.invoke(messages).usage_metadata
    assert usage is not None
    assert other.get_num_tokens_from_messages(messages) == usage["input_tokens"]
    assert chat.get_num_tokens_from_messages(messages) != usage["input_tokens"]


def test_text_is_counted_alone(chat: ChatLangNorm) -> None:
    """Without a template and without what it adds."""
    ids = chat.get_token_ids("Calculate 47 + 385.")
    assert chat.loaded_engine().tokenizer.decode(ids) == "Calculate 47 + 385."
    assert chat.get_num_tokens("Calculate 47 + 385.") == len(ids)
    counting = ChatLangNorm(custom_get_token_ids=lambda text: [1] * len(text))
    assert counting.get_num_tokens("abc") == 3


def test_messages_are_trimmed_to_what_fits(chat: ChatLangNorm) -> None:
    """The long one goes, and what is left can be called with."""
    history = [HumanMessage("1 + 1. " * 2000), HumanMessage("Calculate 47 + 385.")]
    assert trim_messages(history, max_tokens=100, token_counter=chat) == history[1:]
    kept = trim_messages(
        [CONVERSATION[0], HumanMessage("1 + 1. " * 2000), AIMessage("Hm."), *CONVERSATION[1:]],
        max_tokens=150,
        token_counter=chat,
        include_system=True,
        start_on="human",
    )
    assert kept == CONVERSATION


STRICT = (
    "{% if messages[0].role not in ['system', 'user'] %}{{ raise_exception('begin with the user') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
REFUSING = "{{ raise_exception('never') }}"


def tokenizer_with(template: Any) -> Any:
    """Returns the bundled tokenizer with another template."""
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    tokenizer.chat_template = template
    return tokenizer


def test_a_part_that_the_template_refuses_is_counted_too() -> None:
    """As what it adds to a whole conversation, or by its turns."""
    strict = tokenizer_with(STRICT)
    question, reply = HumanMessage("?"), AIMessage("Sunny in Oslo.")
    added = count_prompt_tokens(strict, [question, reply]) - count_prompt_tokens(strict, [question])
    assert count_prompt_tokens(strict, [reply]) >= added > 0
    refusing = tokenizer_with(REFUSING)
    counts = [count_prompt_tokens(refusing, [AIMessage("Sunny. " * n)]) for n in (1, 10, 100)]
    assert counts == sorted(counts)
    assert counts[2] > 100
    assert count_prompt_tokens(refusing, []) == 0


def test_what_cannot_be_put_to_the_model_is_not_counted() -> None:
    """The errors are those of a call."""
    with pytest.raises(PromptError, match="image_url"):
        count_prompt_tokens(tokenizer_with(REFUSING), [HumanMessage([{"type": "image_url", "image_url": "x"}])])
    with pytest.raises(ModelError, match="no chat template"):
        count_prompt_tokens(tokenizer_with(None), [HumanMessage("x")])


def test_no_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer is enough."""
    monkeypatch.setattr(registry, "_get_loader", lambda _: pytest.fail("the weights were loaded"))
    chat = ChatLangNorm(model_kwargs={"chat_template": STRICT})
    assert chat.get_num_tokens("Calculate 47 + 385.") > 5
    assert chat.get_num_tokens_from_messages([HumanMessage("Calculate 47 + 385.")]) > 10
    with pytest.raises(ModelError, match="could not be loaded|There is no"):
        ChatLangNorm(model="./no-such-folder").get_num_tokens("x")
