"""Plain chat: small talk, copying, recalling, extracting to JSON, and declining everything else."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langnorm.abacus.generator import chat_intents as content
from langnorm.abacus.generator.base import Example, Split

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_SYSTEM_SHARE = 0.1
_EARLIER_SHARE = 0.1
_THINKING_SHARE = 0.5
# What no "Please" goes before.
_NOT_IMPERATIVE = ("I ", "Can ", "Could ", "Would ", "What ", "Which ", "Your ", "JSON ", "{")


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


def draw(rng: random.Random, split: Split) -> Example:
    """Draw one conversation.

    Args:
        rng: Source of randomness. The same state gives the same example.
        split: Split the example is for. Every split is drawn alike: the caller keeps those whose user text
            belongs to it.

    Returns:
        An example without tools, its answer the content of the last message.
    """
    del split
    dialogue = rng.choices(_DRAWERS, cum_weights=_CUMULATIVE_WEIGHTS)[0](rng)
    turns = dialogue.turns
    # Recalled facts come with earlier turns of their own.
    if len(turns) == 1 and rng.random() < _EARLIER_SHARE:
        turns = (*_small_talk(rng), *turns)
    messages: list[dict[str, Any]] = []
    if rng.random() < _SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(content.SYSTEM_MESSAGES)})
    for turn in turns:
        messages.append({"role": "user", "content": turn.user})
        messages.append({"role": "assistant", "content": turn.answer})
    enable_thinking = rng.random() < _THINKING_SHARE
    if enable_thinking:
        messages[-1]["reasoning_content"] = turns[-1].thought
    return Example(
        skill="chat",
        messages=tuple(messages),
        enable_thinking=enable_thinking,
        answer=turns[-1].answer,
        details={"intent": dialogue.intent},
    )


# --- Wording -------------------------------------------------------------------------------------------


def _word(rng: random.Random, phrasing: content.Phrasing, **fields: object) -> str:
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


# --- Small talk and refusals ---------------------------------------------------------------------------


def _intent_turn(rng: random.Random, intent: content.Intent) -> Turn:
    return Turn(
        _word(rng, intent.phrasing, city=rng.choice(content.CITIES)),
        rng.choice(intent.answers),
        rng.choice(intent.thoughts),
    )


def _drawer_of(intent: content.Intent) -> Callable[[random.Random], Dialogue]:
    return lambda rng: Dialogue(intent.name, (_intent_turn(rng, intent),))


def _small_talk(rng: random.Random) -> list[Turn]:
    """Return one or two turns that may come before any other."""
    turns = []
    if rng.random() < 0.7:
        opening = ("greeting", "greeting_morning", "greeting_evening", "how_are_you", "identity")
        turns.append(_intent_turn(rng, _INTENTS_BY_NAME[rng.choice(opening)]))
    if not turns or rng.random() < 0.4:
        following = ("how_are_you", "capabilities", "joke", "compliment", "thanks", "help", "human")
        turns.append(_intent_turn(rng, _INTENTS_BY_NAME[rng.choice(following)]))
    # Other models' replies turn up in a history as well, and must not throw the model off.
    if rng.random() < 0.15:
        turns[0] = Turn(turns[0].user, rng.choice(("Hello.", "hello", "Hi!", "Okay.", "Yes?")))
    return turns


def _refusal(rng: random.Random) -> Dialogue:
    refusal = rng.choices(content.REFUSALS, weights=_REFUSAL_WEIGHTS)[0]
    user = _word(rng, refusal.phrasing, topic=rng.choice(refusal.topics))
    # Whole questions are topics too, and nothing is copied from here, so their case and marks may vary.
    if rng.random() < 0.15:
        user = user.lower()
    if rng.random() < 0.15:
        user = user.rstrip(".?!")
    return Dialogue("refusal", (Turn(user, refusal.answer, rng.choice(refusal.thoughts)),))


# --- Copying -------------------------------------------------------------------------------------------


def _random_word(rng: random.Random) -> str:
    syllables = (rng.choice(content.ONSETS) + rng.choice(content.VOWELS) for _ in range(rng.randint(1, 4)))
    return "".join(syllables) + rng.choice(content.ENDINGS)


def _code(rng: random.Random) -> str:
    def part() -> str:
        # A digit comes after each letter or two, so that no word comes out by chance.
        letters = "".join(rng.choices(content.CODE_LETTERS, k=rng.randint(1, 2)))
        return letters + str(rng.randint(0, 999))

    return rng.choice("-/_.").join(part() for _ in range(rng.randint(1, 3)))


def _sentence(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(content.SENTENCES)
    noun, other = rng.sample(content.NOUNS, 2)
    adjective, place = rng.choice(content.ADJECTIVES), rng.choice(content.PLACES)
    verb, name = rng.choice(content.VERBS), rng.choice(content.PEOPLE)
    return rng.choice(
        (
            f"The {adjective} {noun} {verb} {place}.",
            f"The {noun} {verb} and the {other} {rng.choice(content.VERBS)}.",
            f"{name} {verb} {place}.",
            f"My {noun} is {adjective} and my {other} is {rng.choice(content.ADJECTIVES)}.",
            f"{name} has {rng.randint(2, 99)} {rng.choice(content.FRUITS)}.",
            f"Where is the {adjective} {noun}?",
            f"Look, the {noun} {verb}!",
            f"{rng.choice(content.CITIES)} is {adjective} {place}.",
            f"Every {noun} has a {adjective} {_random_word(rng)}.",
        )
    )


def _characters(rng: random.Random) -> str:
    alphabet = rng.choice(
        (
            content.CHINESE_CHARACTERS,
            content.CHINESE_CHARACTERS,
            content.KANA,
            content.CYRILLIC,
            content.GREEK,
            content.ACCENTED,
        )
    )
    return "".join(rng.choices(alphabet, k=rng.randint(2, 8)))


def _any_word(rng: random.Random) -> str:
    pools = (content.NOUNS, content.ADJECTIVES, content.ACCENTED_WORDS, content.THINGS)
    word = rng.choice(rng.choice(pools)) if rng.random() < 0.57 else _random_word(rng)
    case = rng.random()
    return word.capitalize() if case < 0.1 else word.upper() if case < 0.15 else word


def _any_words(rng: random.Random) -> str:
    return rng.choice((" ", " ", " ", ", ", "-")).join(_any_word(rng) for _ in range(rng.randint(1, 5)))


def _numbers(rng: random.Random) -> str:
    return rng.choice((" ", ", ", "-", " and ")).join(
        str(rng.randrange(10 ** rng.randint(1, 6))) for _ in range(rng.randint(1, 5))
    )


def _word_and_number(rng: random.Random) -> str:
    parts = [_random_word(rng), str(rng.randrange(10 ** rng.randint(1, 4)))]
    if rng.random() < 0.3:
        parts.reverse()
    return " ".join(parts)


def _mixture(rng: random.Random) -> str:
    parts: tuple[Callable[[random.Random], str], ...] = (_any_word, _characters, _code, _random_word)
    text = " ".join(rng.choice(parts)(rng) for _ in range(rng.randint(2, 4)))
    return text + rng.choice(content.SYMBOLS)


_TEXTS: dict[Callable[[random.Random], str], int] = {
    _word_and_number: 18,
    _any_words: 22,
    _sentence: 20,
    lambda rng: rng.choice(content.FOREIGN): 10,
    _characters: 8,
    _code: 7,
    _numbers: 6,
    _mixture: 9,
}


def _repeat_turn(rng: random.Random) -> Turn:
    text = rng.choices(tuple(_TEXTS), weights=tuple(_TEXTS.values()))[0](rng)
    user = _word(rng, content.REPEAT, text=text)
    while "'" in text and f"'{text}'" in user:  # where the text ends would be unclear
        user = _word(rng, content.REPEAT, text=text)
    return Turn(user, text, rng.choice(content.REPEAT_THOUGHTS))


def _repeat(rng: random.Random) -> Dialogue:
    turn = _repeat_turn(rng)
    if rng.random() < 0.04:
        again = Turn(_word(rng, content.AGAIN), turn.answer, rng.choice(content.AGAIN_THOUGHTS))
        return Dialogue("repeat", (turn, again))
    return Dialogue("repeat", (turn,))


def _spell(rng: random.Random) -> Dialogue:
    word = _any_word(rng)
    user = _word(rng, content.SPELL, word=word)
    return Dialogue("spell", (Turn(user, "-".join(word), rng.choice(content.SPELL_THOUGHTS)),))


def _reverse(rng: random.Random) -> Dialogue:
    first, second = _any_word(rng), _any_word(rng)
    user = _word(rng, content.REVERSE, first=first, second=second)
    return Dialogue("reverse", (Turn(user, f"{second} {first}", rng.choice(content.REVERSE_THOUGHTS)),))


def _pick(rng: random.Random) -> Dialogue:
    text = " ".join(_any_word(rng) for _ in range(rng.randint(2, 6)))
    if rng.random() < 0.7:
        text = _sentence(rng)
    while "'" in text:  # where the text ends would be unclear
        text = _sentence(rng)
    place, position = rng.choice((("first", 0), ("last", -1), ("first", 0), ("last", -1), ("second", 1)))
    answer = text.split()[position].strip(".,!?")
    thoughts = (f"The {place} word is {answer}.", "I look for the word.", f"I copy the {place} word.")
    user = _word(rng, content.PICK, text=text, place=place)
    return Dialogue("pick", (Turn(user, answer, rng.choice(thoughts)),))


# --- Numbers -------------------------------------------------------------------------------------------


def _count(rng: random.Random) -> Dialogue:
    start, end = sorted(rng.sample(range(1, 21), 2))
    form = rng.random()
    if form < 0.35:
        phrasing, start = content.COUNT_TO, 1
    elif form < 0.8:
        phrasing = content.COUNT_FROM
    else:
        phrasing, start, end = content.COUNT_DOWN, end, start
    step = 1 if start < end else -1
    answer = ", ".join(str(number) for number in range(start, end + step, step))
    thought = rng.choice((f"I count from {start} to {end}.", f"From {start} to {end}."))
    return Dialogue("count", (Turn(_word(rng, phrasing, start=start, end=end), answer, thought),))


def _compare(rng: random.Random) -> Dialogue:
    # Numbers are kept as whole multiples of a unit, so that no rounding shows.
    decimals = rng.choice((0, 0, 0, 0, 1, 2))
    bound = 10 ** (rng.randint(1, 4) + decimals)
    left, right = rng.sample(range(-bound if rng.random() < 0.15 else 0, bound), 2)
    if decimals == 0 and rng.random() < 0.3:  # near numbers are the hard ones
        right = left + rng.choice((-10, -2, -1, 1, 2, 10))

    def show(number: int) -> str:
        return f"{number / 10**decimals:.{decimals}f}"

    smaller, larger = sorted((left, right))
    asks_larger = rng.random() < 0.65
    if rng.random() < 0.3:
        phrasing = content.IS_LARGER if asks_larger else content.IS_SMALLER
        yes = (left > right) == asks_larger
        relation = "larger" if left > right else "smaller"
        answer = f"{'Yes' if yes else 'No'}, {show(left)} is {relation} than {show(right)}."
    elif asks_larger:
        phrasing, answer = content.LARGER, f"{show(larger)} is larger than {show(smaller)}."
    else:
        phrasing, answer = content.SMALLER, f"{show(smaller)} is smaller than {show(larger)}."
    thought = rng.choice((f"{show(larger)} > {show(smaller)}.", f"{show(smaller)} < {show(larger)}."))
    user = _word(rng, phrasing, left=show(left), right=show(right))
    return Dialogue("compare", (Turn(user, answer, thought),))


def _parity(rng: random.Random) -> Dialogue:
    number = rng.randrange(10 ** rng.randint(1, 5))
    asked = rng.choice(("even", "even", "odd"))
    actual = "odd" if number % 2 else "even"
    answer = f"{'Yes' if asked == actual else 'No'}, {number} is {actual}."
    thought = rng.choice((f"The last digit is {number % 10}.", f"{number} ends in {number % 10}."))
    user = _word(rng, content.PARITY, number=number, parity=asked)
    return Dialogue("parity", (Turn(user, answer, thought),))


# --- Recalling -----------------------------------------------------------------------------------------


def _value(rng: random.Random, pool: str) -> str | int:
    match pool:
        case "age":
            return rng.randint(3, 99)
        case "small":
            return rng.randint(2, 60)
        case "number":
            return rng.randrange(1, 10 ** rng.randint(1, 4))
        case "code":
            return _code(rng)
        case "word":
            return _random_word(rng)
        case "person" | "city" if rng.random() < 0.25:
            return _random_word(rng).capitalize()
    return rng.choice(_POOLS[pool])


def _tell(rng: random.Random, fact: content.Fact, value: str | int) -> Turn:
    phrasing = content.Phrasing(fact.statements)
    return Turn(
        _word(rng, phrasing, value=value),
        fact.acknowledgement.format(value=value),
        rng.choice(content.TELL_THOUGHTS),
    )


def _facts(rng: random.Random, number: int) -> list[content.Fact]:
    # People give their names more often than anything else.
    name, *others = content.FACTS
    while True:
        facts = [name] if rng.random() < 0.25 else []
        facts += rng.sample(others, number - len(facts))
        if sum(fact.pool == "colour" for fact in facts) <= 1:  # two spellings of one fact
            rng.shuffle(facts)
            return facts


def _introduce(rng: random.Random) -> Dialogue:
    (fact,) = _facts(rng, 1)
    return Dialogue("introduce", (_tell(rng, fact, _value(rng, fact.pool)),))


def _recall(rng: random.Random) -> Dialogue:
    facts = _facts(rng, rng.choices((1, 2, 3), weights=(60, 28, 12))[0])
    values = [_value(rng, fact.pool) for fact in facts]
    asked = rng.randrange(len(facts))
    fact, value = facts[asked], values[asked]
    phrasing = content.Phrasing(fact.questions, ("Okay, ", "Now, ", "Well, ", "So, "), (", Abacus",))
    question = _word(rng, phrasing)
    answer = fact.answer.format(value=value)
    thought = rng.choice(content.RECALL_THOUGHTS).format(value=value)
    told = [_tell(rng, each, each_value) for each, each_value in zip(facts, values, strict=True)]

    if rng.random() < 0.08:
        del told[asked]
        if not told and rng.random() < 0.5:
            told = _small_talk(rng)
        unknown = Turn(question, fact.unknown, rng.choice(content.UNKNOWN_THOUGHTS))
        return Dialogue("recall", (*told, unknown))
    if rng.random() < 0.12:
        # A statement without its mark would run into what follows it.
        statements = (turn.user if turn.user[-1] in ".!?" else turn.user + "." for turn in told)
        return Dialogue("recall", (Turn(" ".join((*statements, question)), answer, thought),))
    if len(told) == 2 and rng.random() < 0.3:
        together = " ".join(turn.user if turn.user[-1] in ".!?" else turn.user + "." for turn in told)
        told = [Turn(together, told[-1].answer)]
    turns = list(told)
    if rng.random() < 0.3:
        turns += _small_talk(rng)
    if rng.random() < 0.1:
        turns.append(_repeat_turn(rng))
    return Dialogue("recall", (*turns, Turn(question, answer, thought)))


# --- JSON ----------------------------------------------------------------------------------------------


def _stated_record(rng: random.Random) -> tuple[str, dict[str, str | int]]:
    """Return a sentence and everything that can be extracted from it, by the key to ask for it."""
    record = rng.choice(content.RECORDS)
    values = {name: _value(rng, pool) for name, pool in record.pools.items()}
    sentence = rng.choice(record.sentences).format(**values)
    return sentence, {rng.choice(record.keys[name]): value for name, value in values.items()}


def _listed_record(rng: random.Random) -> tuple[str, dict[str, str | int]]:
    """Return a list of random keys with their values, and these."""
    pools = ("word", "number", "code", "person", "city", "colour", "thing", "small", "word", "number")
    keys = dict.fromkeys(_random_word(rng) for _ in range(rng.randint(1, 4)))
    record = {key: _value(rng, rng.choice(pools)) for key in keys}
    forms = (("{} is {}", ", "), ("{}: {}", ", "), ("{} = {}", "; "), ("the {} is {}", " and "))
    form, separator = rng.choice(forms)
    listed = separator.join(form.format(key, value) for key, value in record.items())
    return listed[0].upper() + listed[1:] + "." if form.startswith("the") else listed + ".", record


def _shape(rng: random.Random, record: dict[str, str | int]) -> str:
    style = rng.choice(("...", "...", "...", '"..."', "type", "null"))
    holes = {key: type(value).__name__ for key, value in record.items()}
    names = {"str": "string", "int": "integer"}
    pairs = (f'"{key}": {names[kind] if style == "type" else style}' for key, kind in holes.items())
    return "{" + ", ".join(pairs) + "}"


def _listed_keys(rng: random.Random, record: dict[str, str | int]) -> str:
    noun = rng.choice(("key", "key", "field"))
    mark = rng.choice(("", "", "'", '"'))
    *front, last = (f"{mark}{key}{mark}" for key in record)
    return f"{noun}s {', '.join(front)} and {last}" if front else f"{noun} {last}"


def _extract(rng: random.Random) -> Dialogue:
    text, record = _listed_record(rng) if rng.random() < 0.35 else _stated_record(rng)
    size = len(record) if rng.random() < 0.75 else rng.randint(1, len(record))
    wanted = rng.sample(list(record), size) if rng.random() < 0.4 else list(record)[:size]
    record = {key: record[key] for key in wanted}
    keys = _listed_keys(rng, record)
    if rng.random() < 0.5:
        user = _word(rng, content.JSON_SHAPE, text=text, shape=_shape(rng, record))
    else:
        user = _word(rng, content.JSON_KEYS, text=text, keys=keys)
    thought = rng.choice(content.JSON_THOUGHTS).format(keys=keys)
    return Dialogue("json", (Turn(user, json.dumps(record, ensure_ascii=False), thought),))


# --- All of it -----------------------------------------------------------------------------------------

_POOLS: dict[str, tuple[str, ...]] = {
    "person": content.PEOPLE,
    "city": content.CITIES,
    "colour": content.COLOURS,
    "fruit": content.FRUITS,
    "food": content.FOODS,
    "animal": content.ANIMALS,
    "job": content.JOBS,
    "thing": content.THINGS,
}
_REFUSAL_WEIGHTS = (30, 15, 12, 8, 8, 6, 9, 5, 4, 5)  # of content.REFUSALS, general knowledge first
_INTENTS_BY_NAME = {intent.name: intent for intent in content.INTENTS}
_INTENT_WEIGHTS = {
    "greeting": 2.0,
    "greeting_morning": 0.4,
    "greeting_evening": 0.4,
    "how_are_you": 1.8,
    "identity": 2.2,
    "capabilities": 1.8,
    "joke": 1.8,
    "favourite_number": 0.7,
    "favourite_colour": 0.7,
    "acknowledge_yes": 0.8,
    "acknowledge_no": 0.8,
}
_WEIGHTS: dict[Callable[[random.Random], Dialogue], float] = {
    _repeat: 20,
    _refusal: 15,
    _recall: 12,
    _extract: 12,
    _introduce: 1.6,
    _spell: 2.5,
    _reverse: 2.5,
    _pick: 3,
    _count: 2.5,
    _compare: 3,
    _parity: 2.5,
    **{_drawer_of(intent): _INTENT_WEIGHTS.get(intent.name, 1.1) for intent in content.INTENTS},
}
_DRAWERS = tuple(_WEIGHTS)
_CUMULATIVE_WEIGHTS = tuple(itertools.accumulate(_WEIGHTS.values()))
