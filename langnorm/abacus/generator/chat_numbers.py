"""Numbers without arithmetic: counting, comparing two numbers, telling even from odd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.abacus.generator.chat_content import REQUESTS
from langnorm.abacus.generator.chat_dialogues import Dialogue, Turn, draw_wording

if TYPE_CHECKING:
    import random


def draw_count(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which Abacus counts up or down."""
    start, end = sorted(rng.sample(range(1, 21), 2))
    form = rng.random()
    if form < 0.35:
        phrasing, start = REQUESTS.count_to, 1
    elif form < 0.8:
        phrasing = REQUESTS.count_from
    else:
        phrasing, start, end = REQUESTS.count_down, end, start
    step = 1 if start < end else -1
    answer = ", ".join(str(number) for number in range(start, end + step, step))
    thought = rng.choice((f"I count from {start} to {end}.", f"From {start} to {end}."))
    return Dialogue("count", (Turn(draw_wording(rng, phrasing, start=start, end=end), answer, thought),))


def draw_compare(rng: random.Random) -> Dialogue:
    """Draw a dialogue about which of two numbers is larger or smaller."""
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
        phrasing = REQUESTS.is_larger if asks_larger else REQUESTS.is_smaller
        yes = (left > right) == asks_larger
        relation = "larger" if left > right else "smaller"
        answer = f"{'Yes' if yes else 'No'}, {show(left)} is {relation} than {show(right)}."
    elif asks_larger:
        phrasing, answer = REQUESTS.larger, f"{show(larger)} is larger than {show(smaller)}."
    else:
        phrasing, answer = REQUESTS.smaller, f"{show(smaller)} is smaller than {show(larger)}."
    thought = rng.choice((f"{show(larger)} > {show(smaller)}.", f"{show(smaller)} < {show(larger)}."))
    user = draw_wording(rng, phrasing, left=show(left), right=show(right))
    return Dialogue("compare", (Turn(user, answer, thought),))


def draw_parity(rng: random.Random) -> Dialogue:
    """Draw a dialogue about whether a number is even or odd."""
    number = rng.randrange(10 ** rng.randint(1, 5))
    asked = rng.choice(("even", "even", "odd"))
    actual = "odd" if number % 2 else "even"
    answer = f"{'Yes' if asked == actual else 'No'}, {number} is {actual}."
    thought = rng.choice((f"The last digit is {number % 10}.", f"{number} ends in {number % 10}."))
    user = draw_wording(rng, REQUESTS.parity, number=number, parity=asked)
    return Dialogue("parity", (Turn(user, answer, thought),))
