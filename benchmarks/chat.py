"""What ChatLangNorm costs on top of a plain `model.generate` that does the same work.

    python benchmarks/chat.py
    python benchmarks/chat.py --models abacus --only invoke,stream --repeats 5

All sides run the same model in this process and generate the same number of tokens: the end token is one
that the model cannot produce. Before anything is timed, one run of each side is checked: it generates as many
sequences of as many tokens as the plain one and, where decoding is greedy, the same token ids. The plain side
starts from padded token ids; ChatLangNorm starts from messages and ends with messages, norms included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from _timing import (
    Generated,
    aconsume,
    consume,
    machine,
    print_table,
    results_file,
    summarise,
    take_turns,
    watched,
    write_json,
)
from langchain_core.messages import BaseMessage, HumanMessage

import langnorm.abacus
from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from _timing import Work

RAW, OURS, PEER = "model.generate", "ChatLangNorm", "ChatHuggingFace"
ROWS = (
    *("control", "invoke", "stream", "batch", "samples", "norms", "norms-batch"),
    *("abatch", "astream", "threads", "tasks"),
)
JOINED_BAR = 1 / 0.85  # a throughput of at least 0.85 of the plain one's
NUM_PROMPTS, NUM_SAMPLES, TEMPERATURE = 16, 8, 0.7
PEER_REPEATS = 4  # it is several times slower, so a few rounds tell enough
PACKAGES = ("langnorm", "torch", "transformers", "langchain-core", "langchain-huggingface")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work and who does it; the first side is what the others are compared with.

    Attributes:
        bar: Highest ratio that meets the project's goal, if there is a goal. The peer is held to none.
        sides: By name, what does the work once.
        is_greedy: Whether all sides must generate the same tokens.
        has_fine_bar: Whether its bar is finer than the noise of the usual number of rounds.
    """

    bar: float | None
    sides: dict[str, Work]
    is_greedy: bool = True
    has_fine_bar: bool = False


