"""The llama.cpp engine beside plain llama-cpp-python, beside the transformers engine, and beside itself.

    python -m benchmarks.llamacpp                       # Qwen2.5-Coder-0.5B, which is fetched
    python -m benchmarks.llamacpp --model model.gguf --only one,many --repeats 4

Rows, each with all of its sides in turns:

- `one`: an answer of 64 tokens to a short prompt. What norms cost, beside llama-cpp-python's own loop.
- `many`: 4 and 16 different answers at once, beside one.
- `samples`: 8 samples over a prompt of 1,000 tokens, beside 8 calls that begin anew.
- `turns`: the time to the first token of a second turn after 2,000 tokens of history, beside that of the first turn.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.documents import put
from benchmarks.real_models import fetch
from benchmarks.setups import PACKAGES
from benchmarks.timing import Work, machine, print_table, results_file, summarise, take_turns, write_json
from langnorm import ChatLangNorm
from langnorm.engines.base import Engine
from langnorm.engines.options import Sampling
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Record, Request
from langnorm.norms.layers import select_layers

MARK = "llama.cpp"
_PACKAGES = (*PACKAGES, "llama-cpp-python")
NUM_TOKENS = 64
MOST_ROUNDS = {"samples": 2, "turns": 4}  # whose rounds take minutes
WORDS = {
    "one": "one answer of 64 tokens",
    "many": "answers of 64 tokens at once",
    "samples": "8 samples of 32 tokens after 1,000",
    "turns": "first token after 2,000",
}
QUESTION = "Write a long Python module with ten classes for a public library, with docstrings and type hints."
TEXT = "The library has {} books on the shelf, and {} of them were lent to readers of the town last week. "


class _Nothing(torch.nn.Module):
    """In place of the model whose passes `take_turns` counts: those of llama.cpp cannot be."""

    device = torch.device("cpu")


class Sides:
    """What does the work.

    Args:
        path: The GGUF file.
        num_threads: Of every side.
    """

    def __init__(self, path: Path, num_threads: int) -> None:
        from llama_cpp import Llama

        options = {"num_threads": num_threads, "context_length": 8192}
        self.path, self.num_threads = path, num_threads
        self.engine: Engine = get_engine("llamacpp", path, {}, options)
        self.chat = ChatLangNorm(engine=self.engine, temperature=0, max_tokens=NUM_TOKENS)
        self.plain = Llama(
            str(path), n_ctx=8192, n_threads=num_threads, n_threads_batch=num_threads, n_batch=512, verbose=False
        )
        self.layers = select_layers("late", self.engine.num_layers)
        self.prompt = self.prompt_of(QUESTION)

    def prompt_of(self, question: str) -> tuple[int, ...]:
        """Return the prompt of a question."""
        turns = [{"role": "user", "content": question}]
        return tuple(self.engine.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    def text_of(self, num_tokens: int) -> str:
        """Return a text of about so many tokens, no two sentences of which are the same."""
        count = len(self.engine.tokenizer.encode(TEXT.format(100, 101)))
        return "".join(TEXT.format(100 + i, 500 + i) for i in range(num_tokens // count))

    def ours(self, *prompts: tuple[int, ...], engine: Engine | None = None, norms: bool = True, **sampling: Any) -> int:
        """Answer prompts together, from their beginnings; return the number of tokens."""
        engine = engine or self.engine
        engine.clear_prefix_cache()
        record = Record(layers=self.layers) if norms else None
        options = Sampling(**{"max_tokens": NUM_TOKENS, **sampling})
        responses = engine.generate([Request(prompt, options, record, max_batch_size=32) for prompt in prompts])
        return sum(len(one.token_ids) for response in responses for one in response.completions)

    def llama_cpp_python(self) -> int:
        """Answer the prompt with the peer; return the number of tokens."""
        self.plain.reset()
        tokens = self.plain.generate(list(self.prompt), temp=0.0, top_k=1, repeat_penalty=1.0)
        return sum(1 for _, _token in zip(range(NUM_TOKENS), tokens, strict=False))

    def langchain_peer(self) -> Work | None:
        """Return what answers with ChatLlamaCpp of langchain-community, or None where that is not installed."""
        if find_spec("langchain_community") is None:
            return None
        from langchain_community.chat_models import ChatLlamaCpp

        peer = ChatLlamaCpp(
            model_path=str(self.path), n_ctx=8192, n_threads=self.num_threads, temperature=0, max_tokens=NUM_TOKENS,
            n_batch=512, verbose=False, top_k=1, repeat_penalty=1.0,
        )  # fmt: skip

        def work() -> None:
            peer.client.reset()
            peer.invoke(QUESTION)

        return work


def one(sides: Sides) -> tuple[dict[str, Work], dict[str, float]]:
    """Return the sides and the bars of the row `one`."""
    dense = get_engine("transformers", sides.path, {"dtype": "bfloat16"})

    def ask_chat() -> None:
        sides.engine.clear_prefix_cache()
        sides.chat.invoke(QUESTION)

    works: dict[str, Work] = {
        "llama-cpp-python": lambda: _exactly(sides.llama_cpp_python()),
        "norms off": lambda: _exactly(sides.ours(sides.prompt, norms=False)),
        "norms of late layers": lambda: _exactly(sides.ours(sides.prompt)),
        "ChatLangNorm, steps and norms": ask_chat,
        "transformers, bfloat16, norms": lambda: _exactly(sides.ours(sides.prompt, engine=dense)),
    }
    if peer := sides.langchain_peer():
        works["ChatLlamaCpp"] = peer
    return works, {"norms of late layers": 1 / 0.95}


def many(sides: Sides) -> tuple[dict[str, Work], dict[str, float]]:
    """Return the sides and the bars of the row `many`."""
    prompts = [sides.prompt_of(f"{QUESTION} Call the first class Library{i}.") for i in range(16)]
    return {
        "1": lambda: _exactly(sides.ours(prompts[0])),
        "4": lambda: _exactly(sides.ours(*prompts[:4]), 4),
        "16": lambda: _exactly(sides.ours(*prompts), 16),
    }, {"16": 16 / 3}


def samples(sides: Sides) -> tuple[dict[str, Work], dict[str, float]]:
    """Return the sides and the bars of the row `samples`."""
    prompt = sides.prompt_of(sides.text_of(1000) + QUESTION)
    drawn: dict[str, Any] = {"temperature": 0.7, "max_tokens": 32}

    def singles() -> None:
        for seed in range(8):
            sides.ours(prompt, seed=seed, **drawn)

    return {
        "8 single calls": singles,
        "n = 8": lambda: _nothing(sides.ours(prompt, seed=0, n=8, **drawn)),
    }, {"n = 8": 0.4}


def turns(sides: Sides) -> tuple[dict[str, Work], dict[str, float]]:
    """Return the sides and the bars of the row `turns`, whose times are those to the first token."""
    question = sides.text_of(2000) + "How many books are there in the first sentence?"
    first = sides.prompt_of(question)

    def first_turn() -> None:
        sides.ours(first, max_tokens=1)

    def second_turn() -> float:
        # What an earlier call left is what the next one begins with, so the first turn belongs to this side.
        sides.engine.clear_prefix_cache()
        answer = sides.engine.generate([Request(first, Sampling(max_tokens=24))])[0].completions[0].token_ids
        prompt = (*first, *answer, *sides.prompt_of("And in the second?"))
        start = time.perf_counter()
        sides.engine.generate([Request(prompt, Sampling(max_tokens=1), Record(layers=sides.layers))])
        return time.perf_counter() - start

    return {"first turn": first_turn, "second turn": second_turn}, {"second turn": 0.2}


ROWS: Mapping[str, Callable[[Sides], tuple[dict[str, Work], dict[str, float]]]] = {
    "one": one,
    "many": many,
    "samples": samples,
    "turns": turns,
}


def publish(document: dict[str, Any], file: Path) -> None:
    """Put the table between its marks in a Markdown file."""
    lines = ["| work | time | beside | ratio [quartiles] |", "|---|---|---|---|"]
    for name, row in document["rows"].items():
        lines.append(f"| {WORDS[name]}: {row['base']} | {row['base_median_seconds']:.2f} s | | |")
        for side, found in row["sides"].items():
            ratio = found["wall"]
            ratio = f"{ratio['median']:.2f} [{ratio['lower']:.2f} to {ratio['upper']:.2f}]"
            lines.append(f"| {WORDS[name]}: {side} | {found['median_seconds']:.2f} s | {row['base']} | {ratio} |")
    model, versions = document["model"], document["machine"]["versions"]
    lines += ["", f"{model}, llama-cpp-python {versions['llama-cpp-python']}, transformers {versions['transformers']}."]
    put(file, MARK, "\n".join(lines))


def _stored_rows(out: Path, model: str) -> dict[str, Any]:
    """Return the rows of an earlier run on the same machine and model: those that are not measured now stay."""
    stored = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    now = machine(_PACKAGES)
    is_same = stored.get("model") == model and all(
        stored["machine"][name] == now[name] for name in ("processor", "num_cpus", "versions")
    )
    return stored["rows"] if is_same else {}


def _exactly(num_tokens: int, num_sequences: int = 1) -> None:
    """Refuse to compare times of unequal work."""
    if num_tokens != NUM_TOKENS * num_sequences:
        msg = f"{num_tokens} tokens were generated, not {NUM_TOKENS * num_sequences}: the answers end too early."
        raise RuntimeError(msg)


def _nothing(_: int) -> None:
    """Return None: numbers are taken for the time to a first chunk."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; by default Qwen2.5-Coder-0.5B")
    parser.add_argument("--only", default=",".join(ROWS), help="rows, such as one,many")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=results_file("llamacpp", "cpu"))
    parser.add_argument("--publish", type=Path, help="a Markdown file whose table is replaced")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    path = options.model or fetch("coder-0.5b")
    sides = Sides(path, options.threads)
    document: dict[str, Any] = {
        "machine": machine(_PACKAGES) | {"threads": options.threads},
        "model": path.name,
        "tokens": NUM_TOKENS,
        "rows": _stored_rows(options.out, path.name),
    }
    for name in options.only.split(","):
        works, bars = ROWS[name](sides)
        timings = take_turns(_Nothing(), works, min(options.repeats, MOST_ROUNDS.get(name, options.repeats)))
        if name == "turns":  # the side's time is that to the first token of its second turn
            timings["second turn"] = [
                type(timing)(timing.first_chunk or 0.0, timing.cpu, 0) for timing in timings["second turn"]
            ]
        document["rows"][name] = summarise(timings, bars)
        write_json(options.out, document)
    measured = {name: document["rows"][name] for name in options.only.split(",")}
    print_table(f"llama.cpp, {path.name}", measured)
    print(f"Written to {options.out}")
    if options.publish:
        publish(json.loads(options.out.read_text(encoding="utf-8")), options.publish)


if __name__ == "__main__":
    main()
