"""From token ids to text, token by token: the one place where both are matched up.

Everything downstream (streamed chunks, stop texts, reasoning, steps) works on `pieces`: piece i is the text that
became decodable with generated token i. Joined they are the whole text, so a character belongs to one token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from langnorm.text.harmony import HARMONY_MARKS
from langnorm.text.marks import is_markup, partial_mark_length
from langnorm.text.tool_calls import HARMONY, detect_tool_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_PENDING = 32  # tokens that wait for the end of a character, which has four bytes at most
_LONGEST_BEGINNING = 3


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
        self._decode_next = _build_decoder(tokenizer)
        self._ids_without_text = _ids_without_text(tokenizer)
        self._stop = stop
        self._longest_stop = max(map(len, stop), default=0)
        self._tail = ""  # the last characters, where a stop text may have begun
        self._pending: list[int] = []  # tokens whose bytes are not yet whole characters
        self._next = (0, 0)  # token, and offset in its piece, of the first character that `take` has not returned
        self.is_stopped = False

    def add(self, token_id: int) -> str:
        """Return the text that `token_id` completes, which may be empty."""
        piece = ""
        if token_id not in self._ids_without_text:
            self._pending.append(token_id)
            if decoded := self._decode_next(token_id):
                piece, self._pending = decoded, []
            elif len(self._pending) > _MOST_PENDING:
                piece = self._give_up()
        self.pieces.append(piece)
        if piece and self._stop:
            self._cut_at_stop(piece)
        return self.pieces[-1]

    def _give_up(self) -> str:
        """Return the bytes that no character can be made of any more, as replacement characters.

        The decoder would look at all of them again with each token.
        """
        given_up, self._pending = self._pending[:-_LONGEST_BEGINNING], self._pending[-_LONGEST_BEGINNING:]
        self._decode_next = _build_decoder(self._tokenizer)
        for token_id in self._pending:
            self._decode_next(token_id)
        return _decode(self._tokenizer, given_up)

    def finish(self) -> str:
        """Return what is left: bytes that never became a whole character, as replacement characters."""
        is_cut = self.is_stopped or not self._pending
        piece = "" if is_cut else _decode(self._tokenizer, self._pending)
        self._pending = []
        if piece:
            self.pieces[-1] += piece
        return piece

    def take(self, *, is_last: bool = False) -> list[tuple[int, str]]:
        """Return the text that came since the last call, with the token of each piece.

        The end is left out as long as it may be the beginning of a stop text.
        """
        token, offset = self._next
        num_undecided = 0 if is_last or self.is_stopped else self._num_undecided()
        num_left = sum(map(len, self.pieces[token:])) - offset - num_undecided
        pieces = []
        while num_left > 0:
            text = self.pieces[token][offset : offset + num_left]
            if text:
                pieces.append((token, text))
            num_left -= len(text)
            offset += len(text)
            token, offset = self._skip_taken(token, offset)
        # Tokens without text are not looked at again.
        token, offset = self._skip_taken(token, offset)
        self._next = (token, offset)
        return pieces

    def _skip_taken(self, token: int, offset: int) -> tuple[int, int]:
        while token + 1 < len(self.pieces) and offset == len(self.pieces[token]):
            token, offset = token + 1, 0
        return token, offset

    def _num_undecided(self) -> int:
        return max((partial_mark_length(self._tail, stop) for stop in self._stop), default=0)

    def _cut_at_stop(self, piece: str) -> None:
        window = self._tail + piece
        starts = [at for stop in self._stop if (at := window.find(stop)) >= 0]
        if not starts:
            self._tail = window[-self._longest_stop :]
            return
        self.is_stopped = True
        surplus = len(window) - min(starts)
        for i in reversed(range(len(self.pieces))):
            cut = min(surplus, len(self.pieces[i]))
            self.pieces[i] = self.pieces[i][: len(self.pieces[i]) - cut]
            surplus -= cut
            if not surplus:
                break


def decode_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text that becomes decodable with each of some tokens, as long as they are."""
    text = Detokenizer(tokenizer)
    for token_id in ids:
        text.add(token_id)
    text.finish()
    return text.pieces


def _build_decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], str | None]:
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
        before = _decode(self._tokenizer, self._context)
        text = _decode(self._tokenizer, self._context + self._pending)[len(before) :]
        if not text or text.endswith("\ufffd"):
            return None
        self._context, self._pending = self._pending, []
        return text


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    if not ids:
        return ""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _ids_without_text(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the control tokens, without those that mark reasoning or calls, or that the response template reads."""
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    special |= {i: added.content for i, added in tokenizer.added_tokens_decoder.items() if added.special}
    # Its patterns escape bars and brackets.
    template = json.dumps(getattr(tokenizer, "response_template", None)).replace("\\", "")
    form = detect_tool_form(str(getattr(tokenizer, "chat_template", None) or ""))
    marks = {*form.inner, *(HARMONY_MARKS if form is HARMONY else ())}
    return frozenset(
        i for i, token in special.items() if not (_is_mark_of_answer(token) or token in marks or token in template)
    )


def _is_mark_of_answer(token: str) -> bool:
    """Return whether a token marks a part of an answer, and not what a tool is about to say."""
    return is_markup(token) and "response" not in token
