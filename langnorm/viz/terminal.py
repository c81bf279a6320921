"""Shows messages and the norms of their steps on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langnorm.trace import KEY, NormTrace
from langnorm.viz.heat import step_heats, token_heats
from langnorm.viz.shades import bar, token_style

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, AIMessageChunk
    from rich.console import Console
    from rich.table import Table

_GAP = 2  # between two columns of a table, in columns of the terminal
_MIN_TEXT_WIDTH = 16  # that a step's text needs beside its norms
_MOST_OF_ANSWER = 60  # columns in which the answer that candidates agree on is shown

# Control characters of the model's text must not reach the terminal; line breaks and tabs may.
_CONTROL_CHARACTERS = dict.fromkeys({*range(32), *range(127, 160)} - {9, 10}, "\N{REPLACEMENT CHARACTER}")
_CONTROL_CHARACTERS[13] = ""


def print_stream(console: Console, chunks: Iterable[AIMessageChunk]) -> AIMessageChunk:
    """Print reasoning and answer as they come, and return the whole message."""
    gained: list[AIMessageChunk] = []
    part = None
    for chunk in chunks:
        gained.append(chunk)
        texts = {"reasoning": chunk.additional_kwargs.get("reasoning_content"), "answer": str(chunk.text)}
        for name, text in texts.items():
            if not text:
                continue
            if part and part != name:
                console.out("\n")
            part = name
            print_text(console, text, "dim" if name == "reasoning" else "")
    if part:
        console.out("")
    return gained[0] + gained[1:]


def print_text(console: Console, text: str, style: str = "") -> None:
    """Print a piece of what a model writes as it is, without the control characters that a terminal would obey.

    Not by rich's own text, in which tabs are spaces: what goes into a file has to be what was written.

    Args:
        console: Where to.
        text: The piece.
        style: Of rich.
    """
    from rich.segment import Segment, Segments

    console.print(Segments([Segment(printable(text), console.get_style(style))]), end="", soft_wrap=True)


def print_summary(
    console: Console,
    message: AIMessage,
    seconds: float,
    *,
    with_numbers: bool = False,
    wording: Callable[[str], str] = str,
) -> None:
    """Print the steps of a message, and a line with its tokens and its time.

    Args:
        console: Where to.
        message: The message, with a trace.
        seconds: How long it took.
        with_numbers: Whether the steps are a table of their norms; else they are a line with a bar each.
        wording: Puts remarks into the words of whoever reads them.
    """
    trace = NormTrace.from_message(message)
    if trace.steps:
        console.out("")
        show = _print_numbers if with_numbers else print_steps
        show(console, trace, trace.step_texts(message))
    per_second = trace.tokens / seconds
    speed = f"{per_second:.0f} tokens/s" if per_second >= 10 else f"{per_second:.1f} tokens/s"
    num_tokens = "1 token" if trace.tokens == 1 else f"{trace.tokens} tokens"
    metadata = message.response_metadata
    on = "" if metadata["engine"] == "transformers" else f" on {metadata['engine']}"
    line = f"{metadata['model_name']}{on}: {num_tokens} in {seconds:.1f} s ({speed})"
    if trace.intensity is not None:
        of_what = " relative to tokens" if trace.intensity_kind == "token" else ""
        line += f", intensity {trace.intensity:.2f}{of_what}"
    if metadata["finish_reason"] == "length":
        line += ", cut off at the token limit"
    console.out("")
    console.print(line, style="dim")  # wrapped between words where the terminal is narrow
    for remark in _remarks(message, trace):
        console.print(printable(wording(remark)), style="yellow")


def print_steps(console: Console, trace: NormTrace, texts: Sequence[str]) -> None:
    """Print a line for each step: a bar for how large its norms are, the number behind it, and its text.

    Args:
        console: Where to.
        trace: The trace.
        texts: Of its steps.
    """
    from rich.text import Text

    heats, word = step_heats(trace)
    width = len(str(len(heats)))
    known = [heat for heat in heats if heat is not None]
    head = f"{'step'.rjust(max(4, width))}  {word}"
    console.out(head, style="dim", highlight=False)
    for number, (heat, text, step) in enumerate(zip(heats, texts, trace.steps, strict=True), 1):
        is_hardest = len(known) > 1 and heat == max(known)
        line = Text(f"{number}".rjust(max(4, width)) + "  ")
        line += bar(heat)
        line.append(f" {_number(heat, 2).rjust(4)}  ")
        if step.low:
            line.append("low  ", "yellow")
        shown = _shortened(text or f"({step.kind})", max(_MIN_TEXT_WIDTH, console.width - line.cell_len))
        line.append(shown, "bold" if is_hardest else "")
        console.print(line, soft_wrap=True)


def print_tokens(console: Console, trace: NormTrace) -> None:
    """Print the text of an answer, each token in the colour of its norms.

    Args:
        console: Where to.
        trace: The trace, with norms and texts of tokens.
    """
    from rich.text import Text

    shown = Text()
    for text, heat in zip(trace.token_texts or (), token_heats(trace), strict=True):
        shown.append(printable(text), token_style(heat))
    console.print(shown)


def _remarks(message: AIMessage, trace: NormTrace) -> list[str]:
    """Return what a message says of its selection and of interventions that did nothing, a line each."""
    reports = filter(None, (trace.recursion, trace.steering, trace.suppression))
    remarks = [report["warning"] for report in reports if report.get("warning")]
    if ranking := message.response_metadata[KEY].get("selection"):
        num_candidates = len(ranking["candidates"])
        chosen = ranking["candidates"][ranking["chosen"]]
        remark = f"Candidate {ranking['chosen'] + 1} of {num_candidates}"
        if chosen["support"]:
            answer = _shortened(chosen["answer"], _MOST_OF_ANSWER)
            remark += f"; {ranking['agreement']:.0%} of the votes are for its answer: {answer}"
        remarks.append(remark)
        remarks += ranking["warnings"]
    return remarks


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of steps."""

    header: str
    cells: Sequence[str]
    is_left: bool = False
    style: str = ""

    @property
    def width(self) -> int:
        """Its width with its distance from the next one, in columns of the terminal."""
        from rich.cells import cell_len

        return max(map(cell_len, (self.header, *self.cells))) + _GAP


