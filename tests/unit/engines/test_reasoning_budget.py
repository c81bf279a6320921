"""Reasoning before an answer that is held to a grammar ends in time, whatever its marks are made of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.reasoning_budget import ReasoningBudget
from langnorm.engines.requests import Grammar, ReasoningMarks
from langnorm.engines.vocabulary import get_vocabulary
from langnorm.text.marks import THINKING_TAGS
from tests.support.chat_tokenizers import chat_tokenizer

FAMILIES = ["abacus", "llama-2", "unigram", "gemma", "gpt-2"]


def budget(family: str, marks: tuple[str, str], *, is_open: bool = True, limit: int = 100) -> tuple[Any, Any]:
    """Returns a budget with an answer of ten tokens, and the vocabulary."""
    vocabulary = get_vocabulary(chat_tokenizer(family))
    return ReasoningBudget(Grammar("", 10, ReasoningMarks(*marks, is_open=is_open)), limit, vocabulary), vocabulary


def close(watched: ReasoningBudget, vocabulary: Any, num_left: int) -> str:
    """Returns the text that is forced until the reasoning has ended."""
    ids: list[int] = []
    while (token := watched.next_token(num_left)) is not None:
        ids.append(token)
        watched.add(token)
        assert len(ids) < 20
    return str(vocabulary.decode_str(ids))


@pytest.mark.parametrize("marks", THINKING_TAGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_closing_mark_is_written_token_by_token(family: str, marks: tuple[str, str]) -> None:
    """One token or several, it is the mark and nothing else."""
    watched, vocabulary = budget(family, marks)
    for token in vocabulary.tokenize_str("I think. "):
        watched.add(token)
    assert watched.next_token(100) is None
    assert close(watched, vocabulary, 12) == marks[1]
    assert watched.next_token(1) is None


@pytest.mark.parametrize("family", ["llama-2", "gpt-2"])
@pytest.mark.parametrize(
    ("written", "rest"),
    [
        (b"</", "think>"),
        (b"</think", ">"),
        (b"<</thi", "nk>"),
        (b"</</t", "hink>"),
        (b"</b", "</think>"),
    ],
)
def test_a_mark_that_has_begun_is_finished(family: str, written: bytes, rest: str) -> None:
    """Nothing of it is written twice."""
    watched, vocabulary = budget(family, ("<think>", "</think>"))
    for token in vocabulary.tokenize_bytes(written):
        watched.add(token)
    assert close(watched, vocabulary, 12) == rest


@pytest.mark.parametrize("family", FAMILIES)
def test_a_character_of_a_mark_that_has_begun_is_finished(family: str) -> None:
    """Its bytes may be tokens of their own."""
    watched, vocabulary = budget(family, ("◁think▷", "◁/think▷"))
    whole = "◁/think▷".encode()
    ids = vocabulary.tokenize_bytes(whole[:2])
    for token in ids:
        watched.add(token)
    while (token := watched.next_token(1)) is not None:
        ids.append(token)
        watched.add(token)
        assert len(ids) < 20
    assert vocabulary.decode_bytes(ids) == whole


@given(text=st.text(alphabet="</thinkTHINK[]> {", max_size=30), at=st.integers(0, 30))
def test_however_the_mark_is_cut_it_is_seen(text: str, at: int) -> None:
    """Reasoning is over where a reader sees the mark, and otherwise brought there."""
    watched, vocabulary = budget("gpt-2", ("[THINK]", "[/THINK]"))
    text = text[:at] + "[/THINK]" + text[at:]
    whole = b""
    for byte in text.encode():
        (token,) = vocabulary.greedy_tokenize(chr(byte))
        watched.add(token)
        whole += bytes([byte])
        assert (watched.next_token(1) is None) == (b"[/THINK]" in whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_reasoning_that_was_not_begun_is_not_ended(family: str) -> None:
    """An answer may have the marks in its texts."""
    watched, vocabulary = budget(family, ("[THINK]", "[/THINK]"), is_open=False)
    for token in vocabulary.greedy_tokenize('["[THINK]'):
        assert watched.next_token(1) is None
        watched.add(token)
    assert watched.next_token(1) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_reasoning_that_the_model_begins_is_ended(family: str) -> None:
    """Once its opening mark is whole."""
    watched, vocabulary = budget(family, ("[THINK]", "[/THINK]"), is_open=False)
    for token in vocabulary.greedy_tokenize("[THINK]"):
        assert watched.next_token(1) is None
        watched.add(token)
    assert close(watched, vocabulary, 1) == "[/THINK]"


@pytest.mark.parametrize(("limit", "kept"), [(40, 10), (400, 100), (2**31 - 1, 1024)])
def test_a_quarter_is_kept_for_the_answer(limit: int, kept: int) -> None:
    """At most 1,024 tokens, beside the shortest answer, the mark and a character that has begun."""
    watched, _ = budget("abacus", ("<think>", "</think>"), limit=limit)
    reserved = 10 + 1 + 3 + kept
    assert watched.next_token(reserved + 1) is None
    assert watched.next_token(reserved) is not None


def test_a_grammar_without_reasoning_forces_nothing() -> None:
    """There is nothing to end."""
    watched = ReasoningBudget(Grammar("", 10), 20, get_vocabulary(chat_tokenizer("abacus")))
    watched.add(40)
    assert watched.next_token(1) is None
