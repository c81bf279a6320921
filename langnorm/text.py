"""From token ids to text, token by token: the one place where both are matched up.

Everything downstream (streamed chunks, stop texts, reasoning, steps) works on `pieces`: piece i is the text that
became decodable with generated token i. Joined they are the whole text, so a character belongs to one token.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["reasoning", "answer", "tool_call"]

# Opening and closing marks of reasoning, by model family.
THINKING_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))

# Parts of the marks of tools, in lower case: the marks themselves (`<tool_call>`, `[TOOL_CALLS]`, `<|python_tag|>`,
# `<start_function_call>`) are too many to list, and each new family brings others.
_TOOL_MARKUP = ("tool", "function", "python_tag", "[args]", "[call_id]")


class Detokenizer:
    """Decodes one sequence as its tokens arrive.

    Args:
        tokenizer: The model's tokenizer. Control tokens (end of turn, padding) have no text; tokens that mark
            reasoning or tool calls keep theirs, also where the tokenizer calls them special.
        stop: Texts at whose first occurrence the sequence ends.

    Attributes:
        pieces: The text of each token so far.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.pieces: list[str] = []
        self._tokenizer = tokenizer
        self._decode = _decoder(tokenizer)
        self._silent = _silent_ids(tokenizer)
        self._stop = stop
        self._longest_stop = max(map(len, stop), default=0)
        self._tail = ""  # the last characters, where a stop text may have begun
        self._pending: list[int] = []  # tokens whose bytes are not yet whole characters
        self._taken = (0, 0)  # token and offset in its piece up to which text was taken
        self.is_stopped = False

    def add(self, token_id: int) -> str:
        """Return the text that `token_id` completes, which may be empty."""
        piece = ""
        if token_id not in self._silent:
            self._pending.append(token_id)
            if decoded := self._decode(token_id):
                piece, self._pending = decoded, []
        self.pieces.append(piece)
        if piece and self._stop:
            self._cut_at_stop(piece)
        return self.pieces[-1]

    def finish(self) -> str:
        """Return what is left: bytes that never became a whole character, as replacement characters."""
        is_cut = self.is_stopped or not self._pending
        piece = "" if is_cut else _text_of(self._tokenizer, self._pending)
        self._pending = []
        if piece:
            self.pieces[-1] += piece
        return piece

    def take(self, *, is_last: bool = False) -> list[tuple[int, str]]:
        """Return the text that came since the last call, with the token of each piece.

        The end is kept back as long as it may be the beginning of a stop text.
        """
        token, offset = self._taken
        num_kept = 0 if is_last or self.is_stopped else self._num_undecided()
        num_left = sum(map(len, self.pieces[token:])) - offset - num_kept
        taken = []
        while num_left > 0:
            text = self.pieces[token][offset : offset + num_left]
            if text:
                taken.append((token, text))
            num_left -= len(text)
            offset += len(text)
            if offset == len(self.pieces[token]) and token + 1 < len(self.pieces):
                token, offset = token + 1, 0
        self._taken = (token, offset)
        return taken

    def _num_undecided(self) -> int:
        return max((overlap(self._tail, stop) for stop in self._stop), default=0)

    def _cut_at_stop(self, piece: str) -> None:
        window = self._tail + piece
        found = [at for stop in self._stop if (at := window.find(stop)) >= 0]
        if not found:
            self._tail = window[-self._longest_stop :]
            return
        self.is_stopped = True
        surplus = len(window) - min(found)
        for i in reversed(range(len(self.pieces))):
            cut = min(surplus, len(self.pieces[i]))
            self.pieces[i] = self.pieces[i][: len(self.pieces[i]) - cut]
            surplus -= cut
            if not surplus:
                break


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text that becomes decodable with each of some tokens, as long as they are."""
    text = Detokenizer(tokenizer)
    for token_id in ids:
        text.add(token_id)
    text.finish()
    return text.pieces


def overlap(text: str, mark: str) -> int:
    """Return the length of the longest proper beginning of `mark` that `text` ends with."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


