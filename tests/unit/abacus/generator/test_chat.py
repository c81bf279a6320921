"""Tests of the chat part of the generator."""

from __future__ import annotations

import collections
import itertools
import json
import random
import re
from typing import TYPE_CHECKING

import pytest

from langnorm.abacus.generator.chat import draw
from langnorm.abacus.generator.chat_content import INTENTS

if TYPE_CHECKING:
    from langnorm.abacus.generator.base import Example

# Strings of a third-party test suite that must not leak into training.
_RESERVED = ("parrot", "erick", "san francisco", "magic_function", "meow", "woof")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Draw enough examples for shares to be stable."""
    rng = random.Random(0)
    return [draw(rng, "train") for _ in range(12_000)]


def _share(examples: list[Example], *intents: str) -> float:
    return sum(example.details["intent"] in intents for example in examples) / len(examples)


def test_same_seed_gives_same_examples() -> None:
    """The examples depend on nothing but the generator."""
    first, second = random.Random(7), random.Random(7)
    assert [draw(first, "train") for _ in range(200)] == [draw(second, "dev") for _ in range(200)]


def test_shape_of_messages(examples: list[Example]) -> None:
    """Every conversation alternates between user and assistant, after at most one system message."""
    for example in examples:
        roles = [message["role"] for message in example.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert turns
        assert all(message["content"].strip() for message in example.messages)
        assert example.skill == "chat"
        assert example.tools == ()
        assert example.answer == example.messages[-1]["content"]


def test_only_last_message_thinks(examples: list[Example]) -> None:
    """There are short thoughts on the last message when thinking is enabled, and nowhere else."""
    for example in examples:
        assert not any("reasoning_content" in message for message in example.prompt)
        assert ("reasoning_content" in example.messages[-1]) == example.enable_thinking
        if example.enable_thinking:
            assert 0 < len(example.messages[-1]["reasoning_content"]) < 120


def test_shares(examples: list[Example]) -> None:
    """The skills that need practice get their share."""
    assert _share(examples, "repeat") == pytest.approx(0.20, abs=0.03)
    assert _share(examples, "refusal") == pytest.approx(0.15, abs=0.03)
    assert _share(examples, "recall") == pytest.approx(0.12, abs=0.03)
    assert _share(examples, "json") == pytest.approx(0.12, abs=0.03)
    thinking = sum(example.enable_thinking for example in examples) / len(examples)
    assert thinking == pytest.approx(0.5, abs=0.03)
    system = sum(example.messages[0]["role"] == "system" for example in examples) / len(examples)
    assert system == pytest.approx(0.1, abs=0.02)


def test_every_intent_is_varied(examples: list[Example]) -> None:
    """No intent repeats a handful of user texts."""
    texts = collections.defaultdict(set)
    for example in examples:
        texts[example.details["intent"]].add(example.messages[-2]["content"].lower().rstrip(".?!"))
    assert set(INTENTS) <= set(texts)
    assert min(len(distinct) for distinct in texts.values()) >= 25


def test_reserved_strings_are_absent(examples: list[Example]) -> None:
    """Nothing of the third-party test suite is in the examples."""
    for example in examples:
        text = json.dumps(example.messages, ensure_ascii=False).lower()
        assert not any(reserved in text for reserved in _RESERVED)


def test_no_field_is_left_open(examples: list[Example]) -> None:
    """Every field of every template is filled in."""
    for example in examples:
        for message in example.messages:
            assert not re.search(r"\{[a-z_]+\}", message["content"])


@pytest.mark.parametrize("intent", ["repeat", "pick"])
def test_copied_text_is_in_the_prompt(examples: list[Example], intent: str) -> None:
    """What is to be copied stands in the conversation, character by character."""
    for example in examples:
        if example.details["intent"] == intent:
            assert example.answer is not None
            assert any(example.answer in message["content"] for message in example.prompt)


def test_json_answers(examples: list[Example]) -> None:
    """JSON answers are one compact object whose keys and values stand in the user's text."""
    for example in examples:
        if example.details["intent"] != "json":
            continue
        assert example.answer is not None
        record = json.loads(example.answer)
        assert example.answer == json.dumps(record, ensure_ascii=False)
        assert record
        for key, value in record.items():
            assert isinstance(value, str | int)
            assert key in example.messages[-2]["content"]
            assert str(value) in example.messages[-2]["content"]


def test_recalled_value_was_told(examples: list[Example]) -> None:
    """A recalled value comes from a message of the user, and is denied only when it was not told."""
    seen = collections.Counter()
    for example in examples:
        if example.details["intent"] != "recall":
            continue
        assert example.answer is not None
        denied = example.answer.startswith("You have not told me")
        seen[denied] += 1
        if not denied:
            value = re.sub(r"^You(r .*? is| live in| are| work as a) ", "", example.answer)
            value = value.removesuffix(".").removesuffix(" years old")
            assert any(value in message["content"] for message in example.prompt if message["role"] == "user")
    assert seen[True] < seen[False] / 5
    assert seen[True]


def test_number_answers(examples: list[Example]) -> None:
    """Comparisons, parities and counts are correct."""
    for example in examples:
        user, answer = example.messages[-2]["content"], example.answer or ""
        match example.details["intent"]:
            case "compare":
                found = re.fullmatch(r"(?:Yes, |No, )?(\S+) is (larger|smaller) than (\S+)\.", answer)
                assert found is not None
                left, relation, right = float(found[1]), found[2], float(found[3])
                assert left > right if relation == "larger" else left < right
            case "parity":
                found = re.fullmatch(r"(Yes|No), (\d+) is (odd|even)\.", answer)
                assert found is not None
                assert found[3] == ("odd" if int(found[2]) % 2 else "even")
                assert (found[1] == "Yes") == bool(re.search(rf"\b{found[3]}\b", user.lower()))
            case "count":
                numbers = [int(number) for number in answer.split(", ")]
                steps = {after - before for before, after in itertools.pairwise(numbers)}
                assert steps in ({1}, {-1})
                assert 1 <= min(numbers) < max(numbers) <= 20
