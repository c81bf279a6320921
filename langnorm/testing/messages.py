"""Messages that carry a trace, made without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from langnorm.errors import OptionError

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langnorm.engines.requests import FinishReason
    from langnorm.text.reasoning import Part

_LOW_BELOW = 0.1


def message_with_norms(
    content: str | Sequence[str],
    *,
    reasoning: str | Sequence[str] = (),
    intensities: float | Sequence[float | None] | None = 0.5,
    low: Sequence[bool | None] | None = None,
    layers: Sequence[int] = (2,),
    norms: float | Sequence[float] = 1.0,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    finish_reason: FinishReason = "stop",
) -> AIMessage:
    """Return a message that carries a trace, as `ChatLangNorm` makes them.

    The message has a token for each step, and one that ends it.

    Args:
        content: The answer; a list has its steps.
        reasoning: The reasoning; a list has its steps.
        intensities: Intensity of every step, or one for each, those of the reasoning first, and those of tool calls
            last. None is an unknown intensity.
        low: Whether each step is low; None means below 0.1.
        layers: The layers that the trace says were read.
        norms: Mean norm of every step, or one for each; the same in every layer.
        tool_calls: The calls, as LangChain has them; each is a step of its own.
        finish_reason: Why it ended.

    Raises:
        OptionError: There are not as many intensities, norms or values of `low` as steps.
    """
    from langchain_core.messages import AIMessage

    from langnorm.trace import KEY, NormStep, NormTrace

    texts: dict[Part, list[str]] = {
        "reasoning": _steps(reasoning),
        "answer": _steps(content),
        "tool_call": [json.dumps(call["args"]) for call in tool_calls],
    }
    kinds = [(kind, *span) for kind, steps in texts.items() for span in _spans(steps)]
    num_steps = len(kinds)
    of_steps = _one_each("intensities", intensities, num_steps)
    is_low = [None if value is None else value < _LOW_BELOW for value in of_steps]
    if low is not None:
        is_low = _one_each("low", low, num_steps)
    means = [(float(value),) * len(layers) for value in _one_each("norms", norms, num_steps)]
    known = [value for value in of_steps if value is not None]
    trace = NormTrace(
        tokens=num_steps + 1,
        layers=tuple(layers),
        mean=tuple(map(fmean, zip(*means, strict=True))) or None,
        steps=tuple(
            NormStep(i, i + 1, kind, (start, end), means[i], of_steps[i], is_low[i])
            for i, (kind, start, end) in enumerate(kinds)
        ),
        intensity=fmean(known) if known else None,
        profile="scripted" if known else None,
    )
    num_reasoning = len(texts["reasoning"])
    reasoning_text = "".join(texts["reasoning"])
    return AIMessage(
        content="".join(texts["answer"]),
        additional_kwargs={"reasoning_content": reasoning_text} if reasoning_text else {},
        tool_calls=[{"type": "tool_call", "id": f"call_{i}", **call} for i, call in enumerate(tool_calls)],
        usage_metadata={
            "input_tokens": 1,
            "output_tokens": num_steps + 1,
            "total_tokens": num_steps + 2,
            "output_token_details": {"reasoning": num_reasoning},
        },
        response_metadata={
            "model_name": "scripted",
            "model_provider": "langnorm",
            "finish_reason": "tool_calls" if tool_calls and finish_reason == "stop" else finish_reason,
            KEY: trace.to_dict(),
        },
    )


def _steps(text: str | Sequence[str]) -> list[str]:
    """Return the texts of steps; an empty text has none."""
    steps = [text] if isinstance(text, str) else text
    return [step for step in steps if step]


def _spans(steps: Sequence[str]) -> list[tuple[int, int]]:
    """Return where each of some texts is in all of them joined."""
    ends = [sum(map(len, steps[: i + 1])) for i in range(len(steps))]
    return [(end - len(step), end) for step, end in zip(steps, ends, strict=True)]


def _one_each(name: str, values: Any, num_steps: int) -> list[Any]:
    if values is None or isinstance(values, int | float):
        return [values] * num_steps
    if len(values) != num_steps:
        msg = f"`{name}={values!r}` does not fit. Give `{num_steps}` values, one for each step."
        raise OptionError(msg)
    return list(values)
