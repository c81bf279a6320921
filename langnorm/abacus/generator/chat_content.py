"""What users say in a chat, what Abacus answers, and words to fill in, read from `content/chat_*.toml`.

Templates hold `str.format` fields in lower case. A template that ends with a field ends with content that
is to be copied, so nothing may follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from langnorm.abacus.generator.tables import load


@dataclass(frozen=True, slots=True)
class Phrasing:
    """How users put something: a template with, now and then, something before and after it.

    Attributes:
        templates: The wordings themselves.
        openers: What may come before one, with its trailing space.
        closers: What may follow one. Those that start with a comma go before the final punctuation mark.
    """

    templates: tuple[str, ...]
    openers: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """Something users say that has the same answer however they put it.

    Attributes:
        name: Name that evaluations group by.
        phrasing: How users put it.
        answers: What Abacus answers, one of these.
        thoughts: What Abacus thinks before, one of these.
        weight: How often it is drawn.
    """

    name: str
    phrasing: Phrasing
    answers: tuple[str, ...]
    thoughts: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class IntentEntry:
    """An intent as the file has it: with a phrasing, or with greetings that are put in every template of greetings."""

    name: str
    answers: tuple[str, ...]
    thoughts: tuple[str, ...]
    weight: float
    phrasing: Phrasing = Phrasing(())
    greetings: tuple[str, ...] = ()

    def intent(self, greeting_templates: tuple[str, ...]) -> Intent:
        """Return the intent with its wordings written out."""
        templates = tuple(
            template.replace("{greeting}", greeting) for greeting in self.greetings for template in greeting_templates
        )
        phrasing = replace(self.phrasing, templates=self.phrasing.templates + templates)
        return Intent(self.name, phrasing, self.answers, self.thoughts, self.weight)


@dataclass(frozen=True, slots=True)
class SmallTalk:
    """The content of `chat_small_talk.toml`."""

    greeting_templates: tuple[str, ...]
    system_messages: tuple[str, ...]
    intents: tuple[IntentEntry, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Requests of one family, all declined alike.

    Attributes:
        phrasing: How users ask, with a field `topic`.
        topics: What users ask about.
        answer: What Abacus answers.
        thoughts: What Abacus thinks before, one of these.
        weight: How often the family is drawn.
    """

    phrasing: Phrasing
    topics: tuple[str, ...]
    answer: str
    thoughts: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Fact:
    """Something users tell about themselves and ask for later.

    Attributes:
        pool: Which pool its values come from.
        statements: How users tell it, with a field `value`.
        questions: How users ask for it.
        answer: How Abacus recalls it, with a field `value`.
        unknown: What Abacus answers when it was not told.
        acknowledgement: What Abacus answers when told, with a field `value`.
    """

    pool: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    unknown: str
    acknowledgement: str = "Thank you, I will remember that."


@dataclass(frozen=True, slots=True)
class Record:
    """A sentence that states several values, to be extracted to JSON.

    Attributes:
        pools: Which pool the values come from, by field of the sentences.
        keys: Keys that users ask for, by field of the sentences.
        sentences: Sentences with those fields.
    """

    pools: dict[str, str]
    keys: dict[str, tuple[str, ...]]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusals:
    """The content of `chat_refusals.toml`."""

    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Requests:
    """How users ask for each task."""

    repeat: Phrasing
    again: Phrasing
    spell: Phrasing
    reverse: Phrasing
    pick: Phrasing
    count_to: Phrasing
    count_from: Phrasing
    count_down: Phrasing
    larger: Phrasing
    smaller: Phrasing
    is_larger: Phrasing
    is_smaller: Phrasing
    parity: Phrasing
    json_shape: Phrasing
    json_keys: Phrasing


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What Abacus thinks before it answers, by task; one of each is drawn."""

    repeat: tuple[str, ...]
    again: tuple[str, ...]
    spell: tuple[str, ...]
    reverse: tuple[str, ...]
    tell: tuple[str, ...]
    recall: tuple[str, ...]
    unknown: tuple[str, ...]
    json: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tasks:
    """The content of `chat_tasks.toml`."""

    requests: Requests
    thoughts: Thoughts


@dataclass(frozen=True, slots=True)
class PossessionWording:
    """How something that users have is told and asked for: a `Fact` with a further field `label`."""

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    unknown: str

    def fact(self, label: str, pool: str) -> Fact:
        """Return the fact that is called `label`."""

        def labelled(text: str) -> str:
            return text.replace("{label}", label)

        statements, questions = tuple(map(labelled, self.statements)), tuple(map(labelled, self.questions))
        return Fact(pool, statements, questions, labelled(self.answer), labelled(self.unknown))


@dataclass(frozen=True, slots=True)
class Possession:
    """What a possession is called, and which pool its values come from."""

    label: str
    pool: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The content of `chat_facts.toml`."""

    facts: tuple[Fact, ...]
    possession_wording: PossessionWording
    possessions: tuple[Possession, ...]
    records: tuple[Record, ...]

    def all(self) -> tuple[Fact, ...]:
        """Return the facts, possessions last."""
        return self.facts + tuple(self.possession_wording.fact(each.label, each.pool) for each in self.possessions)


@dataclass(frozen=True, slots=True)
class Words:
    """The content of `chat_words.toml`: lists of words and sentences, and characters of scripts and invented words."""

    people: tuple[str, ...]
    cities: tuple[str, ...]
    colours: tuple[str, ...]
    fruits: tuple[str, ...]
    foods: tuple[str, ...]
    animals: tuple[str, ...]
    jobs: tuple[str, ...]
    things: tuple[str, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    places: tuple[str, ...]
    sentences: tuple[str, ...]
    foreign: tuple[str, ...]
    accented_words: tuple[str, ...]
    symbols: tuple[str, ...]
    endings: tuple[str, ...]
    chinese_characters: str
    kana: str
    cyrillic: str
    greek: str
    accented: str
    onsets: str
    vowels: str
    code_letters: str


_SMALL_TALK = load("chat_small_talk.toml", SmallTalk)
_TASKS = load("chat_tasks.toml", Tasks)
_FACTS = load("chat_facts.toml", Facts)

SYSTEM_MESSAGES = _SMALL_TALK.system_messages
INTENTS = {entry.name: entry.intent(_SMALL_TALK.greeting_templates) for entry in _SMALL_TALK.intents}
REFUSALS = load("chat_refusals.toml", Refusals).refusals
REQUESTS, THOUGHTS = _TASKS.requests, _TASKS.thoughts
FACTS, RECORDS = _FACTS.all(), _FACTS.records
WORDS = load("chat_words.toml", Words)
