"""Random identifiers and values, drawn from pools so wide that a model has to copy what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langnorm.abacus.generator.base import Split, bucket
from langnorm.abacus.generator.tables import load

if TYPE_CHECKING:
    import random

# Words of a third-party test suite that must never be seen in training.
FORBIDDEN = ("magic_function", "my_adder_tool", "get_weather", "random_name", "parrot", "erick")

_HELD_OUT_BUCKETS = 10  # one identifier of ten is for development and test only

_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class NameWords:
    """What names and values are made of: lists of words, and the characters of three scripts."""

    word_pieces: tuple[str, ...]
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    cities: tuple[str, ...]
    accented_people: tuple[str, ...]
    accented_places: tuple[str, ...]
    chinese_people: tuple[str, ...]
    chinese_places: tuple[str, ...]
    japanese_people: tuple[str, ...]
    japanese_places: tuple[str, ...]
    korean: tuple[str, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    file_extensions: tuple[str, ...]
    mail_domains: tuple[str, ...]
    months: tuple[str, ...]
    han: str
    hiragana: str
    katakana: str


_WORDS = load("names.toml", NameWords)


def _syllables(rng: random.Random, count: int) -> str:
    parts = []
    for _ in range(count):
        final = rng.choice("lmnrstkx") if rng.random() < 0.25 else ""
        parts.append(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) + final)
    return "".join(parts)


def _piece(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return _syllables(rng, rng.choice((1, 2, 2, 3)))
    if draw < 0.75:
        return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(2, 6)))
    # Real words, because in practice most names are made of them.
    return rng.choice(_WORDS.word_pieces)


def _any_identifier(rng: random.Random) -> str:
    pieces = [_piece(rng) for _ in range(rng.choices((1, 2, 3), (35, 50, 15))[0])]
    if rng.random() < 0.15:
        pieces[-1] += str(rng.randint(0, 99) if rng.random() < 0.5 else rng.randint(1, 9))
    style = rng.random()
    if style < 0.6:
        return "_".join(pieces)
    if style < 0.8:
        return pieces[0] + "".join(piece.capitalize() for piece in pieces[1:])
    return "".join(pieces)


def belongs(name: str, split: Split) -> bool:
    """Return whether the random identifier `name` may be used in `split`."""
    held_out = bucket(name, _HELD_OUT_BUCKETS) == 0
    return held_out == (split != "train")


def identifier(rng: random.Random, split: Split) -> str:
    """Draw a name for a tool or an argument that no other side of the train/held-out border uses.

    Args:
        rng: Source of randomness.
        split: The split the example is for; dev and test share the held-out tenth of all names.

    Returns:
        A name of 3 to 16 letters, digits and underscores.
    """
    while True:
        name = _any_identifier(rng)
        if 3 <= len(name) <= 16 and belongs(name, split) and not any(word in name for word in FORBIDDEN):
            return name


def similar_identifier(rng: random.Random, split: Split, name: str) -> str:
    """Draw an identifier that differs from `name` in one or two characters."""
    while True:
        letters = list(name)
        position = rng.randrange(len(letters))
        if letters[position] == "_":
            continue
        letters[position] = rng.choice(_LETTERS) if position == 0 or rng.random() < 0.7 else rng.choice("0123456789")
        other = "".join(letters)
        if rng.random() < 0.3:
            other += rng.choice("_0123456789") + rng.choice(_LETTERS)
        if other != name and belongs(other, split) and not any(word in other for word in FORBIDDEN):
            return other


def word(rng: random.Random) -> str:
    """Draw an invented lower-case word."""
    while True:
        text = _syllables(rng, rng.randint(2, 3))
        if not any(forbidden in text for forbidden in FORBIDDEN):
            return text


def han(rng: random.Random) -> str:
    """Draw two to four Chinese characters."""
    return "".join(rng.choice(_WORDS.han) for _ in range(rng.randint(2, 4)))


def kana(rng: random.Random) -> str:
    """Draw two to five characters of one Japanese syllabary."""
    alphabet = rng.choice((_WORDS.hiragana, _WORDS.katakana))
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 5)))


def _foreign(rng: random.Random, *pools: tuple[str, ...]) -> str:
    draw = rng.random()
    if draw < 0.25:
        return han(rng)
    if draw < 0.4:
        return kana(rng)
    return rng.choice(rng.choice(pools))


def person(rng: random.Random) -> str:
    """Draw the name of a person."""
    draw = rng.random()
    if draw < 0.22:
        return _foreign(
            rng,
            _WORDS.accented_people,
            _WORDS.accented_people,
            _WORDS.chinese_people,
            _WORDS.japanese_people,
            _WORDS.korean,
        )
    if draw < 0.42:
        return word(rng).capitalize()
    if draw < 0.6:
        return f"{rng.choice(_WORDS.first_names)} {rng.choice(_WORDS.last_names)}"
    return rng.choice(_WORDS.first_names)


def place(rng: random.Random) -> str:
    """Draw the name of a city, often of one that does not exist."""
    draw = rng.random()
    if draw < 0.22:
        return _foreign(
            rng, _WORDS.accented_places, _WORDS.accented_places, _WORDS.chinese_places, _WORDS.japanese_places
        )
    if draw < 0.45:
        return word(rng).capitalize()
    return rng.choice(_WORDS.cities)


def code(rng: random.Random) -> str:
    """Draw an identification code such as `ZX-4471`."""
    letters = "".join(rng.choice(_LETTERS.upper()) for _ in range(rng.randint(1, 3)))
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
    return letters + rng.choice(("-", "-", "", "_", "#")) + digits


def filename(rng: random.Random) -> str:
    """Draw the name of a file, sometimes with a folder."""
    stem = rng.choice((rng.choice(_WORDS.nouns), word(rng)))
    if rng.random() < 0.5:
        stem += rng.choice("_-") + rng.choice((str(rng.randint(1, 99)), rng.choice(_WORDS.nouns)))
    folder = rng.choice(("", "", "", "data/", "docs/", f"{word(rng)}/"))
    return f"{folder}{stem}.{rng.choice(_WORDS.file_extensions)}"


def email(rng: random.Random) -> str:
    """Draw an email address."""
    user = rng.choice((rng.choice(_WORDS.first_names).lower(), word(rng)))
    if rng.random() < 0.4:
        user += rng.choice("._") + rng.choice(_WORDS.last_names).lower()
    return f"{user}@{rng.choice((rng.choice(_WORDS.mail_domains), word(rng) + '.com'))}"


def date(rng: random.Random) -> str:
    """Draw a date in one of three notations."""
    year, month, day = rng.randint(1990, 2031), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice(
        (f"{year}-{month:02}-{day:02}", f"{_WORDS.months[month - 1]} {day}", f"{day} {_WORDS.months[month - 1]} {year}")
    )


def phrase(rng: random.Random) -> str:
    """Draw an adjective and a noun."""
    return f"{rng.choice(_WORDS.adjectives)} {rng.choice(_WORDS.nouns)}"


def noun(rng: random.Random) -> str:
    """Draw a common noun."""
    return rng.choice(_WORDS.nouns)


def value_string(rng: random.Random) -> str:
    """Draw a value of any kind for an argument that takes a string and has to be copied verbatim."""
    kinds = (
        (word, 22), (noun, 8), (phrase, 12), (person, 14), (place, 14), (code, 10), (filename, 6), (email, 4),
        (date, 5), (han, 4), (kana, 3),
    )  # fmt: skip
    draw = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
    return draw(rng)
