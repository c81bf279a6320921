"""What a soak asks: kinds of models, ways to ask them, and what of an answer is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import median
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, Field

from langnorm import ChatLangNorm, NormRetry, NormTrace

QUESTIONS = (
    "Start with 12. Add 30. Multiply by 3. What is it?",
    "Calculate 47 + 385.",
    "What is the weather in Oslo?",
    "Hello! Who are you?",
    "Mia has 12 boxes with 14 pens each. She gives 39 pens to Tom. How many pens does Mia have?",
    "What is 9 * 17 - 30?",
)

_SAMPLED: Mapping[str, Any] = {"temperature": 0.8, "seed": 7}
_ROUNDING = 2e-3  # of norms and log-probabilities, between batches of different shapes


class Result(BaseModel):
    """The result of a sum."""

    value: int = Field(ge=0, le=9999)  # small models would write digits without end


def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"sunny in {city}"


def kinds_of(chat: ChatLangNorm) -> dict[str, Runnable[Any, Any]]:
    """Return what is asked, by name: a chat model in all its forms."""
    trace = NormTrace.from_message(chat.invoke(QUESTIONS[0], norms="tokens"))
    rows, layers = trace.token_norms or (), trace.layers
    # A middling norm, but none that occurs: rounding would decide on which side it is.
    taus = {layer: 1.003 * median(row[column] for row in rows) for column, layer in enumerate(layers)}
    acting = {"threshold": taus, "layers": layers}
    retried = ({"temperature": 0.8, "seed": 3}, {"temperature": 0.8, "seed": 4})
    return {  # a seed for all that draws at random, steering among them
        "plain": chat,
        "silent": chat.bind(norms="off"),
        "sampled": chat.bind(**_SAMPLED),
        "log-probabilities": chat.bind(logprobs=True, top_logprobs=2),
        "tools": chat.bind_tools([weather]),
        "forced tool": chat.bind_tools([weather], tool_choice="weather"),
        "structured": chat.with_structured_output(Result),
        "selection": chat.with_selection(n=3, score="mean", vote="majority").bind(**_SAMPLED),
        "retry": NormRetry(chat, max_low_share=0.0, max_attempts=3, escalation=retried),
        "recursion": chat.bind(recursion={**acting, "growth_eps": -0.5, "blowup": 4.0}),
        "block loop": chat.bind(recursion={"mode": "block", "num_loops": 3}),
        "block loop of the prompt": chat.bind(recursion={"mode": "block", "on": "prefill"}),
        "block loop at peaks": chat.bind(recursion={"mode": "block", "on": "peaks", **acting}),
        "steering": chat.bind(seed=7, steering={**acting, "trigger": "slack", "low_k": 2, "cos_min": 0.0}),
        "suppression": chat.bind(suppression=acting),
    }


def _ask(model: Runnable[Any, Any], way: str, question: str) -> Any:
    if way == "invoke":
        return model.invoke(question)
    if way == "stream":
        return _joined(list(model.stream(question)))
    if way == "batch":
        return model.batch([question, QUESTIONS[0], QUESTIONS[1]])
    generations = _chat_of(model).generate([[HumanMessage(question)]], n=3, **_SAMPLED).generations[0]
    return [generation.message for generation in generations]  # type: ignore[union-attr]


async def _ask_async(model: Runnable[Any, Any], way: str, question: str) -> Any:
    if way == "invoke":
        return await model.ainvoke(question)
    if way == "stream":
        return _joined([chunk async for chunk in model.astream(question)])
    if way == "batch":
        return await model.abatch([question, QUESTIONS[0], QUESTIONS[1]])
    result = await _chat_of(model).agenerate([[HumanMessage(question)]], n=3, **_SAMPLED)
    return [generation.message for generation in result.generations[0]]  # type: ignore[union-attr]


WAYS = ("invoke", "stream", "batch", "n")


def _chat_of(model: Runnable[Any, Any]) -> ChatLangNorm:
    assert isinstance(model, ChatLangNorm)
    return model


def _joined(chunks: list[Any]) -> Any:
    return reduce(add, chunks) if isinstance(chunks[0], AIMessage) else chunks[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One request, which has one right answer.

    Attributes:
        kind: Name of the model.
        way: How it is asked.
        question: What it is asked.
        model: The model.
    """

    kind: str
    way: str
    question: str
    model: Runnable[Any, Any]

    def ask(self) -> Any:
        """Return what is compared of the answer; that it is not in its schema is an answer too."""
        try:
            return _facts(_ask(self.model, self.way, self.question))
        except OutputParserException as error:
            return str(error)

    async def ask_async(self) -> Any:
        """Return the same from the asynchronous twin."""
        try:
            return _facts(await _ask_async(self.model, self.way, self.question))
        except OutputParserException as error:
            return str(error)


def tasks_of(kinds: Mapping[str, Runnable[Any, Any]], num_questions: int) -> list[Task]:
    """Return every kind asked in every way that it has."""
    return [
        Task(kind, way, question, model)
        for kind, model in kinds.items()
        for way in WAYS
        if way != "n" or isinstance(model, ChatLangNorm)
        for question in QUESTIONS[:num_questions]
    ]


def _facts(answer: Any) -> Any:
    """Return texts, calls, usage, norms and log-probabilities of an answer, or of several; no ids, which are random."""
    if isinstance(answer, list):
        return [_facts(one) for one in answer]
    if not isinstance(answer, AIMessage):
        return str(answer)
    trace = answer.response_metadata.get("langnorm") and NormTrace.from_message(answer)
    logprobs = (answer.response_metadata.get("logprobs") or {}).get("content") or []
    return {
        "text": answer.content,
        "reasoning": answer.additional_kwargs.get("reasoning_content"),
        "calls": [(call["name"], call["args"]) for call in (*answer.tool_calls, *answer.invalid_tool_calls)],
        "end": answer.response_metadata.get("finish_reason"),
        "usage": answer.usage_metadata and answer.usage_metadata["total_tokens"],
        "norms": [list(step.mean or ()) for step in trace.steps] if trace else [],
        "logprobs": [entry["logprob"] for entry in logprobs],
    }


def differences(found: Any, right: Any) -> list[str]:
    """Return what differs between two answers: nothing may but the last digits of numbers."""
    if isinstance(right, dict) and isinstance(found, dict):
        return [f"{key}: {each}" for key in right for each in differences(found.get(key), right[key])]
    if isinstance(right, list | tuple) and isinstance(found, list | tuple) and len(found) == len(right):
        return [each for pair in zip(found, right, strict=True) for each in differences(*pair)]
    if isinstance(right, float) and isinstance(found, float):
        is_same = abs(found - right) <= _ROUNDING * max(1.0, abs(right))
    else:
        is_same = found == right
    return [] if is_same else [f"{found!r:.200} is not {right!r:.200}"]


def find_possible(tasks: list[Task], report: Callable[[str], None]) -> tuple[list[Task], dict[Task, Any]]:
    """Ask all tasks alone, and return those that this model can do, with their right answers."""
    right: dict[Task, Any] = {}
    impossible: dict[str, Exception] = {}
    for task in tasks:
        if task.kind in impossible:
            continue
        try:
            right[task] = task.ask()
        except Exception as error:  # noqa: BLE001 (such as a template without tools; it is said)
            impossible[task.kind] = error
            report(f"left out: {task.kind} ({type(error).__name__}: {error})")
    return [task for task in right if task.kind not in impossible], right
