"""The words of the stories. `{0}` is the number, `{P}` a person, `{F}` a friend, `{O}` a thing in the plural."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMES = (
    "Mia", "Tom", "Ana", "Ben", "Lena", "Omar", "Sara", "Ivan", "Nora", "Paul", "Emma", "Luis", "Zoe", "Adam",
    "Ruth", "Karl", "Lily", "Hugo", "Vera", "Finn", "Maya", "Noah", "Ida", "Leo", "Eva", "Sam", "Tara", "Max",
    "Rosa", "Jack", "Amy", "Otto", "Kate", "Yuki", "Raj", "Chen", "Aisha", "Diego", "Olga", "Peter",
)  # fmt: skip

OBJECTS = (
    "apples", "books", "coins", "stamps", "marbles", "cards", "pens", "shells", "stickers", "eggs", "cookies",
    "beads", "balls", "flowers", "candles", "tickets", "buttons", "nuts", "stones", "photos", "pears", "cups",
    "keys", "bricks", "lemons", "plates", "toys", "seeds", "roses", "masks",
)  # fmt: skip

DISTRACTORS = (
    "{F} is {0} years old.", "The house has {0} windows.", "{P} lives at number {0}.",
    "It is {0} degrees outside.", "{F} walked {0} minutes to get here.", "It is a rainy day.",
    "{F} likes the colour blue.", "There are {0} trees in the garden.", "{P} has a dog.",
    "The room is {0} feet long.", "{F} has read {0} pages today.", "{P} has {0} cousins.",
    "The bus comes in {0} minutes.", "{F} is tired.", "The clock shows {0} minutes past four.",
    "{P} wears a red hat.", "A cat sleeps on the chair.", "{F} slept {0} hours this week.",
)  # fmt: skip

# {0} the number, {1} the new person, {2} the person before.
GROWN = {
    "+": ("{1} has {0} more {O} than {2}.", "{1} has {0} more than {2}.", "{1} has {0} {O} more than {2}."),
    "*": ("{1} has {0} times as many {O} as {2}.", "{1} has {0} times as many as {2}."),
}
SHRUNK = {
    "-": ("{1} has {0} fewer {O} than {2}.", "{1} has {0} fewer than {2}.", "{1} has {0} {O} less than {2}."),
    "/": ("{2} has {0} times as many {O} as {1}.", "{2} has {0} times as many as {1}."),
}


@dataclass(frozen=True, slots=True)
class Theme:
    """The sentences of one kind of story.

    Attributes:
        starts: Opening sentences with the first number.
        events: What changes the number, by operator.
        questions: The last sentence.
        answers: Reply sentences; `{0}` is where the result goes.
        groups: Openings that hold a whole product: `{0}` groups of `{1}`.
        objects: The things it may be about; `OBJECTS` when empty.
    """

    starts: tuple[str, ...]
    events: dict[str, tuple[str, ...]]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    groups: tuple[str, ...] = ()
    objects: tuple[str, ...] = field(default=())


THEMES = (
    Theme(
        starts=(
            "{P} has {0} {O}.",
            "{P} owns {0} {O}.",
            "{P} starts with {0} {O}.",
            "There are {0} {O} on {P}'s table.",
            "{P} collected {0} {O}.",
        ),
        events={
            "+": (
                "{P} buys {0} more.",
                "{F} gives {P} {0} {O}.",
                "{P} finds {0} {O}.",
                "{P} gets {0} more {O}.",
                "{F} brings {0} more.",
                "Then {P} wins {0} {O}.",
            ),
            "-": (
                "{P} gives {0} {O} to {F}.",
                "{P} loses {0}.",
                "{P} sells {0} {O}.",
                "{F} takes {0} of them.",
                "{0} of them break.",
                "Then {P} throws away {0} {O}.",
            ),
            "*": (
                "Then {P} has {0} times as many.",
                "The number of {O} grows {0} times as large.",
                "{P} trades and ends up with {0} times as many.",
            ),
            "/": (
                "{P} splits them into {0} equal groups and keeps one.",
                "{P} shares them equally among {0} people, {P} included.",
                "{P} packs them equally into {0} bags and keeps one bag.",
            ),
        },
        questions=(
            "How many {O} does {P} have now?",
            "How many {O} does {P} have?",
            "How many {O} are left with {P}?",
        ),
        answers=("{P} has {0} {O}.", "{P} has {0} {O} now."),
        groups=(
            "{P} has {0} boxes with {1} {O} each.",
            "{P} buys {0} packs of {1} {O}.",
            "There are {0} rows of {1} {O} on {P}'s table.",
        ),
    ),
    Theme(
        starts=(
            "A bus has {0} people on it.",
            "{0} people are on a train.",
            "There are {0} passengers on a ship.",
        ),
        events={
            "+": ("{0} people get on.", "At the next stop {0} more get on.", "{0} passengers join."),
            "-": ("{0} people get off.", "At the next stop {0} get off.", "{0} passengers leave."),
            "*": (
                "By noon there are {0} times as many people.",
                "Then the number of people grows {0} times as large.",
            ),
            "/": ("The people split into {0} equal groups and one group stays.",),
        },
        questions=("How many people are on it now?", "How many people are on board?"),
        answers=("There are {0} people on board.",),
        groups=("A train has {0} cars with {1} people each.",),
    ),
    Theme(
        starts=("{P} has {0} dollars.", "{P} has saved {0} dollars.", "{P}'s account holds {0} dollars."),
        events={
            "+": ("{P} earns {0} dollars.", "{F} pays {P} {0} dollars.", "{P} gets {0} dollars as a gift."),
            "-": ("{P} spends {0} dollars.", "{P} pays {0} dollars for food.", "{P} lends {F} {0} dollars."),
            "*": ("{P} invests it and has {0} times as much.", "Then {P} has {0} times as much money."),
            "/": (
                "{P} divides the money equally among {0} accounts and looks at one.",
                "{P} shares it equally with others, {0} people in all.",
            ),
        },
        questions=("How many dollars does {P} have now?", "How much money does {P} have?"),
        answers=("{P} has {0} dollars.",),
        groups=("{P} works {0} hours for {1} dollars an hour.",),
    ),
    Theme(
        starts=("A shop has {0} {O}.", "A store starts the day with {0} {O}.", "{P}'s shop holds {0} {O}."),
        events={
            "+": ("{0} more arrive.", "A truck brings {0} {O}.", "The shop orders {0} more."),
            "-": ("It sells {0} {O}.", "Customers buy {0}.", "{0} {O} are sent back."),
            "*": ("A delivery makes it {0} times as many.", "The stock becomes {0} times as large."),
            "/": ("The stock is divided equally among {0} shops, and one of them is counted.",),
        },
        questions=("How many {O} does the shop have?", "How many {O} are in the shop now?"),
        answers=("The shop has {0} {O}.",),
        groups=("A shop gets {0} crates with {1} {O} each.",),
    ),
    Theme(
        starts=("{P} scores {0} points.", "{P} starts a game with {0} points.", "{P} has {0} points."),
        events={
            "+": ("{P} wins {0} points.", "A bonus adds {0} points.", "{P} gets {0} more."),
            "-": ("{P} loses {0} points.", "A penalty costs {0} points.", "{F} takes {0} points from {P}."),
            "*": ("A star makes the score {0} times as large.", "The points are multiplied by {0}."),
            "/": ("A trap divides the points by {0}.", "The score is split by {0}."),
        },
        questions=("How many points does {P} have?", "What is {P}'s score?"),
        answers=("{P} has {0} points.",),
        groups=("{P} plays {0} rounds and scores {1} points in each.",),
    ),
    Theme(
        starts=("A farm has {0} {O}.", "{P} keeps {0} {O}.", "There are {0} {O} on a field."),
        events={
            "+": ("{0} more are born.", "{P} buys {0} {O}.", "{0} {O} come from the next farm."),
            "-": ("{P} sells {0}.", "{0} {O} run away.", "{0} are moved to another farm."),
            "*": ("In a year there are {0} times as many.",),
            "/": ("They are put into {0} equal pens, and one pen is counted.",),
        },
        questions=("How many {O} are there?", "How many {O} are counted?"),
        answers=("There are {0} {O}.",),
        groups=("A farm has {0} barns with {1} {O} each.",),
        objects=("cows", "sheep", "goats", "hens", "ducks", "pigs", "horses", "geese"),
    ),
    Theme(
        starts=("{P} has read {0} pages.", "{P} has written {0} pages.", "{P} walked {0} miles this year."),
        events={
            "+": ("The next week adds {0}.", "{P} does {0} more.", "Another {0} follow."),
            "-": (
                "{0} do not count.",
                "{P} takes {0} off the list.",
                "{0} were counted twice and are removed.",
            ),
            "*": ("In the end it is {0} times as many.",),
            "/": ("{P} divides the number by {0}.", "{P} takes the average over {0} weeks."),
        },
        questions=("What is the number now?", "What number does {P} have at the end?"),
        answers=("The number is {0}.",),
    ),
)
