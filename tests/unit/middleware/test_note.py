"""Notes quote the weak steps of an answer."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from langnorm import NormTrace
from langnorm.errors import OptionError
from langnorm.middleware.note import NOTE, note_template, weak_steps
from langnorm.trace import NormStep


def test_templates() -> None:
    """True is ours, False none, and a text is the user's."""
    assert note_template(True) == NOTE
    assert note_template(False) is None
    assert note_template("Redo {steps}!") == "Redo {steps}!"


@pytest.mark.parametrize("note", ["", "Redo it!", "Redo {step}!", "{steps} {0}", "{steps", 3, None])
def test_wrong_templates_are_refused(note) -> None:
    """A text needs `{steps}` and nothing else in braces."""
    with pytest.raises(OptionError, match="`note=.*` is not allowed. Use True, False, or a text with `{steps}`"):
        note_template(note)


def message(*steps: NormStep, reasoning: str = "", content: str = "") -> AIMessage:
    """Returns a message with these steps."""
    trace = NormTrace(tokens=9, layers=(3,), mean=(1.0,), steps=steps, intensity=0.1)
    extra = {"reasoning_content": reasoning}
    return AIMessage(content, additional_kwargs=extra, response_metadata={"langnorm": trace.to_dict()})


def test_weak_steps_are_quoted_from_reasoning_and_answer() -> None:
    """By their spans; strong steps and calls are passed over."""
    steps = (
        NormStep(0, 1, "reasoning", (0, 6), (1.0,), 0.0, True),
        NormStep(1, 2, "reasoning", (6, 12), (1.0,), 0.9, False),
        NormStep(2, 3, "answer", (4, 9), (1.0,), 0.0, True),
        NormStep(3, 4, "tool_call", (0, 3), (1.0,), 0.0, True),
    )
    assert weak_steps(message(*steps, reasoning="1 + 1\n2 + 2\n", content="It is four.")) == {0: "1 + 1", 2: "s fou"}


def test_long_quotes_are_shortened() -> None:
    """And there are at most five."""
    steps = [NormStep(i, i + 1, "answer", (0, 900), (1.0,), 0.0, True) for i in range(9)]
    quotes = weak_steps(message(*steps, content="word " * 180))
    assert list(quotes) == [0, 1, 2, 3, 4]
    assert all(len(quote) <= 200 and quote.endswith("word ...") for quote in quotes.values())
