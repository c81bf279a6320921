"""Where text in brackets ends, told letter by letter."""

from __future__ import annotations


class Brackets:
    """Follows brackets and quotes.

    Args:
        quotes: What stands around strings. Of one character it may be escaped by a backslash.
        opened: Brackets that are open already.
    """

    def __init__(self, quotes: tuple[str, ...] = ('"',), opened: str = "") -> None:
        self._quotes = quotes
        self._longest = max(map(len, quotes))
        self._open = list(opened)
        self._quote = ""
        self._is_escaped = False
        self._tail = ""
        self._is_line_blank = False

    def feed(self, letter: str) -> bool:
        """Return whether the last bracket closes with this letter."""
        self._is_line_blank = letter == "\n" or (self._is_line_blank and letter.isspace())
        self._tail = (self._tail + letter)[-self._longest :]
        if self._is_escaped:
            self._is_escaped = False
        elif self._quote:
            if self._tail.endswith(self._quote):
                self._quote, self._tail = "", ""
            self._is_escaped = letter == "\\" and len(self._quote) == 1
        elif quote := next((quote for quote in self._quotes if self._tail.endswith(quote)), ""):
            self._quote, self._tail = quote, ""
        elif letter in "{[(":
            self._open.append(letter)
        elif letter in "}])" and self._open:
            self._open.pop()
            return not self._open
        return False

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be text: inside of a string, unless it has a line of its own there.

        Only a string that somebody forgot to close has a line break before the mark.
        """
        return bool(self._quote) and not self._is_line_blank

    def spoiler(self) -> str:
        """Return what makes JSON so far invalid for good."""
        end_of_string = ('\\"' if self._is_escaped else '"') if self._quote else ""
        return end_of_string + ("]" if self._open[-1:] == ["{"] else "}")


def spoiled(text: str) -> str:
    """Return a text that is no JSON object, even for readers who close what is left open."""
    if not text.lstrip().startswith("{"):
        return text
    brackets = Brackets()
    for letter in text:
        brackets.feed(letter)
    return text + brackets.spoiler()
