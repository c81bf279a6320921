"""How large norms are, outside of pages: heats, bars, and tokens that have the colour of their norms."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace

import pytest
from langchain_core.messages import AIMessageChunk
from rich.console import Console

from langnorm.norms.reading import NormReading
from langnorm.viz.heat import ranks, step_heats, token_heats
from langnorm.viz.live import LiveAnswer
from langnorm.viz.shades import bar, block, token_style
from langnorm.viz.terminal import print_tokens
from tests.support.traces import READING, trace


def test_heats_are_percentiles_where_there_are_some() -> None:
    """Of tokens the mean over layers, of steps their intensity; sinks and the last token have none."""
    made = trace(READING, keep_tokens=True)
    assert token_heats(made) == [0.05, pytest.approx(0.85), pytest.approx(0.07), None]
    assert step_heats(made) == ([0.45, 0.07], "intensity")
    assert token_heats(replace(made, sinks=(1,)))[1] is None


def test_heats_are_ranks_where_nothing_is_known() -> None:
    """Of tokens among all others, of steps the mean of these; without tokens, steps are ranked themselves."""
    made = trace(NormReading(), keep_tokens=True)
    assert token_heats(made) == [pytest.approx(1 / 6), 0.5, pytest.approx(5 / 6), None]
    assert step_heats(made) == ([pytest.approx(1 / 3), pytest.approx(5 / 6)], "rank")
    assert step_heats(trace(NormReading())) == ([0.25, 0.75], "rank")
    assert ranks([]) == []
    assert ranks([[1.0], None, [1.0]]) == [0.5, None, 0.5], "equal ones count half"


def test_bars_say_the_same_without_colours() -> None:
    """Ten characters, and blocks of eight heights; what is below a half has no ground."""
    assert [bar(heat).plain for heat in (0.0, 0.54, 1.0)] == ["·" * 10, "▇" * 5 + "·" * 5, "▇" * 10]
    assert bar(None).plain.strip() == "-"
    assert [block(heat)[0] for heat in (None, 0.0, 0.5, 1.0)] == [" ", "▁", "▅", "█"]
    assert (token_style(None), token_style(0.49)) == ("", "")
    assert token_style(0.5) != token_style(1.0)


def test_tokens_have_the_colour_of_their_norms() -> None:
    """On a terminal with colours; without, there is the text alone, and control characters never come through."""
    made = replace(trace(READING, keep_tokens=True), token_texts=("a", "b\x1b[5m", "c", ""))
    plain = Console(file=io.StringIO())
    coloured = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for console in (plain, coloured):
        print_tokens(console, made)
    assert plain.file.getvalue() == "ab\ufffd[5mc\n"
    assert "48;2;" in coloured.file.getvalue().partition("b")[0]
    assert "\x1b[5m" not in coloured.file.getvalue()


def chunk(text: str, *percentiles: float, reasoning: str = "") -> AIMessageChunk:
    """Return a chunk with a token for each percentile."""
    rows = {"token_norms": [[1.0]] * len(percentiles), "token_percentiles": [[value] for value in percentiles]}
    extra = {"langnorm": rows} | ({"reasoning_content": reasoning} if reasoning else {})
    return AIMessageChunk(text, additional_kwargs=extra)


def follow(console: Console, chunks: Iterable[AIMessageChunk]) -> str:
    """Return what appears on a console while an answer of these chunks is written."""
    with LiveAnswer(console) as live:
        live.follow(chunks)
    return console.file.getvalue()


def test_a_live_answer_is_plain_text_where_there_is_no_terminal() -> None:
    """Reasoning and answer apart, and nothing else."""
    shown = follow(Console(file=io.StringIO()), [chunk("", 0.9, reasoning="why"), chunk("so", 0.1), chunk(" it is")])
    assert shown == "why\n\nso it is\n"


def test_a_live_answer_has_a_bar_below_its_text() -> None:
    """A block for each token; what can change no more is above it, and at the end only the text is left."""
    console = Console(file=io.StringIO(), force_terminal=True, width=20, color_system=None)
    console.file.isatty = lambda: True
    shown = follow(console, [chunk("one two three ", 0.99, 0.0), chunk("four five six\nseven\x07", 0.5)])
    assert "norms █▁" in shown
    assert "norms █▁▅" in shown
    last = shown.rpartition("\x1b[2K")[2]
    assert last.split() == ["seven\ufffd"] or "seven\ufffd" in last
    assert "one two three four" in shown


def test_without_percentiles_tokens_are_ranked_among_earlier_ones() -> None:
    """From the eighth on; the greatest so far is high."""
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    chunks = [AIMessageChunk("x", additional_kwargs={"langnorm": {"token_norms": [[float(i)]]}}) for i in range(12)]
    assert "norms " + " " * 7 + "█" * 5 in follow(console, chunks)


def test_an_answer_that_breaks_off_is_left_whole() -> None:
    """The text so far stays on the terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)

    def broken_off():
        yield chunk("so far", 0.5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(console, broken_off())
    assert console.file.getvalue().rstrip().rpartition("\n")[2].strip().endswith("so far")
