"""The words of the stories, read from `content/stories.toml`."""

from __future__ import annotations

from dataclasses import dataclass

from langnorm.abacus.generator.base import Operator
from langnorm.abacus.generator.tables import load


@dataclass(frozen=True, slots=True)
class Theme:
    """The sentences of one kind of story.

    Attributes:
        starts: Opening sentences with the first number.
        events: What changes the number, by operator.
        questions: The last sentence.
        answers: Reply sentences; `{0}` is where the result goes.
        groups: Openings that hold a whole product: `{0}` groups of `{1}`.
        objects: The things it may be about; those of all stories when empty.
    """

    starts: tuple[str, ...]
    events: dict[Operator, tuple[str, ...]]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    groups: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoryWords:
    """What stories are told with.

    Attributes:
        people: Names of people.
        objects: Things in the plural.
        distractors: Sentences that do not matter, with or without a number.
        orders: Instructions by operator.
        comparisons: By operator, how a person has more or less than the one before.
        themes: The kinds of stories.
    """

    people: tuple[str, ...]
    objects: tuple[str, ...]
    distractors: tuple[str, ...]
    orders: dict[Operator, tuple[str, ...]]
    comparisons: dict[Operator, tuple[str, ...]]
    themes: tuple[Theme, ...]


WORDS = load("stories.toml", StoryWords)
