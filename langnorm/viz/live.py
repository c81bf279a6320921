"""An answer on a terminal while it is written: each token has the colour of its norms, and a bar below the text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langnorm.trace import KEY
from langnorm.viz.heat import ranks
from langnorm.viz.shades import block, token_style
from langnorm.viz.terminal import print_text, printable

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_LABEL = "norms "
_FEWEST_FOR_RANKS = 8  # of fewer tokens, any is the highest or the lowest
_MOST_FOR_RANKS = 512


class LiveAnswer:
    """Prints the chunks of an answer as they come, inside a `with` block; also one that breaks off is left whole.

    Where there is no terminal, only the text is printed. Without percentiles, a token's norms are ranked among those
    before it.

    Args:
        console: Of rich, with the terminal.
    """

    def __init__(self, console: Console) -> None:
        from rich.text import Text

        self._console = console
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._live: Live | None = None
        self._line = Text()
        self._part: str | None = None
        self._heats: deque[float | None] = deque(maxlen=max(1, console.width - len(_LABEL) - 1))
        self._earlier: deque[list[float]] = deque(maxlen=_MOST_FOR_RANKS)

    def __enter__(self) -> Self:
        if self._is_live:
            from rich.live import Live

            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            if self._line:
                self._console.print(self._line)
        elif self._part:
            self._console.out("")

    def follow(self, chunks: Iterable[AIMessageChunk]) -> list[AIMessageChunk]:
        """Print all chunks, and return them in a list."""
        gained = []
        for chunk in chunks:
            gained.append(chunk)
            self.add(chunk)
        return gained

    def add(self, chunk: AIMessageChunk) -> None:
        """Print what a chunk has gained."""
        heats = self._new_heats(chunk.additional_kwargs.get(KEY) or {})
        self._heats.extend(heats)
        texts = {"reasoning": chunk.additional_kwargs.get("reasoning_content"), "answer": str(chunk.text)}
        for part, text in texts.items():
            if text:
                if self._part and self._part != part:
                    self._write("\n\n", "")
                self._part = part
                style = token_style(heats[-1] if heats else None)
                self._write(text, style or ("dim" if part == "reasoning" else ""))
        if self._live:
            self._live.update(self._shown(), refresh=True)

    def _new_heats(self, of_tokens: Mapping[str, Any]) -> list[float | None]:
        """Return how large the norms of a chunk's tokens are."""
        percentiles, rows = of_tokens.get("token_percentiles"), of_tokens.get("token_norms") or []
        if percentiles is not None:
            return [fmean(row) for row in percentiles]
        heats: list[float | None] = []
        for row in rows:
            self._earlier.append(row)
            heats.append(ranks(self._earlier)[-1] if len(self._earlier) >= _FEWEST_FOR_RANKS else None)
        return heats

    def _write(self, text: str, style: str) -> None:
        if not self._live:
            print_text(self._console, text, style)
            return
        self._line.append(printable(text), style)
        # What can no longer change goes above the live part, which then stays as small as a line.
        *whole, rest = self._line.split("\n", allow_blank=True)
        wrapped = (
            rest.wrap(self._console, self._console.width, no_wrap=False)
            if rest.cell_len > self._console.width
            else [rest]
        )
        for line in [*whole, *wrapped[:-1]]:
            self._live.console.print(line)
        self._line = wrapped[-1]

    def _shown(self) -> Text:
        from rich.text import Text

        blocks = [block(heat) for heat in self._heats]
        return Text("\n").join([self._line, Text.assemble((_LABEL, "dim"), *blocks)])
