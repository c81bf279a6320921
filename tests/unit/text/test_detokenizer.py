"""Tokens become text piece by piece, and stop texts cut it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langnorm.text.detokenizer import Detokenizer

TRICKY = (
    "",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧 family 🇩🇪",
    "e\u0301 and é",
    "مرحبا",
    "a\ufffdb",
    "\ufffd",
    "\r\n\t ",
    "𝔘𝔫𝔦",
)
token_ids = st.lists(st.integers(0, 1023), max_size=25)


class PlainTokenizer:
    """A tokenizer without a Rust backend."""

    def __init__(self, tokenizer) -> None:
        self.decode = tokenizer.decode
        self.all_special_ids = tokenizer.all_special_ids
        self.all_special_tokens = tokenizer.all_special_tokens
        self.added_tokens_decoder = tokenizer.added_tokens_decoder


def pieces_until_stop(tokenizer, ids, stop=()) -> list[str]:
    """Returns the pieces of a sequence that ends at its first stop text, as in an engine."""
    text = Detokenizer(tokenizer, stop)
    for token_id in ids:
        text.add(token_id)
        if text.is_stopped:
            break
    text.finish()
    return text.pieces


def encode(tokenizer, text: str) -> list[int]:
    """Returns the token ids of a text alone."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def assert_pieces_join_to_text(tokenizer, made, text: str) -> None:
    """Checks the pieces of a text's tokens, one per token, against what the tokenizer makes of all of them."""
    ids = encode(tokenizer, text)
    pieces = pieces_until_stop(made, ids)
    assert len(pieces) == len(ids)
    # A text may spell out a control token, which is silent.
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)


BACKENDS = pytest.mark.parametrize("make", [lambda tokenizer: tokenizer, PlainTokenizer], ids=["rust", "plain"])


@given(text=st.text())
@BACKENDS
def test_pieces_of_any_text_join_to_it(make, tokenizer, text) -> None:
    """The pieces of a text's tokens are the text as the tokenizer decodes it."""
    assert_pieces_join_to_text(tokenizer, make(tokenizer), text)


@pytest.mark.parametrize("text", TRICKY)
@BACKENDS
def test_pieces_of_tricky_text_join_to_it(make, tokenizer, text) -> None:
    """Characters of several tokens, joined characters and replacement characters come out as they went in."""
    assert_pieces_join_to_text(tokenizer, make(tokenizer), text)


@given(ids=token_ids)
@BACKENDS
def test_pieces_of_any_tokens_join_to_their_text(make, tokenizer, ids) -> None:
    """A model may emit any tokens, also such whose bytes are no text; their text is what `decode` returns."""
    ids = [i for i in ids if not is_control(tokenizer, i)]

    assert "".join(pieces_until_stop(make(tokenizer), ids)) == tokenizer.decode(ids)


def is_control(tokenizer, token_id: int) -> bool:
    """Returns whether a token is marked as special, as the beginnings and ends of turns are."""
    added = tokenizer.added_tokens_decoder.get(token_id)
    return added is not None and added.special


@given(ids=token_ids)
def test_plain_decoder_gives_same_pieces(tokenizer, ids) -> None:
    """Without a Rust backend every token has the same piece."""
    assert pieces_until_stop(PlainTokenizer(tokenizer), ids) == pieces_until_stop(tokenizer, ids)


def test_control_tokens_have_no_text(tokenizer) -> None:
    """Beginnings and ends of turns and padding are silent, the marks of reasoning and tools are not."""
    control = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    marks = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]

    assert pieces_until_stop(tokenizer, tokenizer.convert_tokens_to_ids(control)) == [""] * 3
    assert pieces_until_stop(tokenizer, tokenizer.convert_tokens_to_ids(marks)) == marks


