"""Ctrl-C stops what runs within a decode step, wherever the main thread waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langnorm import ChatLangNorm, NormRetry, NormSelector
from langnorm.engines.registry import get_engine

engine, passes = get_engine("transformers", "abacus", {}), []
chat = ChatLangNorm(engine=engine, temperature=0, max_tokens=400)
sampling = ChatLangNorm(engine=engine, temperature=0.7, max_tokens=400)
PROMPTS = [f"Start with {i}. Add 12. Multiply by 3. Subtract 9. Add 30. Add 41." for i in range(12, 16)]

def count(*_):
    passes.append(time.monotonic())
    time.sleep(0.05)  # an answer takes several seconds

engine.model.register_forward_hook(count)

def interrupt():
    while len(passes) < 4:
        time.sleep(0.005)
    interrupted_at.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

def own_pool():
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(chat.invoke, PROMPTS))

async def in_threads():
    await asyncio.gather(*[asyncio.to_thread(chat.invoke, prompt) for prompt in PROMPTS])

both = RunnableParallel(first=chat, second=chat)
ways = {
    "invoke": lambda: chat.invoke(PROMPTS[0]),
    "generate": lambda: chat.generate([[HumanMessage(prompt)] for prompt in PROMPTS]),
    "batch": lambda: chat.batch(PROMPTS),
    "batch that waits": lambda: chat.batch(PROMPTS, {"max_concurrency": 2}),
    "batch that returns exceptions": lambda: chat.batch(PROMPTS, return_exceptions=True),
    "batch_as_completed": lambda: list(chat.batch_as_completed(PROMPTS)),
    "chain": lambda: (RunnableLambda(str) | chat).batch(PROMPTS),
    "fallbacks": lambda: chat.with_fallbacks([chat]).batch(PROMPTS),
    "parallel": lambda: both.invoke(PROMPTS[0]),
    "parallel that waits": lambda: RunnableParallel(dict.fromkeys("abcdef", chat)).invoke(
        PROMPTS[0], {"max_concurrency": 2}),
    "parallel in parallel": lambda: RunnableParallel(a=RunnableParallel(b=both), c=chat).invoke(PROMPTS[0]),
    "batch in parallel": lambda: RunnableParallel(a=RunnableLambda(lambda _: chat.batch(PROMPTS))).invoke(""),
    "parallel streams": lambda: list(both.stream(PROMPTS[0])),
    "selector": lambda: NormSelector(sampling, n=3).batch(PROMPTS),
    "retry": lambda: NormRetry(chat).batch(PROMPTS),
    "own pool": own_pool,
    "abatch": lambda: asyncio.run(chat.abatch(PROMPTS)),
    "parallel, asynchronous": lambda: asyncio.run(both.ainvoke(PROMPTS[0])),
    "threads of an event loop": lambda: asyncio.run(in_threads()),
}
found = {}
for name, way in ways.items():
    passes.clear()
    interrupted_at = []
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        way()
        outcome = "came to its end"
    except KeyboardInterrupt:
        outcome = "interrupted"
    seconds = time.monotonic() - interrupted_at[0]
    time.sleep(0.2)
    num_later = sum(at > interrupted_at[0] + seconds for at in passes)
    found[name] = outcome, seconds, num_later
    print(name, found[name], file=sys.stderr, flush=True)
print(json.dumps(found))
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_interrupt_stops_what_runs() -> None:
    """Whoever waits gets `KeyboardInterrupt` at once, and the model goes on for one step at most."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, env=environment, timeout=280
    )

    assert run.returncode == 0, run.stderr
    for way, (outcome, seconds, num_later) in json.loads(run.stdout).items():
        assert outcome == "interrupted", way
        assert seconds < 3, way  # the answers would take twenty
        assert num_later <= 1, way
