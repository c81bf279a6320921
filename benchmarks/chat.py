"""What ChatLangNorm costs on top of a plain `model.generate` that does the same work.

    python benchmarks/chat.py
    python benchmarks/chat.py --models abacus --only invoke,stream --repeats 5

Both sides run the same model in this process and generate the same number of tokens: the end token is one that the
model cannot produce. Before anything is timed, a run of each side is checked: as many forward passes as the plain one
and, where decoding is greedy, the same token ids. The plain side starts from padded token ids; ChatLangNorm starts
from messages and ends with messages, norms included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from _timing import Ratio, Timing, Work, compare, machine, take_turns, write_json
from langchain_core.messages import BaseMessage, HumanMessage
from rich.console import Console
from rich.table import Table

import langnorm.abacus
from langnorm import ChatLangNorm
from langnorm.engines.transformers import TransformersEngine

RAW, OURS, PEER = "model.generate", "ChatLangNorm", "ChatHuggingFace"
OFF, ON = 'norms="off"', 'norms="steps"'
PEER_REPEATS = 3  # it is several times slower, so a few rounds tell enough
NUM_PROMPTS, NUM_SAMPLES, TEMPERATURE = 16, 8, 0.7
PACKAGES = ("langnorm", "torch", "transformers", "langchain-core", "langchain-huggingface")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work and who does it; the first side is what the others are compared with.

    Attributes:
        bar: Highest ratio of ChatLangNorm that meets the project's goal.
        is_greedy: Whether all sides must generate the same tokens.
        sides: By name, what does the work once.
    """

    bar: float
    sides: dict[str, Work]
    is_greedy: bool = True


@dataclass(slots=True)
class Generated:
    """What `model.generate` did: a row of new token ids per sequence, and the forward passes."""

    ids: list[list[int]] = field(default_factory=list)
    num_passes: int = 0


