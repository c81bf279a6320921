"""Runs cases: `python -m tests.support.fuzz`.

A case is a surface and a seed, and always the same. What was once found is in `corpus.jsonl`, a case a line.
"""

from __future__ import annotations

import argparse
import json
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import langnorm
from langnorm import ChatLangNorm
from langnorm.errors import LangNormError
from tests.support.fuzz import calls, files, outputs

SURFACES: dict[str, Callable[[Random], None]] = {
    "messages": calls.messages,
    "options": calls.options,
    "schemas": calls.schemas,
    "stored_file": files.stored_file,
    "stored_value": files.stored_value,
    "answers": outputs.answers,
    "texts": outputs.texts,
}
PACKAGE = Path(langnorm.__file__).parent
PASSED_ON = {"many_prompts.py", "batches.py", "chat_models.py"}
"""What hands inputs to LangChain before langnorm reads them."""
CORPUS = Path(__file__).with_name("corpus.jsonl")
LONGEST = 20
"""Seconds after which a case hangs; each takes a few milliseconds."""


class Hang(BaseException):
    """A case has not come to its end."""


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def warm_up() -> None:
    """Import and load what all cases need, which takes longer than any of them."""
    ChatLangNorm(engine=calls.engine()).invoke("Hi")


def run_case(surface: str, seed: int) -> None:
    """Run a case; raises whatever is not one of langnorm's errors, and `Hang`."""
    with _limit(LONGEST), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about messages that are no messages
        try:
            SURFACES[surface](Random(f"{surface}/{seed}"))
        except LangNormError as error:
            str(error).encode()  # it can be printed
        except Exception as error:
            if not _is_langchains_own(error):
                raise


def _is_langchains_own(error: Exception) -> bool:
    """Return whether LangChain stumbles over an input by itself, before langnorm sees any of it."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = {file.name for file in files if file.is_relative_to(PACKAGE)}
    return any("langchain_core" in file.parts for file in files) and ours <= PASSED_ON and files[-1].name not in ours


def corpus() -> list[tuple[str, int]]:
    """Return the cases in which something was found."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    return [(case["surface"], case["seed"]) for case in map(json.loads, lines)]


def main(arguments: Sequence[str]) -> int:
    """Run cases of all surfaces in turn, and print what was found; returns 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzz", description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=10_000, help="of cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--surface", action="append", choices=SURFACES, help="run cases of these only")
    chosen = parser.parse_args(arguments)
    surfaces: list[str] = chosen.surface or list(SURFACES)
    warm_up()
    found: Counter[str] = Counter()
    for i in range(chosen.first, chosen.first + chosen.number):
        surface, seed = surfaces[i % len(surfaces)], i // len(surfaces)
        try:
            run_case(surface, seed)
        except (Exception, Hang) as error:  # noqa: BLE001 (this is what is looked for)
            frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(PACKAGE)]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
            kind = f"{surface}: {type(error).__name__} at {where}"
            found[kind] += 1
            if found[kind] == 1:
                shown = str(error).encode(errors="backslashreplace").decode()[:200]
                print(json.dumps({"surface": surface, "seed": seed, "found": f"{kind}: {shown}"}), flush=True)  # noqa: T201
    for kind, times in found.most_common():
        print(f"{times:6} {kind}")  # noqa: T201
    return int(bool(found))
