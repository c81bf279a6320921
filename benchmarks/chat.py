"""What ChatLangNorm costs on top of a plain `model.generate` that does the same work.

    python -m benchmarks.chat
    python -m benchmarks.chat --models abacus --only invoke,stream --repeats 5

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
from langchain_core.messages import BaseMessage, HumanMessage

from benchmarks.setups import MODELS, PACKAGES, discard, listed, prompts
from benchmarks.timing import (
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
from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.timing import Work

RAW, OURS, PEER = "model.generate", "ChatLangNorm", "ChatHuggingFace"
COMPARISONS = (
    *("control", "invoke", "stream", "batch", "samples", "norms", "norms-batch"),
    *("abatch", "astream", "threads", "tasks"),
)
JOINED_BAR = 1 / 0.85  # a throughput of at least 0.85 of the plain one's
NUM_PROMPTS, NUM_SAMPLES, TEMPERATURE = 16, 8, 0.7
PEER_REPEATS = 4  # it is several times slower, so a few rounds tell enough


@dataclass(frozen=True, slots=True)
class Comparison:
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
    """The comparisons for one model.

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
        self.engine = TransformersEngine(model, tokenizer, prefix_cache_bytes=0)  # every run does all of its work
        self.loop = asyncio.Runner()
        self.many: list[Any] = [[HumanMessage(text)] for text in prompts(NUM_PROMPTS)]
        self.one: list[BaseMessage] = self.many[0]

    def comparison(self, name: str) -> Comparison:
        """Return a comparison of `COMPARISONS`."""
        comparison: Comparison = getattr(self, name.replace("-", "_"))()
        return comparison

    def control(self) -> Comparison:
        """The plain side twice, once in a new thread as langnorm's engine does it: is the rest to be trusted?"""
        raw = self.raw([self.one])
        return Comparison(None, {RAW: raw, f"{RAW} in a thread": lambda: in_thread(raw)})

    def invoke(self) -> Comparison:
        """One prompt."""
        return self.against_raw(1.05, [self.one], self.ours(), lambda chat: discard(chat.invoke(self.one)))

    def stream(self) -> Comparison:
        """One prompt, to the end of the stream."""
        return self.against_raw(1.08, [self.one], self.ours(), lambda chat: consume(chat.stream(self.one)))

    def batch(self) -> Comparison:
        """Prompts of unequal lengths."""
        return self.against_raw(1.10, self.many, self.ours(), lambda chat: discard(chat.batch(self.many)))

    def samples(self) -> Comparison:
        """Samples of one prompt. The peer has no `n` that works, so it gets the prompt that often."""
        options = {"do_sample": True, "temperature": TEMPERATURE}
        ours, peer = self.ours(temperature=TEMPERATURE), self.peer(**options)
        sides = {
            RAW: self.raw([self.one], **options, top_k=0, top_p=1.0, num_return_sequences=NUM_SAMPLES),
            OURS: lambda: discard(ours.generate([self.one], n=NUM_SAMPLES)),
        }
        if peer:
            sides[PEER] = lambda: discard(peer.batch([self.one] * NUM_SAMPLES))
        return Comparison(1.10, sides, is_greedy=False)

    def norms(self) -> Comparison:
        """Norms of late layers on against off, one prompt."""
        return self.on_against_off(lambda chat: discard(chat.invoke(self.one)))

    def norms_batch(self) -> Comparison:
        """Norms of late layers on against off, a batch."""
        return self.on_against_off(lambda chat: discard(chat.batch(self.many)))

    def abatch(self) -> Comparison:
        """The batch, asynchronously. The peer raises there."""
        chat = self.ours()
        sides = {RAW: self.raw(self.many), OURS: lambda: discard(self.loop.run(chat.abatch(self.many)))}
        return Comparison(1.10, sides)

    def astream(self) -> Comparison:
        """The stream, asynchronously. The peer raises there."""
        chat = self.ours()
        sides = {RAW: self.raw([self.one]), OURS: lambda: self.loop.run(aconsume(chat.astream(self.one)))}
        return Comparison(1.08, sides)

    def threads(self) -> Comparison:
        """The batch as one `invoke` in each of as many threads, which know nothing of each other."""
        chat = self.ours()

        def invoke_all() -> None:
            with ThreadPoolExecutor(NUM_PROMPTS) as pool:
                discard(list(pool.map(chat.invoke, self.many)))

        return Comparison(JOINED_BAR, {RAW: self.raw(self.many), OURS: invoke_all})

    def tasks(self) -> Comparison:
        """The batch as one `ainvoke` in each of as many tasks."""
        chat = self.ours()

        async def invoke_all() -> None:
            await asyncio.gather(*map(chat.ainvoke, self.many))

        return Comparison(JOINED_BAR, {RAW: self.raw(self.many), OURS: lambda: self.loop.run(invoke_all())})

    def against_raw(
        self,
        bar: float,
        chats: list[list[BaseMessage]],
        ours: ChatLangNorm,
        call: Callable[[Any], float | None],
    ) -> Comparison:
        """Return the comparison in which ChatLangNorm and the peer get the same call."""
        sides, peer = {RAW: self.raw(chats), OURS: lambda: call(ours)}, self.peer()
        return Comparison(bar, sides | ({PEER: lambda: call(peer)} if peer else {}))

    def on_against_off(self, call: Callable[[Any], float | None]) -> Comparison:
        """Return the comparison of norms on against norms off."""
        off, on = self.ours(norms="off"), self.ours(norms="steps")
        return Comparison(1.02, {"norms off": lambda: call(off), "norms on": lambda: call(on)}, has_fine_bar=True)

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

    def check(self, comparison: Comparison) -> dict[str, str]:
        """Run each side once and look at what it does; return what is wrong with the peer, if anything.

        Raises:
            RuntimeError: Another side did not do the work of the first.
        """
        expected: Generated | None = None
        problems: dict[str, str] = {}
        for name, work in comparison.sides.items():
            try:
                with watched(self.model) as done:
                    work()
                expected = expected or done
                self.check_work(done, expected, is_same_text=comparison.is_greedy and name != PEER)
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
        # Threads bring the sequences of a batch in any order.
        if is_same_text and sorted(done.ids) != sorted(expected.ids):
            msg = "The token ids differ from those of the first side."
            raise RuntimeError(msg)


