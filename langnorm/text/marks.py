"""The marks that tell reasoning and tool calls from the answer, and what finds them in text that still arrives."""

from __future__ import annotations

from collections import deque

# Opening and closing marks of reasoning, by model family.
THINKING_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))

# Parts of the marks of tools, in lower case: the marks themselves (`<tool_call>`, `[TOOL_CALLS]`, `<|python_tag|>`,
# `<start_function_call>`) are too many to list, and each new family brings others.
_TOOL_MARKUP = ("tool", "function", "python_tag", "[args]", "[call_id]")


def is_markup(token: str) -> bool:
    """Return whether a token marks reasoning or tool calls."""
    is_tag = any(token in pair for pair in THINKING_TAGS)
    return is_tag or any(part in token.lower() for part in _TOOL_MARKUP)


def partial_mark_length(text: str, mark: str) -> int:
    """Return the length of the longest proper beginning of `mark` that `text` ends with."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


class PieceBuffer:
    """Text that waits until it is certain what it is, in pieces that each came with a token."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, str]] = deque()

    @property
    def text(self) -> str:
        """The text that waits, joined."""
        return "".join(piece for _, piece in self._pieces)

    def add(self, token: int, piece: str) -> None:
        """Add a piece at the end."""
        self._pieces.append((token, piece))

    def take(self, num_characters: int) -> list[tuple[int, str]]:
        """Remove and return this many characters from the front."""
        front = []
        while num_characters > 0:
            token, piece = self._pieces.popleft()
            if len(piece) > num_characters:
                self._pieces.appendleft((token, piece[num_characters:]))
                piece = piece[:num_characters]
            front.append((token, piece))
            num_characters -= len(piece)
        return front

    def take_all(self) -> list[tuple[int, str]]:
        """Remove and return everything."""
        return self.take(len(self.text))


def rstrip_pieces(pieces: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return pieces without the white space at their end."""
    while pieces and not pieces[-1][1].rstrip():
        pieces.pop()
    if pieces:
        pieces[-1] = (pieces[-1][0], pieces[-1][1].rstrip())
    return pieces
