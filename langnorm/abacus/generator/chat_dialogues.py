"""A dialogue of the chat, the wording of what users say in it, and the values that are filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langnorm.abacus.generator.chat_content import WORDS, Phrasing

if TYPE_CHECKING:
    import random

# What no "Please" goes before.
_NOT_IMPERATIVE = ("I ", "Can ", "Could ", "Would ", "What ", "Which ", "Your ", "JSON ", "{")
_POOLS: dict[str, tuple[str, ...]] = {
    "person": WORDS.people,
    "city": WORDS.cities,
    "colour": WORDS.colours,
    "fruit": WORDS.fruits,
    "food": WORDS.foods,
    "animal": WORDS.animals,
    "job": WORDS.jobs,
    "thing": WORDS.things,
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user says, and what Abacus answers and thinks before it answers."""

    user: str
    answer: str
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation of one intent, the last turn of which is to be learnt."""

    intent: str
    turns: tuple[Turn, ...]


def draw_wording(rng: random.Random, phrasing: Phrasing, **fields: object) -> str:
    """Return one wording, with the case and punctuation of its own words varied but never its fields'."""
    template = rng.choice(phrasing.templates)
    ends_with_field = template.endswith("}")  # what follows would read as part of the text to copy
    if phrasing.closers and not ends_with_field and rng.random() < 0.25:
        template = _close(template, rng.choice(phrasing.closers))
    if phrasing.openers and rng.random() < 0.3:
        template = _open(rng.choice(phrasing.openers), template)
    if not ends_with_field and rng.random() < 0.25:
        template = template.rstrip(".?!") or template
    case = rng.random()
    if case < 0.2:
        template = template.lower()
    elif case < 0.22 and "{" not in template:
        template = template.upper()
    return template.format(**fields)


def _open(opener: str, template: str) -> str:
    if template.lower().startswith(opener.lower().strip(" ,!.:")):
        return template
    if opener.endswith("lease ") and template.startswith(_NOT_IMPERATIVE):
        return template
    keeps_case = opener[-2] in "!." or template.startswith(("I ", "I'", "Abacus", "{"))
    return opener + (template if keeps_case else template[0].lower() + template[1:])


def _close(template: str, closer: str) -> str:
    if closer.strip(" ,.!").lower() in template.lower():
        return template
    stem = template.rstrip(".?!")
    mark = template[len(stem) :]
    if closer.startswith(","):
        return stem + closer + mark
    return stem + (mark or ".") + closer


def invented_word(rng: random.Random) -> str:
    """Draw a word of one to four syllables that is no real word."""
    syllables = (rng.choice(WORDS.onsets) + rng.choice(WORDS.vowels) for _ in range(rng.randint(1, 4)))
    return "".join(syllables) + rng.choice(WORDS.endings)


def draw_code(rng: random.Random) -> str:
    """Draw a code of letters and digits such as `K7/BX12`."""

    def part() -> str:
        # A digit comes after each letter or two, so that no word comes out by chance.
        letters = "".join(rng.choices(WORDS.code_letters, k=rng.randint(1, 2)))
        return letters + str(rng.randint(0, 999))

    return rng.choice("-/_.").join(part() for _ in range(rng.randint(1, 3)))


def draw_value(rng: random.Random, pool: str) -> str | int:
    """Draw a value of the pool that is named `pool`."""
    match pool:
        case "age":
            return rng.randint(3, 99)
        case "small":
            return rng.randint(2, 60)
        case "number":
            return rng.randrange(1, 10 ** rng.randint(1, 4))
        case "code":
            return draw_code(rng)
        case "word":
            return invented_word(rng)
        case "person" | "city" if rng.random() < 0.25:
            return invented_word(rng).capitalize()
    return rng.choice(_POOLS[pool])