def in_thread(work: Work) -> None:
    """Do the work in a thread of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def main() -> None:
    """Run the comparisons that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=listed(MODELS), default=list(MODELS), help=",".join(MODELS))
    parser.add_argument("--only", type=listed(COMPARISONS), default=list(COMPARISONS), help=",".join(COMPARISONS))
    parser.add_argument("--repeats", type=int, help="rounds of every comparison")
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
        bench = Bench(model.to(options.device), tokenizer, num_tokens, has_peer=not options.no_peer)
        results: dict[str, Any] = {}
        document["models"][model_name] = {"num_tokens": num_tokens, "rows": results}
        for name in options.only:
            comparison = bench.comparison(name)
            problems = bench.check(comparison)
            sides = {side: work for side, work in comparison.sides.items() if side not in problems}
            rounds = repeats or (setup.fine_repeats if comparison.has_fine_bar else setup.repeats)
            timings = take_turns(bench.model, sides, rounds, at_most={PEER: PEER_REPEATS})
            bars = {} if comparison.bar is None else {side: comparison.bar for side in sides if side != PEER}
            results[name] = summarise(timings, bars)
            results[name]["sides"] |= {side: {"error": text} for side, text in problems.items()}
            write_json(options.out, document)
        print_table(f"{model_name}, {num_tokens} new tokens", results)
        bench.loop.close()
        del bench, comparison, sides, model
        gc.collect()
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
