"""Notes quote the weak steps of an answer."""

from __future__ import annotations

import pytest

from langnorm.errors import OptionError
from langnorm.middleware.note import NOTE, note_template, weak_steps
from langnorm.testing import message_with_norms


def test_templates() -> None:
    """True is ours, False none, and a text is the user's."""
    assert note_template(True) == NOTE
    assert note_template(False) is None
    for text in ("Redo {steps}!", "{{}} {steps!r:>20}"):
        assert note_template(text) == text


@pytest.mark.parametrize(
    "note",
    ["", "Redo it!", "Redo {step}!", "{steps} {0}", "{steps", "{steps:{width}}", "{steps:d}", "{steps!x}", 3, None],
)
def test_wrong_templates_are_refused(note) -> None:
    """A text needs `{steps}` and nothing else in braces."""
    with pytest.raises(OptionError, match="`note=.*` is not allowed. Use True, False, or a text with `{steps}`"):
        note_template(note)


def test_weak_steps_are_quoted_from_reasoning_and_answer() -> None:
    """By their spans; strong steps and calls are passed over."""
    message = message_with_norms(
        ["It is ", "four."],
        reasoning=["1 + 1\n", "2 + 2\n"],
        tool_calls=[{"name": "add", "args": {}}],
        intensities=[0.0, 0.9, 0.9, 0.0, 0.0],
    )
    assert weak_steps(message) == {0: "1 + 1", 3: "four."}


def test_long_quotes_are_shortened() -> None:
    """And there are at most five."""
    quotes = weak_steps(message_with_norms(["word " * 180] * 9, intensities=0.0))
    assert list(quotes) == [0, 1, 2, 3, 4]
    assert all(len(quote) <= 200 and quote.endswith("word ...") for quote in quotes.values())
