"""Control tokens that a text merely spells out: they are read as text, and forge no turn.

A chat template turns messages into one string, and a tokenizer reads every `<|im_end|>` in it as the end of a turn,
whoever wrote it. Here those of the template are told apart from those in the caller's strings:

    mark      private-use characters around each control token of the caller, before the template runs
    render    twice, with and without marks. The marks say who wrote what; the prompt is the text without them, since
              a template looks at its strings (trims them, splits them at `</think>`)
    encode    the template's own control tokens get names, of one private-use character each, and a copy of the
              tokenizer knows its control tokens by these names only: to that copy the caller's are text

The copy does all else as the original: merges, prefix spaces, byte fallback, normalisation, other added tokens. Where
the caller's strings spell out no control token, there are no marks and no copy: the tokenizer gets the plain string.

What a template marks with ordinary text (`[INST]` in Llama 2, where it is no token) is text to the model in any case,
and nobody can tell it apart. And a control token that the template makes out of a whole string of the caller, as in
`'<|' + role + '|>'`, is the template's.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from langnorm.errors import ModelError, PromptError
from langnorm.text.marks import is_markup

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

SpecialTokens = Literal["literal", "allow", "raise"]

Inputs = TypeVar("Inputs")
_Part = tuple[str, bool]  # some text, and whether it is a control token of the template

# Marks are of the basic plane: a template that escapes strings, as JSON or as Python, writes them all in one form.
_MARKS = range(0xE000, 0xF900)
_NAMES = range(0x100000, 0x10FFFE)


def first_control_token(tokenizer: PreTrainedTokenizerBase, value: object) -> str | None:
    """Return the first control token that the strings of `value` spell out, keys included, or None.

    Args:
        tokenizer: The tokenizer, with its chat template.
        value: Lists and dicts of strings, numbers and None.
    """
    return _get_control_tokens(tokenizer).first_in(value)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    render: Callable[[Inputs], str],
    inputs: Inputs,
    *,
    is_literal: bool = True,
    check_length: Callable[[int], None] = lambda _: None,
) -> tuple[str, list[int]]:
    """Return a rendered chat and its token ids.

    Whatever `is_literal` says, the ids are those that the tokenizer makes of the text where the caller's strings spell
    out no control token.

    Args:
        tokenizer: The tokenizer, with its chat template.
        render: Applies the chat template to `inputs`, or to a copy of it whose strings are marked.
        inputs: Everything that the caller gave: lists and dicts of strings, numbers and None.
        is_literal: Whether control tokens that `inputs` spells out are read as text.
        check_length: Raises an error if this many tokens are too many. It is asked before control tokens are told
            apart, which makes no prompt shorter.

    Raises:
        PromptError: The strings leave no character to mark them with.
        ModelError: The tokenizer makes control tokens of plain text.
    """
    text = render(inputs)
    # Not verbose: a prompt that is too long gets an error of ours, not a warning.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    check_length(len(ids))
    strings = list(_strings(inputs))
    control = _get_control_tokens(tokenizer)
    if is_literal and any(control.may_occur_in(string) for string in strings):
        marks = _Marks(control, [*strings, text])
        marked = marks.unescape(render(marks.put(inputs)))
        origins = [(match.group(), not marks.is_marked(match)) for match in control.pattern.finditer(marked)]
        if [token for token, _ in origins] != control.pattern.findall(text):
            # The template treated the marked strings in another way, or joined a control token out of pieces.
            parts = [(marks.remove(part), is_template) for part, is_template in control.split(marked, origins)]
            text = "".join(part for part, _ in parts)
            return text, control.encode(tokenizer, parts)
        if not all(is_template for _, is_template in origins):
            return text, control.encode(tokenizer, control.split(text, origins))
    return text, ids


class _ControlTokens:
    """What counts as control.

    That is all special tokens, and of the other added tokens those that mark reasoning or tools (`<think>`,
    `<tool_call>`; a forged `<tool_response>` would lend a user's words the weight of a tool's), those of the form
    `<|...|>`, and those that the template writes. Runs of white space, HTML tags and added words are text.

    Attributes:
        ids: The id of each control token, by its text.
        pattern: Matches each control token in a text, of two that begin alike the longer one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        template = str(tokenizer.chat_template)
        special = set(tokenizer.all_special_tokens)  # not all of them are marked as such
        self.ids = {
            token.content: i
            for i, token in tokenizer.added_tokens_decoder.items()
            if _is_control(token.content, template, is_special=token.special or token.content in special)
        }
        self.pattern = _any_pattern(self.ids)
        self._beginnings = {token[:n] for token in self.ids for n in range(1, len(token))}
        self._ends = {token[n:] for token in self.ids for n in range(1, len(token))}
        self._longest = max(map(len, self.ids), default=0)
        self._copy: _NamedCopy | None = None

    def first_in(self, value: object) -> str | None:
        matches = (self.pattern.search(string) for string in _strings(value))
        return next((match.group() for match in matches if match), None)

    def may_occur_in(self, string: str) -> bool:
        """Return whether a string has control tokens, or may have a part of one at an end."""
        return self.pattern.search(string) is not None or any(self.partial_at_edges(string.strip()))

    def partial_at_edges(self, stripped: str) -> tuple[bool, bool]:
        """Return whether a string starts with the end of a control token, and whether it ends with a beginning."""
        lengths = range(1, min(self._longest, len(stripped) + 1))
        return any(stripped[:n] in self._ends for n in lengths), any(stripped[-n:] in self._beginnings for n in lengths)

    def split(self, text: str, origins: Iterable[tuple[str, bool]]) -> list[_Part]:
        """Return a text cut at the control tokens that are the template's.

        Args:
            text: The text.
            origins: Each control token in it, in order, and whether it is the template's.
        """
        parts, end = [], 0
        for match, (_, is_template) in zip(self.pattern.finditer(text), origins, strict=True):
            if is_template:
                parts += [(text[end : match.start()], False), (match.group(), True)]
                end = match.end()
        return [*parts, (text[end:], False)]

    def encode(self, tokenizer: PreTrainedTokenizerBase, parts: list[_Part]) -> list[int]:
        """Return the token ids of a text whose control tokens are those of `parts` and no others."""
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if isinstance(backend, Tokenizer):
            text, copy = "".join(part for part, _ in parts), self._copy
            if copy is None or copy.has_names_in(text):
                copy = self._copy = _NamedCopy(backend, self.ids, text)
            ids = copy.encode(parts)
        else:
            ids = [
                i for part, is_template in parts for i in self._encode_part(tokenizer, part, is_template=is_template)
            ]
        # An unknown character is no forgery.
        control = set(self.ids.values()) - {getattr(tokenizer, "unk_token_id", None)}
        expected = [self.ids[part] for part, is_template in parts if is_template and self.ids[part] in control]
        if [i for i in ids if i in control] != expected:
            msg = (
                "This model's tokenizer reads the text of a control token as that token wherever it stands, so it "
                'cannot be taken literally. Remove control tokens from the messages; `special_tokens="raise"` names '
                "them."
            )
            raise ModelError(msg)
        return ids

    def _encode_part(self, tokenizer: PreTrainedTokenizerBase, part: str, *, is_template: bool) -> list[int]:
        """Return the token ids of one part, for tokenizers without a Rust backend."""
        if is_template:
            return [self.ids[part]]
        # Without its added tokens even runs of white space are split, so only where that is needed.
        is_split = self.pattern.search(part) is not None
        ids: list[int] = tokenizer.encode(part, add_special_tokens=False, split_special_tokens=is_split)
        return ids