def _print_numbers(console: Console, trace: NormTrace, texts: Sequence[str]) -> None:
    """Print a table of the steps; where the layers do not fit beside the rest, they follow in tables of their own."""
    number = _Column("step", [str(i) for i in range(1, len(trace.steps) + 1)])
    columns = [
        number,
        _Column("kind", [step.kind for step in trace.steps], is_left=True),
        _Column("tokens", [f"{step.start}-{step.end}" for step in trace.steps]),
    ]
    layers = [_layer_column(trace, i) for i in range(len(trace.layers))]
    judged = []
    if any(step.intensity is not None for step in trace.steps):
        judged.append(_Column("intensity", [_number(step.intensity, 2) for step in trace.steps]))
    if any(step.low is not None for step in trace.steps):
        judged.append(_Column("low", ["low" if step.low else "" for step in trace.steps], is_left=True, style="yellow"))
    is_fitting = _width([*columns, *layers, *judged]) + _MIN_TEXT_WIDTH <= console.width
    columns += [*layers, *judged] if is_fitting else judged
    room = max(_MIN_TEXT_WIDTH, console.width - _width(columns))
    console.print(_table([*columns, _Column("text", [_shortened(text, room) for text in texts], is_left=True)]))
    if is_fitting:
        return
    per_table = max(1, (console.width - number.width) // max(layer.width for layer in layers))
    for i in range(0, len(layers), per_table):
        console.out("")
        console.print(_table([number, *layers[i : i + per_table]]))


def _layer_column(trace: NormTrace, i: int) -> _Column:
    norms = [None if step.mean is None else step.mean[i] for step in trace.steps]
    # Four digits of the largest one: norms differ by orders of magnitude between models.
    num_digits = len(str(int(max((norm for norm in norms if norm is not None), default=0))))
    decimals = max(0, 4 - num_digits)
    return _Column(f"layer {trace.layers[i]}", [_number(norm, decimals) for norm in norms], style="cyan")


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns)


def _table(columns: Sequence[_Column]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.header, justify="left" if column.is_left else "right", style=column.style, no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _shortened(text: str, width: int) -> str:
    from rich.text import Text

    line = Text(" ".join(printable(text).split()))
    line.truncate(width, overflow="ellipsis")
    return line.plain


def printable(text: str) -> str:
    """Return the text without the control characters that a terminal would obey."""
    return text.translate(_CONTROL_CHARACTERS)