class Held:
    """Text that cannot be told yet, with the token of each piece."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, str]] = deque()

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece for _, piece in self._pieces)

    def add(self, token: int, piece: str) -> None:
        """Put a piece to the end."""
        self._pieces.append((token, piece))

    def take(self, num_characters: int) -> list[tuple[int, str]]:
        """Remove and return this many characters from the front."""
        taken = []
        while num_characters > 0:
            token, piece = self._pieces.popleft()
            if len(piece) > num_characters:
                self._pieces.appendleft((token, piece[num_characters:]))
                piece = piece[:num_characters]
            taken.append((token, piece))
            num_characters -= len(piece)
        return taken

    def take_all(self) -> list[tuple[int, str]]:
        """Remove and return everything."""
        return self.take(len(self.text))


def rstrip(pieces: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return pieces without the white space at their end."""
    while pieces and not pieces[-1][1].rstrip():
        pieces.pop()
    if pieces:
        pieces[-1] = (pieces[-1][0], pieces[-1][1].rstrip())
    return pieces


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], str | None]:
    """Return a function of one token that returns the text that became whole with it, if any."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import DecodeStream

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return partial(DecodeStream(skip_special_tokens=False).step, backend)
    return _PlainDecodeStream(tokenizer).step


class _PlainDecodeStream:
    """`DecodeStream` for tokenizers without a Rust backend."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []  # the tokens before, which decide about a leading space
        self._pending: list[int] = []

    def step(self, token_id: int) -> str | None:
        self._pending.append(token_id)
        before = _text_of(self._tokenizer, self._context)
        text = _text_of(self._tokenizer, self._context + self._pending)[len(before) :]
        if not text or text.endswith("\ufffd"):
            return None
        self._context, self._pending = self._pending, []
        return text


def _text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    if not ids:
        return ""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _silent_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the control tokens, without those that mark reasoning or calls, or that the response template reads."""
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    special |= {i: added.content for i, added in tokenizer.added_tokens_decoder.items() if added.special}
    # Its patterns escape bars and brackets.
    template = json.dumps(getattr(tokenizer, "response_template", None)).replace("\\", "")
    return frozenset(i for i, token in special.items() if not is_markup(token) and token not in template)


def is_markup(token: str) -> bool:
    """Return whether a token marks reasoning or tool calls."""
    is_tag = any(token in pair for pair in THINKING_TAGS)
    return is_tag or any(part in token.lower() for part in _TOOL_MARKUP)


@dataclass(frozen=True, slots=True)
class Segment:
    """Some visible text of one token.

    Attributes:
        part: Whether it is reasoning, answer or the call of a tool.
        text: The text, never empty.
        token: Index of the generated token that it came with.
        span: For tool calls, which of the marked spans it belongs to, from 0.
    """

    part: Part
    text: str
    token: int
    span: int = 0


class ReasoningSplitter:
    """Tells reasoning from answer while the text arrives.

    The marks themselves, and white space beside them, belong to neither. White space at an end is held back until
    text follows it, so that what was streamed is what `invoke` returns.

    Args:
        is_thinking: Whether the prompt already opened the reasoning.
    """

    def __init__(self, *, is_thinking: bool = False) -> None:
        self._part: Part = "reasoning" if is_thinking else "answer"
        self._is_part_empty = True
        self._held = Held()  # white space, or the beginning of a mark
        self._has_thought = is_thinking

    def feed(self, token: int, piece: str) -> Iterator[Segment]:
        """Yield what can be shown now that `piece` has come with generated token number `token`."""
        if not piece:
            return
        self._held.add(token, piece)
        while (at_tag := self._find_tag()) is not None:
            start, tag = at_tag
            before = self._held.take(start)
            self._held.take(len(tag))
            yield from self._show(rstrip(before))
            self._part = "answer" if self._part == "reasoning" else "reasoning"
            self._has_thought = True
            self._is_part_empty = True
        yield from self._show(self._held.take(len(self._held.text) - self._num_undecided()))

    def finish(self) -> Iterator[Segment]:
        """Yield what was held back and turned out to be text; white space at the very end stays in an answer."""
        rest = self._held.take_all()
        yield from self._show(rstrip(rest) if self._part == "reasoning" else rest)

    def _show(self, taken: list[tuple[int, str]]) -> Iterator[Segment]:
        for token, piece in taken:
            # Only beside a mark is white space layout; an answer without reasoning is left as it is.
            is_layout = self._is_part_empty and (self._part == "reasoning" or self._has_thought)
            text = piece.lstrip() if is_layout else piece
            if text:
                self._is_part_empty = False
                yield Segment(self._part, text, token)

    def _find_tag(self) -> tuple[int, str] | None:
        if self._part == "answer" and (self._has_thought or not self._is_part_empty):
            return None  # reasoning comes first and once: later marks are text
        side = 1 if self._part == "reasoning" else 0
        text = self._held.text
        found = [(at, pair[side]) for pair in THINKING_TAGS if (at := text.find(pair[side])) >= 0]
        if not found:
            return None
        at, tag = min(found)
        return None if self._part == "answer" and text[:at].strip() else (at, tag)

    def _num_undecided(self) -> int:
        """Return how many characters at the end may yet be white space before a mark, or part of a mark."""
        text = self._held.text
        if self._part == "answer" and (self._has_thought or not self._is_part_empty):
            return 0
        side = 1 if self._part == "reasoning" else 0
        begun = max(overlap(text, pair[side]) for pair in THINKING_TAGS)
        rest = text[: len(text) - begun]
        blank = len(rest) - len(rest.rstrip())
        if self._part == "answer" and rest.strip():
            return 0
        return begun + blank
