"""Tables of the generator: what a file may not contain, and how the error says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from langnorm.abacus.generator.tables import TableError, load
from langnorm.abacus.generator.tool_domains import DOMAINS
from langnorm.abacus.generator.tool_values import POOLS, draw_value


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a file."""

    name: str
    weight: float = 1.0
    is_rare: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Content:
    """A whole file."""

    words: tuple[str, ...]
    events: dict[Literal["+", "-"], tuple[str, ...]]
    entries: tuple[Entry, ...] = ()


GOOD = 'words = ["b", "a"]\n[events]\n"-" = ["x"]\n"+" = []\n'
ENTRY = '[[entries]]\nname = "a"\n'


def read(folder: Path, text: str) -> Content:
    """Return what a file with this text contains."""
    (folder / "words.toml").write_text(text)
    return load("words.toml", Content, folder)


def test_a_file_becomes_its_dataclass_in_its_own_order(tmp_path: Path) -> None:
    """Lists become tuples, tables dataclasses or dicts; what is left out has its default."""
    content = read(tmp_path, GOOD + '[[entries]]\nname = "one"\nweight = 2\n[[entries]]\nname = "two"\ndefault = 3\n')
    assert content == Content(("b", "a"), {"-": ("x",), "+": ()}, (Entry("one", 2), Entry("two", default=3)))
    assert list(content.events) == ["-", "+"]


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """What is written to it later is not seen."""
    assert read(tmp_path, GOOD) == read(tmp_path, "words = 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words = [", "`words.toml` is not TOML: "),
        ("words = []", "`words.toml`: the key `events` is missing."),
        ("number = 1\n" + GOOD, "`words.toml`: unknown key `number`. Allowed are `words`, `events`, `entries`."),
        ("words = 1\n[events]", "`words.toml`, key `words`: `1` is not a list."),
        ('words = ["a", 2]\n[events]', "`words.toml`, key `words[1]`: `2` is not str."),
        ("words = []\nevents = 1", "`words.toml`, key `events`: `1` is not a table."),
        ('words = []\n[events]\n"*" = []', '`words.toml`, key `events`: `\'*\'` is not "+" or "-".'),
        (GOOD + "[[entries]]", "`words.toml`, key `entries[0]`: the key `name` is missing."),
        (GOOD + ENTRY + "names = []", "`words.toml`, key `entries[0]`: unknown key `names`."),
        (
            GOOD + '[[entries]]\nname = "a"\nweight = true',
            "`words.toml`, key `entries[0].weight`: `True` is not float.",
        ),
        (GOOD + '[[entries]]\nname = "a"\nis_rare = 1', "`words.toml`, key `entries[0].is_rare`: `1` is not bool."),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """Whoever edits a table reads what is wrong with it and where."""
    with pytest.raises(TableError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(message)


def test_domains_name_pools_that_exist() -> None:
    """Every argument but an enum, and every value that a tool returns, can be drawn."""
    import random

    arguments = [argument for domain in DOMAINS for argument in domain.arguments]
    assert all(bool(argument.choices) == (argument.kind == "enum") != bool(argument.pool) for argument in arguments)
    pools = {argument.pool for argument in arguments if argument.pool}
    pools |= {pool for domain in DOMAINS for pool in domain.outcome.fields.values()}
    assert pools & set(POOLS)
    for pool in sorted(pools):
        draw_value(random.Random(0), pool)
