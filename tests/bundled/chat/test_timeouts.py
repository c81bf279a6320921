"""A call's timeout holds for all of it: for what is done before and around the forward passes too."""

from __future__ import annotations

import asyncio
import copy
import threading
import time

import pytest
from langchain_core.messages import HumanMessage

from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine
from tests.support.calls import langnorm_threads, wait_until

TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}",
    "loops over a text": "{% set s = 'x' * 9999 %}{% for a in s %}{% for b in s %}{% for c in s %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "writes": "{% for a in range(99999) %}{% for b in range(99999) %}word {% endfor %}{% endfor %}",
    "recurses": "{% macro again(n) %}{% for a in range(2) %}{{ again(n - 1) if n }}{% endfor %}{% endmacro %}"
    "{{ again(60) }}",
}


def ask(chat: ChatLangNorm, way: str) -> None:
    """Asks in one of the four ways."""

    async def read() -> None:
        async for _ in chat.astream("Hello!"):
            pass

    if way == "invoke":
        chat.invoke("Hello!")
    elif way == "ainvoke":
        asyncio.run(chat.ainvoke("Hello!"))
    elif way == "stream":
        list(chat.stream("Hello!"))
    else:
        asyncio.run(read())


@pytest.mark.transformers_engine
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("template", "way"),
    [*((name, "invoke") for name in TEMPLATES), ("loops", "ainvoke"), ("loops", "stream"), ("writes", "astream")],
)
def test_template_without_end_is_stopped(template, way, abacus_engine) -> None:
    """It ends with the same error as a long answer, its thread ends too, and the model goes on to serve others."""
    tokenizer = copy.deepcopy(abacus_engine.tokenizer)
    tokenizer.chat_template = TEMPLATES[template]
    chat = ChatLangNorm(engine=TransformersEngine(abacus_engine.model, tokenizer), timeout=0.5)
    before, start = threading.active_count(), time.monotonic()

    with pytest.raises(TimeoutError, match=r"timeout=0\.5"):
        ask(chat, way)

    assert time.monotonic() - start < 20
    wait_until(lambda: threading.active_count() <= before)
    assert ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=3, timeout=60).invoke("Hello!").content_blocks


def test_preparation_counts_towards_the_timeout(abacus_engine, monkeypatch) -> None:
    """What is left for the answer is what the template has left over."""
    render = abacus_engine.tokenizer.apply_chat_template

    def render_slowly(*args, **kwargs):
        time.sleep(1)
        return render(*args, **kwargs)

    monkeypatch.setattr(abacus_engine.tokenizer, "apply_chat_template", render_slowly)
    asked = []
    monkeypatch.setattr(abacus_engine, "check", asked.append)

    ChatLangNorm(engine=abacus_engine, max_tokens=3, timeout=60).invoke("Hello!")

    assert asked[0].timeout == 60
    assert time.monotonic() - asked[0].since >= 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_million_samples_end_in_time(way, abacus_engine) -> None:
    """They are not even queued all at once, and what is queued is gone at once."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0.7, n=10**6, timeout=1)
    start = time.monotonic()

    with pytest.raises(TimeoutError, match="timeout=1"):
        ask(chat, way)
    wait_until(lambda: not langnorm_threads())

    assert time.monotonic() - start < 20


def test_samples_beyond_a_portion_are_all_there(abacus_engine, monkeypatch) -> None:
    """More samples than are queued at once come in order, as those of fewer at once do."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=1.5, max_tokens=8, seed=3, max_batch_size=2, norms="off")

    def contents() -> list[str]:
        generations = chat.generate([[HumanMessage("Hello!")]], n=7).generations[0]
        return [str(generation.message.content_blocks) for generation in generations]

    expected = contents()
    monkeypatch.setattr("langnorm.engines.samples_to_draw._MOST_QUEUED", 3)

    assert contents() == expected
    assert len(set(expected)) > 1
