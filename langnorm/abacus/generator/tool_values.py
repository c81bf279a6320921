"""The pools that arguments and results of tools are drawn from, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langnorm.abacus.generator import names

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_LISTS: dict[str, tuple[Any, ...]] = {
    "country": ("France", "Germany", "Italy", "Spain", "Portugal", "Norway", "Sweden", "Finland", "Denmark",
                "Poland", "Austria", "Greece", "Turkey", "Egypt", "Kenya", "Nigeria", "Ghana", "India",
                "China", "Japan", "Korea", "Vietnam", "Thailand", "Brazil", "Chile", "Peru", "Mexico",
                "Canada", "Iceland", "Ireland"),
    "currency": ("USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF",
                 "TRY", "BRL", "MXN", "CAD", "AUD", "NZD", "KRW"),
    "language": ("French", "German", "Italian", "Spanish", "Portuguese", "Norwegian", "Swedish", "Finnish",
                 "Danish", "Polish", "Greek", "Turkish", "Arabic", "Hindi", "Chinese", "Japanese", "Korean",
                 "Vietnamese", "Thai", "Dutch", "Czech", "Latin", "Swahili", "Hebrew", "Russian", "Welsh"),
    "condition": ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "stormy", "clear", "overcast",
                  "hazy"),
    "cuisine": ("Italian", "Thai", "Indian", "Mexican", "Greek", "Japanese", "vegan", "French", "Turkish",
                "Lebanese", "Korean", "Ethiopian"),
    "room": ("kitchen", "bedroom", "bathroom", "office", "hallway", "garage", "living room", "cellar",
             "attic", "nursery"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "today",
            "tomorrow"),
    "color": ("red", "blue", "green", "yellow", "purple", "orange", "white", "pink", "teal", "amber"),
    "length_unit": ("miles", "kilometers", "meters", "feet", "inches", "yards", "centimeters"),
    "weight_unit": ("pounds", "kilograms", "grams", "ounces", "stones", "tons"),
    "animal": ("otter", "badger", "heron", "lynx", "beetle", "gecko", "walrus", "camel", "toad", "moose",
               "ferret", "newt", "puffin", "bison"),
    "dish": ("lasagna", "ramen", "goulash", "pancakes", "paella", "risotto", "falafel", "borscht", "tacos",
             "curry", "moussaka", "pho"),
    "genre": ("jazz", "rock", "techno", "folk", "soul", "opera", "blues", "reggae", "disco", "swing"),
    "product": ("laptop", "headphones", "desk", "lamp", "backpack", "kettle", "printer", "monitor", "bicycle",
                "tent", "blender", "jacket", "sofa", "toaster"),
    "status": ("shipped", "pending", "delivered", "cancelled", "open", "closed", "in transit", "on hold",
               "packed"),
    "priority": ("low", "high", "urgent", "normal"),
    "table": ("customers", "orders", "invoices", "users", "products", "payments", "sessions", "students",
              "books", "visits"),
    "sport": ("football", "tennis", "hockey", "rugby", "chess", "cricket", "handball", "golf"),
    "fact": (
        "Honey does not spoil.", "Octopuses have three hearts.", "Bananas are berries.",
        "Snails can sleep for years.",
        "A day on Venus is longer than its year.", "Wombats make cube-shaped droppings.",
    ),
    "joke": (
        "Why did the chicken cross the road? To get to the other side.",
        "I would tell you a UDP joke, but you might not get it.",
        "What is brown and sticky? A stick.", "I used to be a baker, but I could not make enough dough.",
    ),
    "summary": (
        "a small town by the sea", "the study of old coins", "a way to store data in rows",
        "a plant that grows in sand",
        "a dance from the mountains", "a kind of early telescope", "a game for two players",
        "a method to dye wool",
    ),
    "translation": ("bonjour", "gracias", "danke schön", "おはよう", "你好", "buona notte", "obrigado",
    "merhaba",
                    "hyvää yötä"),
    "ok": ("ok", "done", "success", "sent", "saved", "created"),
    "verb": ("buy", "water", "call", "clean", "fix", "check", "pack", "return", "order", "paint", "feed",
             "wash", "read", "print", "sell", "visit"),
    "object": ("the plants", "the car", "Grandma", "the bike", "the dog", "milk", "the dentist", "the report",
               "the windows", "some bread", "the tickets", "the fridge", "the invoices", "a present",
               "the library books", "new shoes", "the roof", "the cat"),
    "saying": (
        "I will be late", "see you tomorrow", "the meeting is moved", "happy birthday", "please call me back",
        "good morning", "where is the station", "thank you very much", "dinner is ready", "the code is ready",
        "I love rain", "how are you", "we won the game", "the train is delayed", "bring your own cup",
        "今天下雨", "明日は休みです", "olá, tudo bem", "ça va bien", "grüß dich", "你吃饭了吗", "są zdrowi",
        "¿dónde estás?",
    ),
}  # fmt: skip


def _integer(rng: random.Random) -> int:
    size = rng.choices((10, 30, 100, 1000, 9999), (35, 20, 25, 12, 8))[0]
    value = rng.randint(0, size)
    return -value if rng.random() < 0.15 else value


def _number(rng: random.Random) -> int | float:
    if rng.random() < 0.5:
        return rng.randint(1, 500)
    return rng.randint(10, 5000) / rng.choice((10, 10, 100, 2))


def _price(rng: random.Random) -> float:
    return rng.randint(100, 90000) / 100


def _task(rng: random.Random) -> str:
    verb, thing = rng.choice(_LISTS["verb"]), rng.choice(_LISTS["object"])
    return f"{verb} {names.word(rng) if rng.random() < 0.2 else thing}"


def _saying(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return str(rng.choice(_LISTS["saying"]))
    return names.phrase(rng) if draw < 0.75 else names.value_string(rng)


def _topic(rng: random.Random) -> str:
    draw = rng.choice((names.phrase, names.word, names.noun, names.person, names.value_string))
    return draw(rng)


def _ticker(rng: random.Random) -> str:
    return "".join(rng.choice("ABCDEFGHIKLMNOPRSTUVWXYZ") for _ in range(rng.randint(3, 4)))


def _expression(rng: random.Random) -> str:
    parts = [str(rng.randint(1, 200))]
    for _ in range(rng.randint(1, 2)):
        parts += [rng.choice("+-*/"), str(rng.randint(1, 99))]
    return " ".join(parts)


def _handle(rng: random.Random) -> str:
    return rng.choice((names.word(rng), f"{names.word(rng)}{rng.randint(1, 99)}", names.person(rng)))


def _items(rng: random.Random) -> list[str]:
    count = rng.choice((2, 2, 3))
    draw = rng.choice((names.noun, names.word, names.noun, names.person))
    drawn: list[str] = []
    while len(drawn) < count:
        item = draw(rng)
        if item not in drawn:
            drawn.append(item)
    return drawn


POOLS: dict[str, Callable[[random.Random], Any]] = {
    "any": names.value_string,
    "code": names.code,
    "date": names.date,
    "email": names.email,
    "file": names.filename,
    "person": names.person,
    "place": names.place,
    "word": names.word,
    "expression": _expression,
    "handle": _handle,
    "items": _items,
    "integer": _integer,
    "number": _number,
    "price": _price,
    "saying": _saying,
    "task": _task,
    "ticker": _ticker,
    "topic": _topic,
    "boolean": lambda rng: rng.random() < 0.5,
    "clock": lambda rng: f"{rng.randint(0, 23):02}:{rng.choice((0, 0, 15, 30, 45, rng.randint(0, 59))):02}",
    "count": lambda rng: rng.randint(2, 9),
    "degrees": lambda rng: rng.randint(-15, 39),
    "identity": lambda rng: rng.randint(1, 99999),
    "large": lambda rng: rng.randint(10, 9_999_999),
    "minutes": lambda rng: rng.choice((5, 10, 15, 20, 25, 30, 45, 60, 90, rng.randint(2, 120))),
    "percent": lambda rng: rng.randint(1, 100),
    "positive": lambda rng: rng.randint(1, rng.choice((9, 99, 999))),
    "room_degrees": lambda rng: rng.randint(15, 26),
    "year": lambda rng: rng.randint(1900, 2030),
}


def draw_value(rng: random.Random, pool: str) -> Any:
    """Draw a value from the pool named `pool`."""
    if pool in POOLS:
        return POOLS[pool](rng)
    return rng.choice(_LISTS[pool])
