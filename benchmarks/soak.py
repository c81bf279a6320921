"""Many mixed requests at once: `python -m benchmarks.soak`, or `make soak`.

Requests of every kind are asked alone first, and then, drawn at random, from 16 threads and 64 tasks at once; some are
cancelled, closed or given too little time. Every other answer must be the lone one. In the end nothing may be left: no
thread, hook, announcement or waiting sequence, and the resident set may be at most 5 % above that after the warm-up,
which is the first quarter. What came so far is printed after each eighth, and `--first` goes on from there.

Weights are float32: in bfloat16, batches of other shapes round so coarsely that greedy answers part.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.memory import resident_megabytes
from benchmarks.setups import load_abacus
from benchmarks.soak_requests import Task, differences, find_possible, kinds_of, tasks_of
from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.norms.profile import FILE_NAME, NormProfile

CHATML_WITH_TOOLS = """\
{%- if tools %}<|im_start|>system
Call functions as <tool_call>
{"name": ..., "arguments": {...}}
</tool_call>. They are: {{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""For models whose own template has turns of this kind and no place for tools."""

MOST_GROWTH = 1.05
"""Of the resident set after the warm-up."""

SHARE_OF_DISTURBED = 0.2
"""Of the requests are cancelled, closed, or given too little time."""


class Soak:
    """Asks requests and counts what came of them.

    Args:
        tasks: What is asked.
        right: Their lone answers.
        seed: Of the draws.
    """

    def __init__(self, tasks: list[Task], right: dict[Task, Any], seed: int) -> None:
        self._tasks = tasks
        self._right = right
        self._seed = seed
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, first: int, last: int, num_threads: int, num_tasks: int) -> None:
        """Ask the requests of these numbers, half of them from threads and half from tasks of one event loop."""
        numbers = iter(range(first, last))
        lock = threading.Lock()

        def left() -> Iterator[int]:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                yield number

        with ThreadPoolExecutor(num_threads + 1) as pool:
            loop = pool.submit(asyncio.run, self._run_tasks(left(), num_tasks))
            for future in [loop, *(pool.submit(self._run_thread, left()) for _ in range(num_threads))]:
                future.result()

    def _run_thread(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            rng = random.Random(f"{self._seed}/{number}")
            task, is_disturbed = rng.choice(self._tasks), rng.random() < SHARE_OF_DISTURBED
            try:
                self._note(task, self._disturb(task, rng) if is_disturbed else task.ask())
            except Exception as error:  # noqa: BLE001 (it is reported)
                self._fail(task, error)

    async def _run_tasks(self, numbers: Iterator[int], num_tasks: int) -> None:
        await asyncio.gather(*[self._run_task(numbers) for _ in range(num_tasks)])

    async def _run_task(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            rng = random.Random(f"{self._seed}/{number}")
            task, is_disturbed = rng.choice(self._tasks), rng.random() < SHARE_OF_DISTURBED
            try:
                self._note(task, await (self._disturb_async(task, rng) if is_disturbed else task.ask_async()))
            except Exception as error:  # noqa: BLE001 (it is reported)
                self._fail(task, error)

    def _disturb(self, task: Task, rng: random.Random) -> Any:
        """Close a stream early, or give too little time; what is answered all the same is not compared."""
        if rng.random() < 0.5:
            with closing(task.model.stream(task.question)) as stream:  # type: ignore[type-var]
                for _ in zip(range(rng.randrange(4)), stream, strict=False):
                    pass
            self.outcomes["closed"] += 1
            return None
        try:
            task.model.invoke(task.question, timeout=rng.choice([0.001, 0.05, 0.3]))
        except TimeoutError:
            self.outcomes["out of time"] += 1
        return None

    async def _disturb_async(self, task: Task, rng: random.Random) -> Any:
        """Do the same, or cancel a task; return the answer of one that was too quick for that."""
        draw = rng.random()
        if draw < 0.3:
            async with aclosing(task.model.astream(task.question)) as stream:  # type: ignore[type-var]
                for _ in range(rng.randrange(4)):
                    await anext(stream, None)
            self.outcomes["closed"] += 1
        elif draw < 0.6:
            try:
                await task.model.ainvoke(task.question, timeout=rng.choice([0.001, 0.05, 0.3]))
            except TimeoutError:
                self.outcomes["out of time"] += 1
        else:
            asked = asyncio.ensure_future(task.ask_async())
            await asyncio.sleep(rng.random())
            if not asked.cancel():
                return await asked
            await asyncio.wait([asked])
            self.outcomes["cancelled"] += 1
        return None

    def _note(self, task: Task, found: Any) -> None:
        if found is None:
            return
        self.outcomes["answered"] += 1
        if parts := differences(found, self._right[task]):
            self.failures.append(f"{task.kind}, {task.way}, {task.question!r}: {parts[0]}")

    def _fail(self, task: Task, error: Exception) -> None:
        self.failures.append(f"{task.kind}, {task.way}, {task.question!r}: raised {type(error).__name__}: {error}")


def left_behind(engine: TransformersEngine, threads_before: set[threading.Thread]) -> list[str]:
    """Return what requests that have all ended left."""
    end = time.monotonic() + 10
    while (threads := set(threading.enumerate()) - threads_before) and time.monotonic() < end:
        time.sleep(0.05)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in engine.model.modules())
    queue = engine._batcher
    return [
        *(f"thread `{thread.name}`" for thread in threads),
        *([f"{hooks} hooks"] if hooks else []),
        *([f"{queue.num_waiting} waiting sequences"] if queue.num_waiting else []),
        *([f"{len(queue._announced)} announcements"] if queue._announced else []),
        *([f"{queue._num_preparing} requests in preparation"] if queue._num_preparing else []),
    ]


def load_engine(model: str) -> TransformersEngine:
    """Return the engine of `abacus` or of the model in a folder, in float32."""
    if model == "abacus":
        import langnorm.abacus

        profile = NormProfile.load(Path(langnorm.abacus.path(), FILE_NAME))
        return TransformersEngine(*load_abacus(), profile=profile)
    weights = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    template = tokenizer.chat_template or ""
    if "<|im_start|>" in template and "tools" not in template:
        print("its template has no place for tools: another one is used")
        tokenizer.chat_template = CHATML_WITH_TOOLS
    return TransformersEngine(weights, tokenizer)


def main() -> None:
    """Run a soak, and fail where an answer is another or something is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="abacus", help="`abacus` (default) or a folder")
    parser.add_argument("--requests", type=int, default=2_000, help="default: 2000")
    parser.add_argument("--first", type=int, default=0, help="number of the request to begin with; default: 0")
    parser.add_argument("--questions", type=int, default=4, help="per kind and way; default: 4")
    parser.add_argument("--tokens", type=int, default=96, help="most of an answer; default: 96")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    engine = load_engine(options.model)
    threads_before = set(threading.enumerate())
    chat = ChatLangNorm(engine=engine, model="soaked", temperature=0, max_tokens=options.tokens)
    start = time.monotonic()
    tasks, right = find_possible(tasks_of(kinds_of(chat), options.questions), print)
    print(f"{len(right)} requests asked alone in {time.monotonic() - start:.0f} s", flush=True)
    soak = Soak(tasks, right, options.seed)
    start = time.monotonic()
    sizes, num_told = [], 0
    for first, last in pairwise(options.first + (options.requests - options.first) * part // 8 for part in range(9)):
        soak.run(first, last, options.threads, options.tasks)
        gc.collect()
        sizes.append(resident_megabytes()[0])
        print(f"{last} after {time.monotonic() - start:.0f} s: {dict(soak.outcomes)}, {sizes[-1]:.0f} MB")
        print("".join(f"{line}\n" for line in soak.failures[num_told:]), end="", flush=True)
        num_told = len(soak.failures)
    warm = sizes[1]
    left = left_behind(engine, threads_before)
    gc.collect()
    final, peak = resident_megabytes()
    print(f"resident set: {warm:.0f} MB after the warm-up, {final:.0f} MB in the end, {peak:.0f} MB at most")
    for what in left:
        print(f"left behind: {what}")
    print(f"{len(soak.failures)} wrong answers, {len(left)} things left behind")
    sys.exit(bool(soak.failures or left or final > MOST_GROWTH * warm))


if __name__ == "__main__":
    main()
