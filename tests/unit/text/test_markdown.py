"""Steps are what a reader sees in an answer: sentences, items, formulas, rows and code, none of them cut."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.documents import between
from benchmarks.steps import table
from langnorm.text.markdown import read_blocks, split_paragraphs, split_sentences
from tests.support.operations import calls_made

ANSWERS = tomllib.loads((Path(__file__).parents[2] / "fixtures" / "segmented_answers.toml").read_text())["answer"]
PAGE = Path(__file__).parents[3] / "docs" / "messages.md"


def texts(text: str) -> list[str]:
    """Return the texts of the steps."""
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer['model'][:5]}: {answer['prompt'][:30]}")
def test_real_answers_are_cut_as_by_hand(answer: dict[str, Any]) -> None:
    """Two models, ten prompts: word problems, formulas, prose, code, a table, lists, JSON and Chinese."""
    assert texts(answer["text"].replace("‖", "")) == [step.strip() for step in answer["text"].split("‖") if step]


def test_the_readme_has_the_steps_of_these_answers() -> None:
    """Its table is what the benchmark computes."""
    assert between(PAGE, "steps") == table()


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith et al. found this ... vs. that ... in the U.S. in 1990.",
        "J. K. Rowling and George W. Bush met Mr. and Mrs. Jones, Jr., e.g. in St. Louis.",
        "It weighs 3.5 kg, i.e. approx. 7.7 lb., see Fig. 3 and Eq. (2) on p. 5.",
        "Go to https://example.com/a.b?c=d.e or www.example.org. now",
        "She met Sen. Lee of the U.S. Senate on Jan. 5 at 3 p.m. sharp.",
        "He has a Ph.D. in physics from Acme Inc. of Oslo.",
        "Wait... is it 5? no.",
        '"Why?" he asked, and "Go!" she said.',
        "It works (see sec. 4 etc.) as is.",
        "Call `str.lower(). Then` or `a! B`.",
        r"Here \(x = 1. Y = 2\) and \[a. B\] hold.",
        "2. Add the numbers.",
        "Step 2. Add the numbers.",
        "(B) Oslo",
        "A. Oslo",
        "「はい。」と言った。",
        "版本 3.5 发布了。",
        "| 1. A | b. C |",
        "Version 1.2.3 of Node.js is out.",
    ],
)
def test_no_sentence_ends_here(text: str) -> None:
    """Abbreviations, initials, decimals, elisions, addresses, code, formulas, rows and markers are left whole."""
    assert texts(text) == [text]


@pytest.mark.parametrize(
    "steps",
    [
        ["He said: “Go.”", "Then he left."],
        ['She said "No."', "He left."],
        ["**This matters.**", "So does this."],
        ["(It is 5.)", "Then we add."],
        ["It is so.[1]", "It was so.[2]"],
        ["Wait...", "Let me think."],
        ["Really?!", "Yes!", "Good…", "So"],
        ["The answer is C.", "The others are wrong."],
        ["We met at 5 p.m.", "The others came late."],
        ["He lives in the U.S.", "His wife does not."],
        ["No.", "That is wrong."],
        ["It took 10 sec.", "We waited."],
        ["It is 432.", "5 of them are red."],
        ["It is done.", r"\(x\) is 3."],
        ["It is done.", "`x` is 3."],
        ["It is done.", "$5 are left."],
        ["It is I.", "Then go."],
        ["यह एक है।", "यह दो है।"],
    ],
)
def test_sentences_end_here(steps: list[str]) -> None:
    """A terminator counts with what closes behind it, and names no abbreviation."""
    assert texts(" ".join(steps)) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["今天天气很好。", "我们去公园！", "你来吗？", "好"],
        ["彼は「はい。」", "彼女は笑った。"],
        ["他说：“好。”", "然后走了。"],
    ],
)
def test_chinese_and_japanese_sentences_need_no_space(steps: list[str]) -> None:
    """Their full stops end sentences by themselves."""
    assert texts("".join(steps)) == steps


@pytest.mark.parametrize(
    "steps",
    [
        [
            "1. **Multiply**:\n   \\[\n   14 \\times 12 = 168\n   \\]\n",
            "2. Then subtract.\n\n\\[ 168 - 95 \\]\n",
            "Done.",
        ],
        ["We get:\n\n$$\nx^2\n- 5x\n+ 6\n$$\n", "So it is."],
        ["We get\n\\begin{align}\na &= b\n\\end{align}\nwhere a is known.\n", "So it is."],
        ["So it is:\n\\[ a \\]\n", "\\[ b \\]\n", "Yes."],
        ["First.\n", "- \\[ a = 1 \\]\n", "- \\[ b = 2 \\]\n"],
        ["\\[ a \\]\n", "Then."],
        ["We get \\[ a \\], and more.\n", "\\[ E = m \\] is famous.\n", "Yes."],
        ["It is cut off:\n\\[\nx = 1\n\n", "So."],
        ["# Title\n\n## Part\n\nIt is so.\n", "Yes."],
        ["**Step 1: Add**\n\nIt is 5.\n", "**Step 2: Multiply**\n- a\n", "- b\n"],
        ["**It is 5.**\n", "Yes."],
        ["Summary:\nIt is so.\n", "Options:\n", "- a\n", "- b\n"],
        ["Example usage:\n```\nprint(1)\n```\n", "Here is what you have to run:\n", "```\nprint(2)\n```"],
        ["1. a\n", "   - b\n", "   - c. D\n", "2. e\n"],
        ["1.\n   text\n", "2. more"],
        ["> He said it.\n", "> She did not."],
        ["It is so.\n\n---\n", "Then.\n\n***"],
        ["| a | b |\n|---|---|\n", "| x. Y | 2 |\n", "| z | 4 |\n", "\nEnd."],
        ["a | b\n--|--\n", "1 | 2"],
        ["| a | b. C |\n", "| d | e. F"],
        ["Run:\n```bash\ncd /tmp\n\nls. -l\n```\n", "Then."],
        ["It is so.\n", '```json\n{\n  "a": 1\n'],
        ['{\n  "a": "It is. So",\n  "b": [1]\n}'],
        ['{\n"a": 1,\n', '"b": 2'],
        ["a = 1\n", "b = 2"],
        ["It is 5.\n---\n", "Then."],
        ["It is so. 🎉\n", "Yes."],
        ["Then\n1."],  # a marker that nothing follows yet
    ],
    ids=lambda steps: steps[0][:20],
)
def test_markup_is_a_part_of_steps(steps: list[str]) -> None:
    """Items keep their markers, formulas their sentences, headings what follows; code, rows and JSON are whole."""
    assert texts("".join(steps)) == [step.strip() for step in steps]


def test_lines_end_in_every_way() -> None:
    """Also those of old systems."""
    assert texts("It is\r\nso.\rYes. \r\n\r\nNo.") == ["It is", "so.", "Yes.", "No."]


def test_paragraphs_leave_code_whole() -> None:
    """Blank lines part them, but for those inside of code."""
    text = "One.\nTwo.\n\n```\na\n\nb\n```\n \n- c\n- d\n\n- e\n"
    found = [text[start:end] for start, end in split_paragraphs(text)]
    assert found == ["One.\nTwo.", "```\na\n\nb\n```", "- c\n- d", "- e"]


PIECES = [
    *"[]*_>`|#-+.!?。」:$\\(){}\"'~ \n\ta1A\r\u2028\x00",
    "\n\n", "```", "1. ", "- ", "> ", "\\[", "\\]", "\\(", "\\)", "$$", "\\begin{a}", "\\end{a}",
    "|-|-|\n", "---\n", "Dr. ", "It is. ",
]  # fmt: skip
UNITS = [
    "[a](", "a|b\n-|-\n", "- a\n", "1.\n\n", ".*", "(a. ", "。」", "`` ` ", '{"a":', "**a**\n", "x:\n", "\\[ a \\] b\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_nothing_visible_is_lost(text: str) -> None:
    """Steps and paragraphs are in order and hold all that is not white space, once; none of them is blank."""
    for split in (split_sentences, split_paragraphs):
        spans = split(text)
        assert [edge for span in spans for edge in span] == sorted(edge for span in spans for edge in span)
        assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
        assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)


@pytest.mark.parametrize(
    "unit",
    [*PIECES, *UNITS],
    ids=repr,
)
def test_the_work_grows_with_the_length_only(unit: str) -> None:
    """In calls; and inside of regular expressions, where none can be counted, no time is lost."""
    few, many = (calls_made(lambda n=n: split_sentences((unit * n)[:n])) for n in (1_000, 4_000))
    assert many < 6 * few
    started = time.process_time()
    split_sentences((unit * 16_000)[:16_000])
    assert time.process_time() - started < 5  # 0.2 at most; what is quadratic takes minutes


def test_what_is_nested_too_deep_is_still_there() -> None:
    """It belongs to a block all the same."""
    text = "".join(f"{'  ' * i}- a{i}\n" for i in range(200))
    assert "".join(text[block.start : block.end] for block in read_blocks(text)) == text
