"""How many steps real answers have: as langnorm cuts them, and as a reader left the cuts it had proposed.

python -m benchmarks.steps --write    # puts the table into the documentation
"""

from __future__ import annotations

import argparse
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.documents import put
from langnorm.text.steps import SPLITTERS

ROOT = Path(__file__).parents[1]
ANSWERS = ROOT / "tests" / "fixtures" / "segmented_answers.toml"
BOUNDARY = "‖"


def answers_by_model() -> dict[str, list[dict[str, Any]]]:
    """Return the answers with their texts and numbers of tokens, by the names of their models."""
    by_model: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for answer in tomllib.loads(ANSWERS.read_text(encoding="utf-8"))["answer"]:
        by_model[answer["model"]].append(answer)
    return by_model


def table() -> str:
    """Return the number of steps per 100 tokens as Markdown, one row per model."""
    lines = ["| answers of | tokens | as read | " + " | ".join(f'`"{name}"`' for name in SPLITTERS) + " |"]
    lines.append("|---|" + "---|" * (len(SPLITTERS) + 2))
    for model, answers in answers_by_model().items():
        tokens = sum(answer["tokens"] for answer in answers)
        counts = [sum(answer["text"].count(BOUNDARY) for answer in answers)]
        texts = [answer["text"].replace(BOUNDARY, "") for answer in answers]
        counts += [sum(map(len, map(splitter, texts))) for splitter in SPLITTERS.values()]
        cells = [f"{100 * count / tokens:.1f}" for count in counts]
        lines.append(f"| {model}, {len(answers)} | {tokens} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    arguments = parser.parse_args()
    print(table())
    if arguments.write:
        put(ROOT / "docs" / "messages.md", "steps", table())


if __name__ == "__main__":
    main()