# Copies of a tokenizer, made when first needed: for a large vocabulary that takes a second.
_cache: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, str], _ControlTokens]]
_cache = weakref.WeakKeyDictionary()


def _get_control_tokens(tokenizer: PreTrainedTokenizerBase) -> _ControlTokens:
    """Return the control tokens of a tokenizer, read anew when its vocabulary or its template has changed."""
    state = (len(tokenizer), str(tokenizer.chat_template))
    entry = _cache.get(tokenizer)
    if entry is None or entry[0] != state:
        entry = _cache[tokenizer] = (state, _ControlTokens(tokenizer))
    return entry[1]


def _is_control(text: str, template: str, *, is_special: bool) -> bool:
    if len(text) < 2 or text.isspace():
        return False  # some models end with "\n" or pad with "!": these are text as well
    is_mark = text in template or is_markup(text) or re.fullmatch(r"<[|｜].*[|｜]>", text)
    return is_special or bool(is_mark and not text.isalnum())


class _Marks:
    """Private-use characters that enclose the control tokens of the caller.

    Args:
        control: The control tokens.
        strings: All strings there are, so that the marks occur in none.
    """

    def __init__(self, control: _ControlTokens, strings: list[str]) -> None:
        self._control = control
        spelt = dict.fromkeys(token for string in strings for token in control.pattern.findall(string))
        used = set("".join(strings))
        free = [chr(i) for i in _MARKS if chr(i) not in used][: 1 + 2 * len(spelt)]
        if len(free) < 1 + 2 * len(spelt):
            msg = (
                "The messages have control tokens and nearly all of Unicode's private-use characters, so the former "
                'cannot be told apart from the chat template\'s own. Remove them, or use `special_tokens="allow"`.'
            )
            raise PromptError(msg)
        self._edge, *rest = free
        # Each token has marks of its own: a template that cuts a string at one leaves a mark beside others.
        self._around = dict(zip(spelt, zip(rest[::2], rest[1::2], strict=True), strict=True))
        self._any = re.compile("|".join(free))
        # As tojson writes them when told to keep to ASCII, and Python in the text of a dict; escaped again in strings.
        # A run of backslashes is looked at from its beginning alone.
        self._escaped = re.compile(rf"(?<!\\)\\+u({'|'.join(f'{ord(mark):04x}' for mark in free)})", re.IGNORECASE)

    def put(self, value: Any) -> Any:
        """Return a copy of lists and dicts whose strings are marked."""
        match value:
            case str():
                return self._put(value)
            case dict():
                return {self.put(key): self.put(item) for key, item in value.items()}
            case list() | tuple():
                return [self.put(item) for item in value]
        return value

    def _put(self, string: str) -> str:
        stripped = string.strip()
        at_start, at_end = self._control.partial_at_edges(stripped)
        stripped = self._control.pattern.sub(self._enclosed, stripped)
        # What the template writes beside it might make it whole.
        stripped = self._edge * at_start + stripped + self._edge * at_end
        start = len(string) - len(string.lstrip())
        return string[:start] + stripped + string[len(string.rstrip()) :] if string.strip() else string

    def _enclosed(self, match: re.Match[str]) -> str:
        opening, closing = self._around[match.group()]
        return f"{opening}{match.group()}{closing}"

    def unescape(self, text: str) -> str:
        """Return a text whose marks are written as themselves."""
        return self._escaped.sub(lambda match: chr(int(match.group(1), 16)), text)

    def is_marked(self, match: re.Match[str]) -> bool:
        """Return whether the marks around a control token say that it is the caller's."""
        text, start, end = match.string, match.start(), match.end()
        return (text[max(0, start - 1) : start], text[end : end + 1]) == self._around.get(match.group())

    def remove(self, text: str) -> str:
        """Return a text without marks."""
        return self._any.sub("", text)


