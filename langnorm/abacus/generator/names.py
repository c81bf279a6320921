"""Random identifiers and values, drawn from pools so wide that a model has to copy what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.abacus.generator.base import Split, bucket

if TYPE_CHECKING:
    import random

# Words of a third-party test suite that must never be seen in training.
FORBIDDEN = ("magic_function", "my_adder_tool", "get_weather", "random_name", "parrot", "erick")

_HELD_OUT_BUCKETS = 10  # one identifier of ten is for development and test only

# fmt: off
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD_PIECES = ("get", "do", "run", "my", "the", "fetch", "find", "make", "tool", "fn", "func", "call",
                "calc", "check", "show", "new", "old", "fast", "blue", "red", "big", "tiny", "data", "item",
                "key", "map", "node", "op", "util", "task", "step", "code", "magic", "secret", "lookup",
                "query", "send", "read", "load", "save", "list", "count", "sum", "mix", "flip", "turn",
                "push", "pull", "core", "main", "unit", "test", "value", "info", "one", "two", "alpha",
                "beta", "gamma", "delta", "box")

_FIRST_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Ivy", "Jonas", "Kate",
                "Liam", "Maria", "Noah", "Olivia", "Paul", "Quinn", "Rosa", "Sam", "Tina", "Umar", "Vera",
                "Will", "Xenia", "Yusuf", "Zoe", "Aisha", "Bruno", "Carmen", "Dmitri", "Elena", "Farid",
                "Greta", "Hana", "Igor", "Julia", "Kofi", "Leila", "Marco", "Nadia", "Oscar", "Priya", "Ravi",
                "Sofia", "Tomas", "Uma", "Viktor", "Wanda", "Yara", "Zane", "Alice", "Bob", "Carol", "Dan",
                "Eve", "Frank", "Laura", "Mike")
_LAST_NAMES = ("Smith", "Miller", "Garcia", "Rossi", "Novak", "Kim", "Singh", "Khan", "Meyer", "Dubois",
               "Silva", "Jansen", "Larsen", "Kowalski", "Popov", "Cohen", "Okafor", "Mensah", "Tanaka",
               "Nguyen", "Brown", "Clark", "Lopez", "Weber", "Moreau", "Costa", "Berg", "Lind", "Haas",
               "Adams", "Baker", "Carter", "Evans", "Foster")
_CITIES = ("Oslo", "Rome", "Paris", "London", "Berlin", "Madrid", "Lisbon", "Vienna", "Prague", "Warsaw",
           "Dublin", "Athens", "Cairo", "Nairobi", "Lagos", "Tokyo", "Seoul", "Delhi", "Mumbai", "Sydney",
           "Perth", "Toronto", "Boston", "Chicago", "Denver", "Seattle", "Austin", "Dallas", "Miami", "Lima",
           "Quito", "Helsinki", "Stockholm", "Bergen", "Hamburg", "Munich", "Cologne", "Lyon", "Nice",
           "Milan", "Turin", "Naples", "Porto", "Seville", "Valencia", "Ghent", "Utrecht", "Geneva", "Basel",
           "Budapest", "Sofia", "Riga", "Tallinn", "Vilnius", "Kyiv", "Tbilisi", "Ankara", "Izmir", "Doha",
           "Dubai", "Karachi", "Dhaka", "Hanoi", "Bangkok", "Manila", "Jakarta", "Osaka", "Kyoto", "Taipei",
           "Shanghai", "Accra", "Dakar", "Tunis", "Rabat", "Havana", "Bogota", "Santiago", "New York",
           "Los Angeles", "Cape Town", "Buenos Aires", "Mexico City", "Hong Kong", "Kuala Lumpur",
           "New Delhi", "San Diego", "San Jose", "Las Vegas", "Tel Aviv", "Rio de Janeiro", "St. Gallen",
           "Abu Dhabi")
_ACCENTED_PEOPLE = ("José", "Zoë", "Łukasz", "Çelik", "Søren", "Björk", "Renée", "Núria", "Jürgen", "Ángel",
                    "Šárka", "Žofia", "Håkon", "Ömer", "Inês", "André", "Maëlle", "Göran", "Růžena", "Agnès",
                    "Chloé", "João", "Mónica", "Dvořák", "Müller", "Nguyễn", "Gülşen", "Ásta", "Þór", "Иван",
                    "Ольга", "Δημήτρης", "Ελένη", "أحمد", "ליאור")
_ACCENTED_PLACES = ("Zürich", "Łódź", "Málaga", "Kraków", "Reykjavík", "Göteborg", "Malmö", "Århus",
                    "Besançon", "Nîmes", "Córdoba", "Brașov", "Plzeň", "Timișoara", "İzmir", "Düsseldorf",
                    "Köln", "Gdańsk", "Poznań", "Curitibá", "Bogotá", "Québec", "Montréal", "Tromsø",
                    "Ålesund", "Szczecin", "Kőszeg", "Москва", "Киев", "Αθήνα", "Đà-Nẵng", "Muğla",
                    "Şanlıurfa", "Maceió", "Cádiz")
_CHINESE_PEOPLE = ("李雷", "韩梅梅", "王芳", "张伟", "刘洋", "陈静", "杨帆", "赵敏", "黄磊", "周杰", "吴昊",
                   "徐丽", "孙悦", "马超", "朱琳",
                   "林峰")
_CHINESE_PLACES = ("北京", "上海", "广州", "深圳", "杭州", "南京", "成都", "西安", "武汉", "重庆", "苏州",
                   "天津", "青岛", "长沙", "厦门",
                   "昆明", "大连")
_JAPANESE_PEOPLE = ("たなか", "さとう", "すずき", "田中", "佐藤", "鈴木", "高橋", "渡辺", "伊藤", "ハナコ",
                    "タロウ", "山本さん", "ゆうき")
_JAPANESE_PLACES = ("東京", "大阪", "京都", "札幌", "名古屋", "福岡", "横浜", "神戸", "仙台", "広島", "なら",
                    "さっぽろ")
_KOREAN = ("서울", "부산", "김민수", "이지은", "대구", "인천", "박준호")
_HAN = (
    "天地玄黄日月山水火木金土风云雨雪花草春夏秋冬东西南北上下左右大小多少长短高低明暗红白黑青绿"
    "人口手足耳目心王李张刘陈杨赵黄周吴徐孙马朱林江河海湖石田米竹鸟鱼牛羊虎龙车船门户书文字学校生先"
    "国家年时分一二三四五六七八九十百千万光华平安和美丽新古"
)
_HIRAGANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわん"
_KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン"

_ADJECTIVES = ("red", "blue", "green", "quiet", "loud", "bright", "small", "large", "old", "new", "warm",
               "cold", "early", "late", "happy", "broken", "hidden", "empty", "golden", "wooden", "silver",
               "soft", "sharp", "lazy", "brave", "final", "secret", "monthly", "annual", "urgent")
_NOUNS = ("river", "garden", "report", "window", "engine", "basket", "bridge", "letter", "mirror", "pencil",
          "rocket", "saddle", "tunnel", "violin", "blanket", "candle", "forest", "ladder", "market", "needle",
          "orange", "pepper", "shadow", "table", "budget", "invoice", "meeting", "project", "schedule",
          "keyboard", "lantern", "castle", "desert", "island", "tiger", "falcon", "camera", "bicycle",
          "kettle", "battery")
_EXTENSIONS = ("txt", "csv", "md", "json", "log", "pdf", "py", "yaml", "docx", "png", "xml", "html")
_DOMAINS = ("example.com", "mail.com", "post.org", "work.net", "school.edu", "kontor.de", "acme.io")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")
# fmt: on


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
    return rng.choice(_WORD_PIECES)


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
    return "".join(rng.choice(_HAN) for _ in range(rng.randint(2, 4)))


def kana(rng: random.Random) -> str:
    """Draw two to five characters of one Japanese syllabary."""
    alphabet = rng.choice((_HIRAGANA, _KATAKANA))
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
        return _foreign(rng, _ACCENTED_PEOPLE, _ACCENTED_PEOPLE, _CHINESE_PEOPLE, _JAPANESE_PEOPLE, _KOREAN)
    if draw < 0.42:
        return word(rng).capitalize()
    if draw < 0.6:
        return f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}"
    return rng.choice(_FIRST_NAMES)


def place(rng: random.Random) -> str:
    """Draw the name of a city, often of one that does not exist."""
    draw = rng.random()
    if draw < 0.22:
        return _foreign(rng, _ACCENTED_PLACES, _ACCENTED_PLACES, _CHINESE_PLACES, _JAPANESE_PLACES)
    if draw < 0.45:
        return word(rng).capitalize()
    return rng.choice(_CITIES)


def code(rng: random.Random) -> str:
    """Draw an identification code such as `ZX-4471`."""
    letters = "".join(rng.choice(_LETTERS.upper()) for _ in range(rng.randint(1, 3)))
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
    return letters + rng.choice(("-", "-", "", "_", "#")) + digits


def filename(rng: random.Random) -> str:
    """Draw the name of a file, sometimes with a folder."""
    stem = rng.choice((rng.choice(_NOUNS), word(rng)))
    if rng.random() < 0.5:
        stem += rng.choice("_-") + rng.choice((str(rng.randint(1, 99)), rng.choice(_NOUNS)))
    folder = rng.choice(("", "", "", "data/", "docs/", f"{word(rng)}/"))
    return f"{folder}{stem}.{rng.choice(_EXTENSIONS)}"


def email(rng: random.Random) -> str:
    """Draw an email address."""
    user = rng.choice((rng.choice(_FIRST_NAMES).lower(), word(rng)))
    if rng.random() < 0.4:
        user += rng.choice("._") + rng.choice(_LAST_NAMES).lower()
    return f"{user}@{rng.choice((rng.choice(_DOMAINS), word(rng) + '.com'))}"


def date(rng: random.Random) -> str:
    """Draw a date in one of three notations."""
    year, month, day = rng.randint(1990, 2031), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice(
        (f"{year}-{month:02}-{day:02}", f"{_MONTHS[month - 1]} {day}", f"{day} {_MONTHS[month - 1]} {year}")
    )


def phrase(rng: random.Random) -> str:
    """Draw an adjective and a noun."""
    return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"


def noun(rng: random.Random) -> str:
    """Draw a common noun."""
    return rng.choice(_NOUNS)


def value_string(rng: random.Random) -> str:
    """Draw a value of any kind for an argument that takes a string and has to be copied verbatim."""
    kinds = (
        (word, 22), (noun, 8), (phrase, 12), (person, 14), (place, 14), (code, 10), (filename, 6), (email, 4),
        (date, 5), (han, 4), (kana, 3),
    )  # fmt: skip
    draw = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
    return draw(rng)
