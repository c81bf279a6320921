"""Shades of a terminal for how large norms are: strong ones stand out on a light and on a dark ground."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# From half on, as most of what is below is no news: ink and ground of a token, and a colour for bars.
_GROUNDS = ("#fee498", "#fecb62", "#fea535", "#ee7618", "#c64902")
_INKS = ("#1b1b1b", "#1b1b1b", "#1b1b1b", "#1b1b1b", "#ffffff")
_BARS = ("#b08d3c", "#c98a1b", "#dd7d16", "#d9600c", "#c64902")
_BLOCKS = "▁▂▃▄▅▆▇█"
_LOW_BAR = "#8a8a8a"
_BAR_WIDTH = 10


def _shade(heat: float) -> int | None:
    return min(len(_GROUNDS) - 1, int((heat - 0.5) * 2 * len(_GROUNDS))) if heat >= 0.5 else None


def token_style(heat: float | None) -> str:
    """Return the style of rich for a token; an empty one below a half and where nothing is known."""
    shade = None if heat is None else _shade(heat)
    return "" if shade is None else f"{_INKS[shade]} on {_GROUNDS[shade]}"


def bar_style(heat: float) -> str:
    """Return the style of rich for a bar."""
    shade = _shade(heat)
    return _LOW_BAR if shade is None else _BARS[shade]


def bar(heat: float | None) -> Text:
    """Return a bar of ten characters, which says the same without colours."""
    from rich.text import Text

    if heat is None:
        return Text("-".ljust(_BAR_WIDTH), style=_LOW_BAR)
    filled = round(heat * _BAR_WIDTH)
    return Text.assemble(("▇" * filled, bar_style(heat)), ("·" * (_BAR_WIDTH - filled), _LOW_BAR))


def block(heat: float | None) -> tuple[str, str]:
    """Return a character whose height is a heat, and its style."""
    if heat is None:
        return " ", ""
    return _BLOCKS[min(len(_BLOCKS) - 1, int(heat * len(_BLOCKS)))], bar_style(heat)