@pytest.mark.parametrize(
    "mark",
    [
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|tool_call>",
        "<|tool_call_begin|>",
        "<｜tool▁calls▁begin｜>",
        "<|python_tag|>",
        "<start_function_call>",
        "[THINK]",
        "</seed:think>",
    ],
)
def test_special_marks_of_other_families_keep_their_text(mark, tokenizer) -> None:
    """Marks of reasoning and tool calls are text also where a tokenizer calls them special."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([mark], special_tokens=True)
    tokenizer.add_special_tokens({"extra_special_tokens": [mark, "<|pause|>"]})

    ids = tokenizer.convert_tokens_to_ids([mark, "<|pause|>"])

    assert set(ids) <= set(tokenizer.all_special_ids)
    assert pieces_until_stop(tokenizer, ids) == [mark, ""]


def test_character_belongs_to_token_that_completes_it(tokenizer) -> None:
    """A character of several tokens comes with the last of them."""
    first, *rest = encode(tokenizer, "🦉")
    assert rest
    text = Detokenizer(tokenizer)

    assert [text.add(i) for i in (first, *rest)] == [""] * len(rest) + ["🦉"]
    assert text.finish() == ""


@pytest.mark.parametrize("before", ["", "ok "])
def test_bytes_left_over_become_replacement_characters(before, tokenizer) -> None:
    """Bytes at the end that are no whole character are shown as the tokenizer shows them, by `finish`."""
    ids = encode(tokenizer, before + "🦉")[:-1]
    text = Detokenizer(tokenizer)
    for token_id in ids:
        text.add(token_id)
    assert "".join(text.pieces) == before

    assert text.finish() == "\ufffd"
    assert "".join(text.pieces) == tokenizer.decode(ids)
    assert text.finish() == ""


def test_end_token_does_not_swallow_bytes_left_over(tokenizer) -> None:
    """An answer that ends in the middle of a character keeps the rest of its text."""
    ids = [*encode(tokenizer, "owl 🦉")[:-1], tokenizer.eos_token_id]

    assert "".join(pieces_until_stop(tokenizer, ids)) == "owl \ufffd"


# Few letters, so that stop texts occur, repeat and overlap.
letters = st.text(alphabet="ab .\n", max_size=30)
stops = st.text(alphabet="ab .\n", min_size=1, max_size=5)


@given(text=letters, stop=stops, as_bytes=st.booleans())
@example(text="aab", stop="ab", as_bytes=True)
@example(text="a a.b a.a", stop="a.a", as_bytes=False)
def test_stop_text_cuts_at_its_first_occurrence(tokenizer, text, stop, as_bytes) -> None:
    """The text ends before the stop text, however both are split into tokens."""
    ids = [i for letter in text for i in encode(tokenizer, letter)] if as_bytes else encode(tokenizer, text)
    decoded = tokenizer.decode(ids)
    detokenizer = Detokenizer(tokenizer, (stop,))
    for token_id in ids:
        detokenizer.add(token_id)
        if detokenizer.is_stopped:
            break
    detokenizer.finish()

    assert detokenizer.is_stopped == (stop in decoded)
    assert "".join(detokenizer.pieces) == decoded.partition(stop)[0]


@given(text=letters, some=st.lists(stops, min_size=1, max_size=3))
def test_any_of_several_stop_texts_ends(tokenizer, text, some) -> None:
    """The text has no stop text left, and is the whole text when none occurs."""
    ids = encode(tokenizer, text)
    left = "".join(pieces_until_stop(tokenizer, ids, some))

    assert not any(stop in left for stop in some)
    assert tokenizer.decode(ids).startswith(left)
    if not any(stop in text for stop in some):
        assert left == tokenizer.decode(ids)


@given(ids=token_ids, text=letters, some=st.lists(stops, max_size=2), skip=st.integers(1, 4))
def test_taken_text_is_never_taken_back(tokenizer, ids, text, some, skip) -> None:
    """What `take` returns along the way joins to the final text: no part of a stop text was among it."""
    detokenizer = Detokenizer(tokenizer, some)
    taken: list[tuple[int, str]] = []
    shown = []
    for step, token_id in enumerate([*encode(tokenizer, text), *ids, *encode(tokenizer, text)]):
        detokenizer.add(token_id)
        if detokenizer.is_stopped:
            break
        if step % skip == 0:
            taken += detokenizer.take()
            shown.append("".join(piece for _, piece in taken))
            held = "".join(detokenizer.pieces)[len(shown[-1]) :]
            assert not held or any(stop.startswith(held) for stop in some)
    detokenizer.finish()
    taken += detokenizer.take(is_last=True)

    final = "".join(detokenizer.pieces)
    assert "".join(piece for _, piece in taken) == final
    assert all(final.startswith(text) for text in shown)
    for number, piece in enumerate(detokenizer.pieces):
        assert "".join(text for token, text in taken if token == number) == piece
    assert all(text for _, text in taken)
    assert detokenizer.take(is_last=True) == []


def test_beginning_of_stop_text_is_held_back_until_decided(tokenizer) -> None:
    """Text that may yet become a stop text is shown as soon as it cannot any more."""
    text = Detokenizer(tokenizer, ("END",))
    taken = []
    for letter in "aENxENDb":
        (token_id,) = encode(tokenizer, letter)
        text.add(token_id)
        taken.append("".join(piece for _, piece in text.take()))
        if text.is_stopped:
            break

    assert taken == ["a", "", "", "ENx", "", "", ""]
    assert text.take(is_last=True) == []


@BACKENDS
def test_bytes_that_make_no_character_are_given_up(make, tokenizer) -> None:
    """However many come, each is looked at a few times only, and what comes after them is read."""
    garbage = tokenizer.convert_tokens_to_ids("\u0122")  # 0x80, which begins no character
    decoded: list[int] = []

    class Counting(PlainTokenizer):
        def __init__(self, tokenizer) -> None:
            super().__init__(tokenizer)
            self.decode = lambda ids, **options: decoded.append(len(ids)) or tokenizer.decode(ids, **options)

    counting = Counting(tokenizer)
    pieces = pieces_until_stop(counting, [garbage] * 2000 + encode(tokenizer, " so é"))
    assert sum(decoded) < 200_000
    assert "".join(pieces) == "\ufffd" * 2000 + " so é"
    assert "".join(pieces_until_stop(make(tokenizer), [garbage] * 100)) == "\ufffd" * 100


def test_tokens_without_text_are_looked_at_once(tokenizer) -> None:
    """Taking what has come costs the same however many control tokens came before."""
    looked_at: list[int] = []

    class Pieces(list[str]):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            looked_at.append(len(found) if isinstance(key, slice) else 1)
            return found

    detokenizer = Detokenizer(tokenizer)
    detokenizer.pieces = Pieces()
    for _ in range(1000):
        detokenizer.add(tokenizer.eos_token_id)
        detokenizer.take()
    assert sum(looked_at) < 10_000