class Bench:
    """The rows for one model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        num_tokens: Number of tokens that every sequence gets.
        has_peer: Whether the peer takes part, where it is installed.
    """

    def __init__(self, model: Any, tokenizer: Any, num_tokens: int, *, has_peer: bool = True) -> None:
        self.has_peer = has_peer
        # One past the vocabulary: the check for end tokens stays in place, and no sequence ever ends early.
        never = model.config.vocab_size
        model.generation_config = transformers.GenerationConfig(eos_token_id=never, pad_token_id=tokenizer.pad_token_id)
        self.model, self.tokenizer, self.num_tokens = model, tokenizer, num_tokens
        self.engine = TransformersEngine(model, tokenizer)
        self.loop = asyncio.Runner()
        self.many: list[list[BaseMessage]] = [[HumanMessage(text)] for text in prompts(NUM_PROMPTS)]
        self.one = self.many[0]

    def row(self, name: str) -> Row:
        """Return a row of `ROWS`."""
        row: Row = getattr(self, name.replace("-", "_"))()
        return row

    def control(self) -> Row:
        """The plain side twice, once in a new thread as langnorm's engine does it: is the rest to be trusted?"""
        raw = self.raw([self.one])
        return Row(None, {RAW: raw, f"{RAW} in a thread": lambda: in_thread(raw)})

    def invoke(self) -> Row:
        """One prompt."""
        return self.against_raw(1.05, [self.one], self.ours(), lambda chat: discard(chat.invoke(self.one)))

    def stream(self) -> Row:
        """One prompt, to the end of the stream."""
        return self.against_raw(1.08, [self.one], self.ours(), lambda chat: consume(chat.stream(self.one)))

    def batch(self) -> Row:
        """Prompts of unequal lengths."""
        return self.against_raw(1.10, self.many, self.ours(), lambda chat: discard(chat.batch(self.many)))

    def samples(self) -> Row:
        """Samples of one prompt. The peer has no `n` that works, so it gets the prompt that often."""
        options = {"do_sample": True, "temperature": TEMPERATURE}
        ours, peer = self.ours(temperature=TEMPERATURE), self.peer(**options)
        sides = {
            RAW: self.raw([self.one], **options, top_k=0, top_p=1.0, num_return_sequences=NUM_SAMPLES),
            OURS: lambda: discard(ours.generate([self.one], n=NUM_SAMPLES)),
        }
        if peer:
            sides[PEER] = lambda: discard(peer.batch([self.one] * NUM_SAMPLES))
        return Row(1.10, sides, is_greedy=False)

    def norms(self) -> Row:
        """Norms of late layers on against off, one prompt."""
        return self.on_against_off(lambda chat: discard(chat.invoke(self.one)))

    def norms_batch(self) -> Row:
        """Norms of late layers on against off, a batch."""
        return self.on_against_off(lambda chat: discard(chat.batch(self.many)))

    def abatch(self) -> Row:
        """The batch, asynchronously. The peer raises there."""
        chat = self.ours()
        sides = {RAW: self.raw(self.many), OURS: lambda: discard(self.loop.run(chat.abatch(self.many)))}
        return Row(1.10, sides)

    def astream(self) -> Row:
        """The stream, asynchronously. The peer raises there."""
        chat = self.ours()
        sides = {RAW: self.raw([self.one]), OURS: lambda: self.loop.run(aconsume(chat.astream(self.one)))}
        return Row(1.08, sides)

    def threads(self) -> Row:
        """The batch as one `invoke` in each of as many threads, which know nothing of each other."""
        chat = self.ours()

        def invoke_all() -> None:
            with ThreadPoolExecutor(NUM_PROMPTS) as pool:
                discard(list(pool.map(chat.invoke, self.many)))

        return Row(JOINED_BAR, {RAW: self.raw(self.many), OURS: invoke_all})

    def tasks(self) -> Row:
        """The batch as one `ainvoke` in each of as many tasks."""
        chat = self.ours()

        async def invoke_all() -> None:
            await asyncio.gather(*map(chat.ainvoke, self.many))

        return Row(JOINED_BAR, {RAW: self.raw(self.many), OURS: lambda: self.loop.run(invoke_all())})

    def against_raw(
        self,
        bar: float,
        chats: list[list[BaseMessage]],
        ours: ChatLangNorm,
        call: Callable[[Any], float | None],
    ) -> Row:
        """Return the row in which ChatLangNorm and the peer get the same call."""
        sides, peer = {RAW: self.raw(chats), OURS: lambda: call(ours)}, self.peer()
        return Row(bar, sides | ({PEER: lambda: call(peer)} if peer else {}))

    def on_against_off(self, call: Callable[[Any], float | None]) -> Row:
        """Return the row of norms on against norms off."""
        off, on = self.ours(norms="off"), self.ours(norms="steps")
        return Row(1.02, {"norms off": lambda: call(off), "norms on": lambda: call(on)}, has_fine_bar=True)

    def ours(self, **options: Any) -> ChatLangNorm:
        """Return a ChatLangNorm over the shared model, greedy unless `options` say otherwise."""
        options = {"temperature": 0, "max_tokens": self.num_tokens} | options
        return ChatLangNorm(engine=self.engine, **options)

    def raw(self, chats: Sequence[Sequence[BaseMessage]], **options: Any) -> Work:
        """Return the plain generation for `chats`, which are tokenised and padded before any clock runs."""
        turns = [[{"role": "user", "content": message.content} for message in chat] for chat in chats]
        texts = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        inputs = self.tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        tensors = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        options = {"do_sample": False, "max_new_tokens": self.num_tokens} | options
        return lambda: discard(self.model.generate(**tensors, **options))

    def peer(self, **options: Any) -> Any:
        """Return ChatHuggingFace over the shared model, or None where it is not installed or not wanted."""
        if not self.has_peer:
            return None
        try:
            from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
        except ImportError:
            return None
        # Calls drop generation options, so the pipeline gets them.
        options = {"do_sample": False, "max_new_tokens": self.num_tokens, "return_full_text": False} | options
        shared = {"model": self.model, "tokenizer": self.tokenizer, "device": self.model.device}
        pipeline = transformers.pipeline("text-generation", **shared, **options)
        llm = HuggingFacePipeline(pipeline=pipeline)
        return ChatHuggingFace(llm=llm, tokenizer=self.tokenizer, model_id="local")

    def check(self, row: Row) -> dict[str, str]:
        """Run each side once and look at what it does; return what is wrong with the peer, if anything.

        Raises:
            RuntimeError: Another side did not do the work of the first.
        """
        expected: Generated | None = None
        problems: dict[str, str] = {}
        for name, work in row.sides.items():
            try:
                with watched(self.model) as done:
                    work()
                expected = expected or done
                self.check_work(done, expected, is_same_text=row.is_greedy and name != PEER)
            except Exception as error:
                if name != PEER:
                    raise
                problems[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        return problems

    def check_work(self, done: Generated, expected: Generated, *, is_same_text: bool) -> None:
        """Raise `RuntimeError` unless the work is as expected; more passes than needed are a side's own fault."""
        is_complete = [len(ids) for ids in done.ids] == [self.num_tokens] * len(expected.ids)
        if not is_complete or done.num_passes < expected.num_passes:
            msg = f"There were {done}, not {expected} as with the first side."
            raise RuntimeError(msg)
        # Threads bring the rows of a batch in any order.
        if is_same_text and sorted(done.ids) != sorted(expected.ids):
            msg = "The token ids differ from those of the first side."
            raise RuntimeError(msg)


def prompts(number: int) -> list[str]:
    """Return sums to work out, each a little longer than the one before."""
    terms = [str(47 + 38 * i % 500) for i in range(number + 1)]
    return [f"What is {' + '.join(terms[: i + 2])}?" for i in range(number)]


def in_thread(work: Work) -> None:
    """Do the work in a thread of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def discard(_result: object) -> None:
    """Drop what a call returned: it is the time that counts."""


def load_abacus() -> tuple[Any, Any]:
    """Return the bundled model and its tokenizer."""
    path = langnorm.abacus.path()
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(path)


def load_300m() -> tuple[Any, Any]:
    """Return a Qwen3 of 300 million random parameters in float32, with Abacus' tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(langnorm.abacus.path())
    config = transformers.Qwen3Config(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=19,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=0.05,  # with the default greedy decoding settles on one token
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), tokenizer


@dataclass(frozen=True, slots=True)
class Setup:
    """How one model is timed.

    Attributes:
        load: Returns the model and its tokenizer.
        num_tokens: Tokens per sequence.
        repeats: Rounds of a row.
        fine_repeats: Rounds of a row whose bar is fine.
    """

    load: Callable[[], tuple[Any, Any]]
    num_tokens: int
    repeats: int
    fine_repeats: int


MODELS = {"abacus": Setup(load_abacus, 128, 16, fine_repeats=150), "300m": Setup(load_300m, 32, 8, fine_repeats=16)}


def listed(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(allowed):
            msg = f"{', '.join(sorted(unknown))} is not one of: {', '.join(allowed)}"
            raise argparse.ArgumentTypeError(msg)
        return names

    return parse


def main() -> None:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=listed(MODELS), default=list(MODELS), help=",".join(MODELS))
    parser.add_argument("--only", type=listed(ROWS), default=list(ROWS), help=",".join(ROWS))
    parser.add_argument("--repeats", type=int, help="rounds of every row")
    parser.add_argument("--tokens", type=int, help="new tokens per sequence")
    parser.add_argument("--threads", type=int, help="threads of torch, by default its own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the models are")
    parser.add_argument("--no-peer", action="store_true", help="leave ChatHuggingFace out: it takes most of the time")
    parser.add_argument("--quick", action="store_true", help="Abacus, 32 tokens, 4 rounds: does it all work?")
    parser.add_argument("--out", type=Path, help="by default chat.json among the results, or chat-DEVICE.json")
    options = parser.parse_args()
    options.out = options.out or results_file("chat", options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    facts = machine(PACKAGES) | {"num_torch_threads": torch.get_num_threads(), "device": options.device}
    print(f"Load before the first run: {facts['load_before']} on {facts['num_cpus']} processors. Idle is near 0.")
    document: dict[str, Any] = {"machine": facts, "models": {}}
    for model_name in ["abacus"] if options.quick else options.models:
        setup = MODELS[model_name]
        num_tokens = options.tokens or (32 if options.quick else setup.num_tokens)
        repeats = options.repeats or (4 if options.quick else None)
        model, tokenizer = setup.load()
        bench, results = Bench(model.to(options.device), tokenizer, num_tokens, has_peer=not options.no_peer), {}
        document["models"][model_name] = {"num_tokens": num_tokens, "rows": results}
        for row_name in options.only:
            row = bench.row(row_name)
            problems = bench.check(row)
            sides = {name: work for name, work in row.sides.items() if name not in problems}
            rounds = repeats or (setup.fine_repeats if row.has_fine_bar else setup.repeats)
            timings = take_turns(bench.model, sides, rounds, at_most={PEER: PEER_REPEATS})
            bars = {} if row.bar is None else {name: row.bar for name in sides if name != PEER}
            results[row_name] = summarise(timings, bars)
            results[row_name]["sides"] |= {name: {"error": text} for name, text in problems.items()}
            write_json(options.out, document)
        print_table(f"{model_name}, {num_tokens} new tokens", results)
        bench.loop.close()
        del bench, row, sides, model
        gc.collect()
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
