"""Print prompts as JSON lines, for `langnorm calibrate`: `python -m langnorm.abacus.prompts > prompts.jsonl`.

They are problems and small talk of the development split, so neither what Abacus was trained on nor what it is
measured with.
"""

from __future__ import annotations

import argparse
import json
import random

from langnorm.abacus.generator import arithmetic, chat, corpus

_ARITHMETIC_SHARE = 0.7


def prompts(num_prompts: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """Return lists of messages, the same ones for the same arguments."""
    rng = random.Random(seed)
    skills: tuple[corpus.Skill, ...] = (arithmetic.draw, chat.draw)
    drawn = rng.choices(skills, (_ARITHMETIC_SHARE, 1 - _ARITHMETIC_SHARE), k=num_prompts)
    return [list(corpus.draw_from(skill, rng, "dev").messages[:-1]) for skill in drawn]


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-prompts", type=int, default=400)
    for messages in prompts(parser.parse_args().num_prompts):
        print(json.dumps(messages, ensure_ascii=False))


if __name__ == "__main__":
    main()
