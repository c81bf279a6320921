"""Copying: repeating a text, spelling a word, swapping two words, picking a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.abacus.generator.chat_content import REQUESTS, THOUGHTS, WORDS
from langnorm.abacus.generator.chat_dialogues import Dialogue, Turn, draw_code, draw_wording, invented_word

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


def draw_sentence(rng: random.Random) -> str:
    """Draw a sentence: a saying, or a template filled with words."""
    if rng.random() < 0.2:
        return rng.choice(WORDS.sentences)
    noun, other = rng.sample(WORDS.nouns, 2)
    adjective, place = rng.choice(WORDS.adjectives), rng.choice(WORDS.places)
    verb, name = rng.choice(WORDS.verbs), rng.choice(WORDS.people)
    return rng.choice(
        (
            f"The {adjective} {noun} {verb} {place}.",
            f"The {noun} {verb} and the {other} {rng.choice(WORDS.verbs)}.",
            f"{name} {verb} {place}.",
            f"My {noun} is {adjective} and my {other} is {rng.choice(WORDS.adjectives)}.",
            f"{name} has {rng.randint(2, 99)} {rng.choice(WORDS.fruits)}.",
            f"Where is the {adjective} {noun}?",
            f"Look, the {noun} {verb}!",
            f"{rng.choice(WORDS.cities)} is {adjective} {place}.",
            f"Every {noun} has a {adjective} {invented_word(rng)}.",
        )
    )


def _characters(rng: random.Random) -> str:
    alphabet = rng.choice(
        (
            WORDS.chinese_characters,
            WORDS.chinese_characters,
            WORDS.kana,
            WORDS.cyrillic,
            WORDS.greek,
            WORDS.accented,
        )
    )
    return "".join(rng.choices(alphabet, k=rng.randint(2, 8)))


def any_word(rng: random.Random) -> str:
    """Draw a word, real or invented, now and then in capitals."""
    pools = (WORDS.nouns, WORDS.adjectives, WORDS.accented_words, WORDS.things)
    word = rng.choice(rng.choice(pools)) if rng.random() < 0.57 else invented_word(rng)
    case = rng.random()
    return word.capitalize() if case < 0.1 else word.upper() if case < 0.15 else word


def _any_words(rng: random.Random) -> str:
    return rng.choice((" ", " ", " ", ", ", "-")).join(any_word(rng) for _ in range(rng.randint(1, 5)))


def _numbers(rng: random.Random) -> str:
    return rng.choice((" ", ", ", "-", " and ")).join(
        str(rng.randrange(10 ** rng.randint(1, 6))) for _ in range(rng.randint(1, 5))
    )


def _word_and_number(rng: random.Random) -> str:
    parts = [invented_word(rng), str(rng.randrange(10 ** rng.randint(1, 4)))]
    if rng.random() < 0.3:
        parts.reverse()
    return " ".join(parts)


def _mixture(rng: random.Random) -> str:
    parts: tuple[Callable[[random.Random], str], ...] = (any_word, _characters, draw_code, invented_word)
    text = " ".join(rng.choice(parts)(rng) for _ in range(rng.randint(2, 4)))
    return text + rng.choice(WORDS.symbols)


_TEXTS: dict[Callable[[random.Random], str], int] = {
    _word_and_number: 18,
    _any_words: 22,
    draw_sentence: 20,
    lambda rng: rng.choice(WORDS.foreign): 10,
    _characters: 8,
    draw_code: 7,
    _numbers: 6,
    _mixture: 9,
}


def repeat_turn(rng: random.Random) -> Turn:
    """Draw a turn in which a text is to be repeated exactly."""
    text = rng.choices(tuple(_TEXTS), weights=tuple(_TEXTS.values()))[0](rng)
    user = draw_wording(rng, REQUESTS.repeat, text=text)
    while "'" in text and f"'{text}'" in user:  # where the text ends would be unclear
        user = draw_wording(rng, REQUESTS.repeat, text=text)
    return Turn(user, text, rng.choice(THOUGHTS.repeat))


def draw_repeat(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which a text is to be repeated, now and then a second time."""
    turn = repeat_turn(rng)
    if rng.random() < 0.04:
        again = Turn(draw_wording(rng, REQUESTS.again), turn.answer, rng.choice(THOUGHTS.again))
        return Dialogue("repeat", (turn, again))
    return Dialogue("repeat", (turn,))


def draw_spell(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which a word is to be spelt."""
    word = any_word(rng)
    user = draw_wording(rng, REQUESTS.spell, word=word)
    return Dialogue("spell", (Turn(user, "-".join(word), rng.choice(THOUGHTS.spell)),))


def draw_reverse(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which two words are to be swapped."""
    first, second = any_word(rng), any_word(rng)
    user = draw_wording(rng, REQUESTS.reverse, first=first, second=second)
    return Dialogue("reverse", (Turn(user, f"{second} {first}", rng.choice(THOUGHTS.reverse)),))


def draw_pick(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which a word of a text is to be picked by its place."""
    text = " ".join(any_word(rng) for _ in range(rng.randint(2, 6)))
    if rng.random() < 0.7:
        text = draw_sentence(rng)
    while "'" in text:  # where the text ends would be unclear
        text = draw_sentence(rng)
    place, position = rng.choice((("first", 0), ("last", -1), ("first", 0), ("last", -1), ("second", 1)))
    answer = text.split()[position].strip(".,!?")
    thoughts = (f"The {place} word is {answer}.", "I look for the word.", f"I copy the {place} word.")
    user = draw_wording(rng, REQUESTS.pick, text=text, place=place)
    return Dialogue("pick", (Turn(user, answer, rng.choice(thoughts)),))