class _NamedCopy:
    """A copy of a tokenizer that knows its control tokens by other names.

    Args:
        backend: The tokenizer.
        ids: Its control tokens.
        text: What the names must not occur in.
    """

    def __init__(self, backend: Tokenizer, ids: Mapping[str, int], text: str) -> None:
        from tokenizers import Tokenizer

        used = set(text)
        free = islice((chr(i) for i in _NAMES if chr(i) not in used), len(ids))
        self._names = names = dict(zip(ids, free, strict=True))
        self._any_name = _any_pattern(names.values())
        state = json.loads(backend.to_str())
        for added in state["added_tokens"]:
            added["content"] = names.get(added["content"], added["content"])
        model = state["model"]
        # In a vocabulary they would be found in plain text too.
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        if "merges" in model:
            model["merges"] = [merge for merge in model["merges"] if not names.keys() & _merge_tokens(merge)]
        state |= {"post_processor": None, "truncation": None, "padding": None}
        self._tokenizer = Tokenizer.from_str(json.dumps(state))

    def has_names_in(self, text: str) -> bool:
        return self._any_name.search(text) is not None

    def encode(self, parts: Iterable[_Part]) -> list[int]:
        text = "".join(self._names[part] if is_template else part for part, is_template in parts)
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _merge_tokens(merge: str | list[str]) -> set[str]:
    """Return the two tokens of a merge and what it makes of them."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return {left, right, left + right}


def _any_pattern(texts: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield from _strings(key)
                yield from _strings(item)
        case list() | tuple():
            for item in value:
                yield from _strings(item)
