"""Messages keep how late in the stack their tokens settled, as a plain pass over the text has it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langnorm import ChatLangNorm, NormTrace
from langnorm.errors import OptionError
from langnorm.testing import ScriptedEngine
from tests.bundled.test_chat_models import merged
from tests.reference.reductions import lens_of, reference_lens
from tests.support.selections import QUESTION

QUESTIONS = [QUESTION, "What is 7 + 5?", "Hi"]
SETTINGS: dict[str, Any] = {"norms": "tokens", "max_tokens": 25}


@pytest.fixture(autouse=True)
def needs_a_lens(abacus_engine) -> None:
    """Skip on engines without one."""
    if "lens" not in abacus_engine.abilities:
        pytest.skip("this engine has no lens")


def assert_lens(engine: Any, question: str, message: AIMessage, layers: tuple[int, ...]) -> None:
    """Check what a message keeps against the oracle, which runs its tokens once more, plainly."""
    kept = message.additional_kwargs["langnorm"]["token_lens"]
    ids = NormTrace.from_message(message).token_ids
    prompt = engine.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    expected = lens_of(reference_lens(engine.model, prompt, ids or ()), layers)
    assert set(kept) == set(expected)
    for name, values in expected.items():
        assert kept[name] == pytest.approx(values, rel=1e-5), name


@pytest.mark.parametrize(("lens", "layers"), [(True, (9, 10)), ("all", tuple(range(12))), ([-1, 6], (6, 11))])
def test_batches_and_samples_keep_them(abacus_engine, lens: Any, layers: tuple[int, ...]) -> None:
    """Of each of their tokens, whichever layers are asked for; prompts are of unequal lengths."""
    chat = ChatLangNorm(lens=lens, **SETTINGS)
    for question, message in zip(QUESTIONS, chat.batch(QUESTIONS), strict=True):
        assert_lens(abacus_engine, question, message, layers)
    [samples] = chat.generate([[HumanMessage(QUESTION)]], n=2, temperature=1.0, seed=3).generations
    for sample in samples:
        assert_lens(abacus_engine, QUESTION, sample.message, layers)


def test_a_stream_keeps_what_a_whole_message_keeps(abacus_engine) -> None:
    """Once, with its last chunk; beside the distributions."""
    chunks = list(ChatLangNorm(**SETTINGS).stream(QUESTION, lens=True, distribution=True))
    assert len([chunk for chunk in chunks if "token_lens" in chunk.additional_kwargs.get("langnorm", {})]) == 1
    message = merged(chunks)
    assert_lens(abacus_engine, QUESTION, message, (9, 10))
    of_ours = message.additional_kwargs["langnorm"]
    assert len(of_ours["token_distribution"]["entropy"]) == len(of_ours["token_lens"]["settling"])


@pytest.mark.parametrize("off", [False, None])
def test_nothing_is_kept_unasked(off: Any) -> None:
    """Nor where a call switches it off."""
    message = ChatLangNorm(lens="deep", norms="off", max_tokens=3).invoke(QUESTION, lens=off)
    assert "langnorm" not in message.additional_kwargs


@pytest.mark.parametrize("value", ["lates", 99, 1, {}])
def test_what_is_no_lens_is_refused(value: Any) -> None:
    """By its own name."""
    with pytest.raises(OptionError, match="`lens=.*` is not allowed. Use True, or layers"):
        ChatLangNorm(engine=ScriptedEngine(["a"])).invoke("Hi", lens=value)


def test_engines_without_a_lens_refuse_it() -> None:
    """Before anything is generated, with the reason."""
    engine = ScriptedEngine(["a"])
    with pytest.raises(OptionError, match="`ScriptedEngine` cannot read states as distributions of the next token"):
        ChatLangNorm(engine=engine).invoke("Hi", lens=True)
    assert not engine.requests
