"""What a model writes: marks, calls and texts in random pieces."""

from __future__ import annotations

from random import Random
from typing import Any

from langnorm import ChatLangNorm, NormTrace
from langnorm.selection.answers import ANSWER_FORMS, read_answer
from langnorm.testing import ScriptedAnswer, ScriptedEngine
from langnorm.text.steps import get_splitter
from tests.support.fuzz.calls import WEATHER, engine
from tests.support.fuzz.values import text


def answers(rng: Random) -> None:
    """Read an answer whole and as a stream: both say the same, and it has the trace that it says."""
    tokenizer = engine().tokenizer
    written: Any = text(rng, halves=0)
    if rng.random() < 0.3:
        written = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 40))]
    answer = ScriptedAnswer(written, norms=rng.choice((1.0, 5.0)), finish_reason=rng.choice(("stop", "length")))
    if not written and answer.finish_reason == "length":
        return  # an answer has a token
    options: dict[str, Any] = {"norms": rng.choice(("tokens", "steps", "off")), "enable_thinking": rng.random() < 0.7}
    options |= {"step_splitter": rng.choice(("sentence", "line", "paragraph"))}
    if rng.random() < 0.5:
        options["tools"] = [WEATHER]
    if rng.random() < 0.3:
        options["stop"] = [piece for piece in (text(rng, halves=0)[:5],) if piece]
    if rng.random() < 0.3:
        options["max_tokens"] = rng.randrange(1, 30)
    if rng.random() < 0.3:
        options["logprobs"] = True
    # One for each: what an engine has seen of a model is what its next norms are compared with.
    chats = [ChatLangNorm(engine=ScriptedEngine([answer], tokenizer=tokenizer)) for _ in range(2)]
    whole = chats[0].invoke("Hi", **options)
    joined = None
    for chunk in chats[1].stream("Hi", **options):
        joined = chunk if joined is None else joined + chunk
    assert joined is not None
    assert joined.content == whole.content, (joined.content, whole.content)
    reasoning = [reply.additional_kwargs.get("reasoning_content", "") for reply in (joined, whole)]
    assert reasoning[0] == reasoning[1], reasoning
    calls = [[(call["name"], call["args"]) for call in reply.tool_calls] for reply in (joined, whole)]
    assert calls[0] == calls[1], calls
    assert len(joined.invalid_tool_calls) == len(whole.invalid_tool_calls)
    if options["norms"] != "off":
        trace = NormTrace.from_message(whole)
        assert trace == NormTrace.from_message(joined)
        assert NormTrace.from_json(trace.to_json()) == trace
        trace.step_texts(whole)


def texts(rng: Random) -> None:
    """Read the answer out of a text, and cut a text into steps."""
    said = text(rng)
    for form in ANSWER_FORMS:
        found = read_answer(form, said)
        assert found is None or isinstance(found, str)
    for name in ("sentence", "line", "paragraph"):
        end = 0
        for start, stop in get_splitter(name)(said):
            assert end <= start <= stop <= len(said)
            end = stop