class Bench:
    """The rows for one model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        num_tokens: Tokens that every sequence gets.
    """

    def __init__(self, model: Any, tokenizer: Any, num_tokens: int) -> None:
        # One past the vocabulary: the check for end tokens stays in place, and no sequence ever ends early.
        never = model.config.vocab_size
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=never, pad_token_id=tokenizer.pad_token_id
        )
        self.model, self.tokenizer, self.num_tokens = model, tokenizer, num_tokens
        self.engine = TransformersEngine(model, tokenizer)
        self.loop = asyncio.Runner()
        self.chats: list[list[BaseMessage]] = [[HumanMessage(text)] for text in prompts(NUM_PROMPTS)]

    def rows(self) -> dict[str, Callable[[], Row]]:
        """Return how to make each row, by name."""
        return {
            "invoke": self.invoke,
            "stream": self.stream,
            "batch": self.batch,
            "samples": self.samples,
            "norms": self.norms,
            "norms-batch": self.norms_batch,
            "abatch": self.abatch,
            "astream": self.astream,
        }

    def invoke(self) -> Row:
        """One prompt."""
        one, ours, peer = self.chats[0], self.ours(), self.peer()
        sides = {RAW: self.raw(self.chats[:1]), OURS: lambda: discard(ours.invoke(one))}
        return Row(1.05, sides | ({PEER: lambda: discard(peer.invoke(one))} if peer else {}))

    def stream(self) -> Row:
        """One prompt, to the end of the stream."""
        one, ours, peer = self.chats[0], self.ours(), self.peer()
        sides = {RAW: self.raw(self.chats[:1]), OURS: lambda: consume(ours.stream(one))}
        return Row(1.08, sides | ({PEER: lambda: consume(peer.stream(one))} if peer else {}))

    def batch(self) -> Row:
        """Prompts of unequal lengths."""
        ours, peer = self.ours(), self.peer()
        sides = {RAW: self.raw(self.chats), OURS: lambda: discard(ours.batch(self.chats))}
        return Row(1.10, sides | ({PEER: lambda: discard(peer.batch(self.chats))} if peer else {}))

    def samples(self) -> Row:
        """Samples of one prompt. The peer has no `n` that works, so it gets the prompt that often."""
        sampled = {"do_sample": True, "temperature": TEMPERATURE}
        one, ours, peer = self.chats[0], self.ours(temperature=TEMPERATURE), self.peer(**sampled)
        raw = self.raw([one], **sampled, top_k=0, top_p=1.0, num_return_sequences=NUM_SAMPLES)
        sides = {RAW: raw, OURS: lambda: discard(ours.generate([one], n=NUM_SAMPLES))}
        sides |= {PEER: lambda: discard(peer.batch([one] * NUM_SAMPLES))} if peer else {}
        return Row(1.10, sides, is_greedy=False)

    def norms(self) -> Row:
        """Norms of late layers on against off, one prompt."""
        one, off, on = self.chats[0], self.ours(norms="off"), self.ours(norms="steps")
        return Row(1.02, {OFF: lambda: discard(off.invoke(one)), ON: lambda: discard(on.invoke(one))})

    def norms_batch(self) -> Row:
        """Norms of late layers on against off, a batch."""
        off, on = self.ours(norms="off"), self.ours(norms="steps")
        return Row(1.02, {OFF: lambda: discard(off.batch(self.chats)), ON: lambda: discard(on.batch(self.chats))})

    def abatch(self) -> Row:
        """The batch, asynchronously."""
        ours = self.ours()
        sides = {RAW: self.raw(self.chats), OURS: lambda: discard(self.loop.run(ours.abatch(self.chats)))}
        return Row(1.10, sides)

    def astream(self) -> Row:
        """The stream, asynchronously."""
        one, ours = self.chats[0], self.ours()
        sides = {RAW: self.raw(self.chats[:1]), OURS: lambda: self.loop.run(aconsume(ours.astream(one)))}
        return Row(1.08, sides)

    def ours(self, **options: Any) -> ChatLangNorm:
        """Return a ChatLangNorm over the shared model, greedy unless `options` say otherwise."""
        return ChatLangNorm(engine=self.engine, **({"temperature": 0, "max_tokens": self.num_tokens} | options))

    def raw(self, chats: Sequence[Sequence[BaseMessage]], **options: Any) -> Work:
        """Return the plain generation for `chats`, which are tokenised and padded here, before any clock runs."""
        turns = [[{"role": "user", "content": message.content} for message in chat] for chat in chats]
        texts = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        inputs = self.tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )
        tensors = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        options = {"do_sample": False, "max_new_tokens": self.num_tokens} | options
        return lambda: discard(self.model.generate(**tensors, **options))

    def peer(self, **options: Any) -> Any:
        """Return ChatHuggingFace over the shared model, or None where it is not installed."""
        try:
            from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
        except ImportError:
            return None
        # Its calls drop generation options, so they are given to the pipeline.
        options = {"do_sample": False, "max_new_tokens": self.num_tokens, "return_full_text": False} | options
        pipeline = transformers.pipeline(
            "text-generation", model=self.model, tokenizer=self.tokenizer, **options
        )
        return ChatHuggingFace(llm=HuggingFacePipeline(pipeline=pipeline), tokenizer=self.tokenizer, model_id="local")

    def check(self, row: Row) -> dict[str, str]:
        """Run each side once; return why a side cannot take part, by its name.

        Raises:
            RuntimeError: ChatLangNorm did other work than the first side.
        """
        problems: dict[str, str] = {}
        expected: Generated | None = None
        for name, work in row.sides.items():
            try:
                with self.watched() as done:
                    work()
            except Exception as error:
                if name != PEER:
                    raise
                problems[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                continue
            expected = expected or done
            num_tokens = {len(ids) for ids in done.ids}
            is_same = len(done.ids) == len(expected.ids) and num_tokens == {self.num_tokens}
            if name != PEER:
                is_same = is_same and done.num_passes == expected.num_passes
                # Threads bring the rows of a batch in any order.
                is_same = is_same and (not row.is_greedy or sorted(done.ids) == sorted(expected.ids))
            if not is_same:
                msg = f"`{name}` did other work: {describe(done)}, not {describe(expected)} as expected."
                if name != PEER:
                    raise RuntimeError(msg)
                problems[name] = msg
        return problems

    @contextmanager
    def watched(self) -> Iterator[Generated]:
        """Note what `model.generate` does inside the `with` block, whoever calls it."""
        done, generate = Generated(), self.model.generate

        def noted(*args: Any, **kwargs: Any) -> Any:
            output = generate(*args, **kwargs)
            prompt = args[0] if args else kwargs["input_ids"]
            done.ids += output[:, prompt.size(1) :].tolist()
            return output

        def count(*_: Any) -> None:
            done.num_passes += 1

        hook = self.model.register_forward_hook(count)
        self.model.generate = noted
        try:
            yield done
        finally:
            del self.model.generate
            hook.remove()


def prompts(number: int) -> list[str]:
    """Return sums to work out, each a little longer than the one before."""
    terms = [str(47 + 38 * i % 500) for i in range(number + 1)]
    return [f"What is {' + '.join(terms[: i + 2])}?" for i in range(number)]


def discard(_result: object) -> None:
    """Drop what a call returned: it is the time that counts."""


def consume(chunks: Iterable[Any]) -> float | None:
    """Read a stream to its end; return the seconds until the first chunk with text."""
    start, first = time.perf_counter(), None
    for chunk in chunks:
        if first is None and (chunk.content or chunk.additional_kwargs):
            first = time.perf_counter() - start
    return first


async def aconsume(chunks: AsyncIterator[Any]) -> float | None:
    """Do what `consume` does with an asynchronous stream."""
    start, first = time.perf_counter(), None
    async for chunk in chunks:
        if first is None and (chunk.content or chunk.additional_kwargs):
            first = time.perf_counter() - start
    return first


def describe(done: Generated) -> str:
    """Return the amount of work in words."""
    lengths = sorted({len(ids) for ids in done.ids})
    return f"{len(done.ids)} sequences of {lengths} tokens in {done.num_passes} forward passes"


def load_abacus() -> tuple[Any, Any]:
    """Return the bundled model (7 million parameters) and its tokenizer."""
    path = langnorm.abacus.path()
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(path)


def load_300m() -> tuple[Any, Any]:
    """Return a Qwen3 of 300 million random parameters in float32, with Abacus' tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(langnorm.abacus.path())
    config = transformers.Qwen3Config(
        vocab_size=1024, hidden_size=1024, intermediate_size=3072, num_hidden_layers=19, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=2048, tie_word_embeddings=False,
        initializer_range=0.05, pad_token_id=tokenizer.pad_token_id, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer


MODELS = {"abacus": (load_abacus, 128, 15), "300m": (load_300m, 32, 7)}
"""How to load each model, its tokens per sequence and its rounds."""


def summarise(row: Row, timings: dict[str, list[Timing]], problems: dict[str, str]) -> dict[str, Any]:
    """Return what JSON and table say of a row: each side's ratios to the first side, and all timings."""
    baseline, *others = row.sides
    result: dict[str, Any] = {"baseline": baseline, "bar": row.bar, "sides": {}}
    for name in others:
        if name in problems:
            result["sides"][name] = {"error": problems[name]}
            continue
        ratios = {clock: compare(timings[name], timings[baseline], clock) for clock in ("wall", "cpu")}
        passed = {} if name == PEER else {clock: ratio.median <= row.bar for clock, ratio in ratios.items()}
        chunks = [timing.first_chunk for timing in timings[name] if timing.first_chunk is not None]
        first = {"first_chunk_seconds": median(chunks)} if chunks else {}
        result["sides"][name] = {"ratio": ratios, "passed": passed} | first
    seconds = {name: median(timing.wall for timing in of_side) for name, of_side in timings.items()}
    return result | {"median_seconds": seconds, "timings": timings}


def add_to_table(table: Table, model: str, row_name: str, result: dict[str, Any]) -> None:
    """Add a line per side."""
    for name, side in result["sides"].items():
        if "error" in side:
            table.add_row(model, row_name, name, "", side["error"])
            continue
        marked = [f"{ratio} {mark(side['passed'].get(clock))}" for clock, ratio in side["ratio"].items()]
        seconds = result["median_seconds"]
        first = side.get("first_chunk_seconds")
        table.add_row(
            model, row_name, name, f"{result['bar']:.2f}", *marked, f"{1000 * seconds[result['baseline']]:,.0f}",
            f"{1000 * seconds[name]:,.0f}", "" if first is None else f"{1000 * first:,.0f}",
        )  # fmt: skip


def mark(passed: bool | None) -> str:  # noqa: FBT001
    """Return `passed` in a word; the peer is held to no bar."""
    return "" if passed is None else "pass" if passed else "MISS"


def main() -> None:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="of: %(default)s")
    parser.add_argument("--only", help="rows, such as invoke,stream")
    parser.add_argument("--repeats", type=int, help="rounds per row")
    parser.add_argument("--tokens", type=int, help="new tokens per sequence")
    parser.add_argument("--quick", action="store_true", help="Abacus, 32 tokens, 3 rounds: does it run at all?")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "chat.json")
    options = parser.parse_args()
    names = ["abacus"] if options.quick else options.models.split(",")
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="transformers")
    document: dict[str, Any] = {"machine": machine(PACKAGES) | {"num_threads": torch.get_num_threads()}, "models": {}}
    table = Table("model", "row", "side", "bar", "wall ratio", "CPU ratio", "plain ms", "ms", "first chunk ms")
    console = Console(width=None if Console().is_terminal else 150)
    for model_name in names:
        load, num_tokens, repeats = MODELS[model_name]
        num_tokens = options.tokens or (32 if options.quick else num_tokens)
        repeats = options.repeats or (3 if options.quick else repeats)
        bench = Bench(*load(), num_tokens)
        rows = bench.rows()
        of_model = document["models"][model_name] = {"num_tokens": num_tokens, "repeats": repeats, "rows": {}}
        for row_name in options.only.split(",") if options.only else rows:
            row = rows[row_name]()
            problems = bench.check(row)
            sides = {name: work for name, work in row.sides.items() if name not in problems}
            timings = take_turns(sides, repeats, at_most={PEER: PEER_REPEATS})
            of_model["rows"][row_name] = result = summarise(row, timings, problems)
            add_to_table(table, model_name, row_name, result)
            write_json(options.out, document)
            console.print(f"[dim]{model_name} {row_name} done[/dim]")
        del bench, rows
        gc.collect()
    console.print(table)
    console.print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
