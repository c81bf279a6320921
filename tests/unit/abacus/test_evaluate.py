"""What the model card measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langnorm.abacus.evaluate import final_number, is_right, table, tool_calls, write_card
from langnorm.abacus.generator.base import Example

CALL = '<tool_call>\n{"name": "sum", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("<think>\n1 + 2 = 3\n</think>\n\nThe answer is 3.", "3"),
        ("It is -12.", "-12"),
        ("From 4 to 15", "15"),
        ("<think>\n7\n</think>\n\nNo idea.", None),
    ],
)
def test_the_number_after_the_reasoning_counts(text: str, number: str | None) -> None:
    """Numbers in the reasoning are none of the answer."""
    assert final_number(text) == number


def test_calls_have_to_be_json() -> None:
    """One call that is none spoils all."""
    assert tool_calls(f"{CALL}\n{CALL}") == [{"name": "sum", "arguments": {"a": 1}}] * 2
    assert tool_calls(f"{CALL}\n<tool_call>\n{{name: sum}}\n</tool_call>") is None
    assert tool_calls("no call") == []


def test_right_is_the_same_number_or_exactly_the_same_calls() -> None:
    """The order of arguments does not matter, their values, types and number do."""
    reply: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [{}]}
    expected = '[{"name": "f", "arguments": {"a": 1, "b": "x"}}]'
    example = Example("tools", ({"role": "user", "content": "?"}, reply), answer=expected)

    def call(arguments: str) -> str:
        return f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'

    assert is_right(example, call('{"b": "x", "a": 1}'))
    for wrong in ('{"b": "x", "a": "1"}', '{"b": "x"}', '{"a": 1, "b": "x", "c": null}'):
        assert not is_right(example, call(wrong))
    assert not is_right(example, call('{"b": "x", "a": 1}') * 2)
    sum_ = Example("arithmetic", ({"role": "user", "content": "1 + 2"},), answer="3")
    assert is_right(sum_, "<think>\n4\n</think>\n\nIt is 3.")
    assert not is_right(sum_, "<think>\n3\n</think>\n\nIt is 4.")


def test_the_card_keeps_all_but_its_table(tmp_path: Path) -> None:
    """Figures replace figures; the text around them stays."""
    card = tmp_path / "README.md"
    card.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    write_card(card, {"easy_greedy": 0.5})
    assert table({"easy_greedy": 0.5}).endswith("accuracy | 0.500 |")
    assert card.read_text() == (
        f"before\n<!-- results: begin -->\n{table({'easy_greedy': 0.5})}\n<!-- results: end -->\nafter\n"
    )
