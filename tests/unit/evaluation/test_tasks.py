"""Tasks: files are read as they are meant, and what is wrong with one is said with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langnorm.errors import OptionError
from langnorm.evaluation import Item, Task, load_task
from langnorm.evaluation.tasks import QUESTION, STEP_BY_STEP


def written(path: Path, *rows: Any) -> Path:
    """Return a file of JSON lines."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_answers_of_gsm8k_are_read(tmp_path: Path) -> None:
    """What follows the mark, as numbers are read; and the prompt asks for one that can be read."""
    path = written(
        tmp_path / "gsm.jsonl",
        {"question": "How many?", "answer": "She has 9 * 2 = <<9*2=18>>18.\n#### 18"},
        {"question": "How far?", "answer": "#### 1,080"},
        {"question": "And?", "answer": 2.50},
    )
    task = load_task(path)
    assert [item.answer for item in task.items] == ["18", "1080", "2.5"]
    assert (task.name, task.answer, task.template) == ("gsm", "number", STEP_BY_STEP)
    assert task.prompt(task.items[0]).startswith("How many?\n\nSolve this step by step")
    assert task.prompt(task.items[0]).endswith("\\boxed{}.")
    assert task.read("So it is \\boxed{1,080}.") == task.items[1].answer
    assert len(load_task(path, num_problems=2).items) == 2


def test_answers_in_words_are_compared_as_texts(tmp_path: Path) -> None:
    """The question alone is asked, and case and marks do not matter."""
    task = load_task(written(tmp_path / "t.jsonl", {"question": "Capital of France?", "answer": "Paris"}))
    assert (task.answer, task.template) == ("auto", QUESTION)
    assert task.read("The answer is **Paris**.") == task.items[0].answer
    assert task.read("The answer is Lyon.") != task.items[0].answer


@pytest.mark.parametrize(
    ("right", "form"),
    [
        *(("18", "number"), ("$1,080.50", "number"), ("-7", "number"), ("18 dollars", "number"), ("x = 4", "number")),
        *(("1/2", "number"), ("(2, 3)", "auto"), ("x = 2, y = 3", "auto"), ("2 or 3", "auto"), ("10:30", "auto")),
    ],
)
def test_answers_that_are_more_than_a_number_are_not_read_as_one(tmp_path: Path, right: str, form: str) -> None:
    """Else a wrong answer would be right that has the last of their numbers."""
    task = load_task(written(tmp_path / "t.jsonl", {"question": "What?", "answer": right}))
    assert task.answer == form
    assert task.read(f"The answer is \\boxed{{{right}}}.") == task.items[0].answer
    assert task.read("The answer is \\boxed{3}.") != task.items[0].answer


@pytest.mark.parametrize("beginning", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_question_may_have_any_character(tmp_path: Path, beginning: bytes, end: bytes) -> None:
    """Those that end lines of text, too, which JSON need not escape; a file may begin as Windows has it."""
    row = {"question": "a\u2028b\u2029c\x85d\x7f", "answer": "1"}
    path = tmp_path / "t.jsonl"
    path.write_bytes(beginning + 2 * (json.dumps(row, ensure_ascii=False).encode() + end))
    assert [item.question for item in load_task(path).items] == [row["question"]] * 2


@pytest.mark.parametrize("right", [r"\sqrt{2}", r"2\pi", r"\frac{\sqrt{3}}{2}", r"3\sqrt{5} cm"])
def test_a_formula_is_not_one_of_its_numbers(tmp_path: Path, right: str) -> None:
    """Neither where it is the right answer, nor where a response states it."""
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": right}))
    task = load_task(path)
    for form in (
        rf"So it is \boxed{{{right}}}.",
        f"The answer is {right}.",
        f"The answer is ${right}$, as 2 < 3.",
        right,
    ):
        assert task.read(form) == task.items[0].answer
    assert task.read(r"\boxed{2}") != task.items[0].answer


def test_abacus_has_a_task_of_its_own() -> None:
    """The same problems each time, more where more are asked for."""
    task = load_task("abacus", num_problems=5)
    assert len(task.items) == 5
    assert load_task("abacus", num_problems=3).items == task.items[:3]
    assert all(task.read(f"The answer is {item.answer}.") == item.answer for item in task.items)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "a", "answer": "b"}\n{', "Line 2 of .* is no JSON"),
        ('{"question": "a"}', 'Line 1 of .* needs a "question" and an "answer"'),
        ('{"question": " ", "answer": "b"}', 'needs a "question" and an "answer"'),
        ("[1]", 'needs a "question" and an "answer"'),
        ('{"question": "a", "answer": "b ####"}', 'needs a "question" and an "answer"'),
        ("", "has no questions"),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """With the line and what it needs."""
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(OptionError, match=said):
        load_task(path)
    with pytest.raises(OptionError, match=r"`nowhere.jsonl` cannot be read .*JSON lines, or \"abacus\""):
        load_task("nowhere.jsonl")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("Solve this.", "no place for the question"),
        ("{question} {x}", "cannot be filled in"),
        ("{", "cannot be filled"),
        ("{question.x}", "cannot be filled"),
        ("{question[x]}", "cannot be filled"),
    ],
)
def test_a_template_needs_a_place_for_the_question(template: str, said: str) -> None:
    """And braces of its own are doubled."""
    with pytest.raises(OptionError, match=said):
        Task("t", (Item("a", "b"),), template=template)
    assert Task("t", (Item("a", "b"),), template="{question} {{}}").prompt(Item("a", "b")) == "a {}"
