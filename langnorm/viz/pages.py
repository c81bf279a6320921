"""Pages of messages and traces: one answer, answers to one prompt beside each other, a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langnorm.errors import OptionError
from langnorm.trace import KEY, NormTrace
from langnorm.viz.html.page import Page
from langnorm.viz.html.view import build_view

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_MOST_OF_ANSWER = 60  # characters of a candidate's answer above it


def heatmap(
    *answers: BaseMessage | NormTrace, title: str = "Where the model worked hardest", names: Sequence[str] = ()
) -> Page:
    """Return a page with the tokens of an answer, coloured by their norms; several answers stand beside each other.

    Ask with `norms="tokens"`, or steps are all that has a colour, and with `logprobs=True` for log-probabilities.

    Args:
        *answers: Messages of ChatLangNorm, or traces.
        title: Above the page, such as the question.
        names: Of the answers, above each.

    Returns:
        A `Page`: `page.save("norms.html")` writes it, and a notebook shows it.

    Raises:
        OptionError: There is no answer, one carries no norms, or there are not as many names as answers.
    """
    if not answers:
        msg = "There is nothing to show. Give a message of ChatLangNorm, or a NormTrace."
        raise OptionError(msg)
    if names and len(names) != len(answers):
        msg = f"`names={names!r}` does not fit. Give {len(answers)} names, one for each answer."
        raise OptionError(msg)
    numbered = [f"Answer {i}" for i in range(1, len(answers) + 1)] if len(answers) > 1 else [""]
    views = [_view(answer, name) for answer, name in zip(answers, names or numbered, strict=True)]
    return Page(title, views)


def ranking(messages: Sequence[BaseMessage], *, title: str = "The candidates, best first") -> Page:
    """Return a page with ranked answers beside each other, best first, with their scores and votes.

    Args:
        messages: As `langnorm.selection.rank` returns them; the first carries the ranking.
        title: Above the page, such as the question.

    Raises:
        OptionError: The first one carries no ranking of so many, or a message carries no norms.
    """
    metadata = getattr(messages[0], "response_metadata", None) if messages else None
    ranked = metadata.get(KEY, {}).get("selection") if isinstance(metadata, Mapping) else None
    if not isinstance(ranked, Mapping) or len(ranked["order"]) != len(messages):
        msg = (
            f"These {len(messages)} messages are no ranking. Give what `langnorm.selection.rank(messages)` returns, "
            'for messages that were made with `norms="tokens"`.'
        )
        raise OptionError(msg)
    views = []
    for place, (number, message) in enumerate(zip(ranked["order"], messages, strict=True)):
        view = _view(message, f"{place + 1}. Candidate {number + 1}")
        view["facts"] = _candidate_facts(ranked["candidates"][number]) + view["facts"]
        views.append(view | {"is_chosen": place == 0})
    return Page(title, views, " ".join(ranked.get("warnings", ())))


def _candidate_facts(candidate: Mapping[str, Any]) -> list[str]:
    facts = []
    if candidate.get("answer"):
        facts.append(f"answer {str(candidate['answer'])[:_MOST_OF_ANSWER]}")
    if candidate.get("score") is not None:
        facts.append(f"score {candidate['score']:.4g}")
    if candidate.get("support"):
        facts.append(f"{candidate['support']} of the votes" if candidate["support"] != 1 else "1 of the votes")
    return facts


def _view(answer: BaseMessage | NormTrace, name: str) -> dict[str, Any]:
    if isinstance(answer, NormTrace):
        return build_view(answer, name=name, facts=_facts(answer))
    trace = NormTrace.from_message(answer)
    metadata = answer.response_metadata
    entries = (metadata.get("logprobs") or {}).get("content") or []
    logprobs = [float(entry["logprob"]) for entry in entries]
    name_of_model = str(metadata.get("model_name") or "").replace("\\", "/").rpartition("/")[2]
    facts = [name_of_model] if name_of_model else []
    facts += _facts(trace)
    if metadata.get("finish_reason") == "length":
        facts.append("cut off at the token limit")
    return build_view(
        trace,
        name=name,
        step_texts=trace.step_texts(answer),
        logprobs=logprobs if len(logprobs) == trace.tokens else None,
        facts=facts,
    )


def _facts(trace: NormTrace) -> list[str]:
    facts = ["1 token" if trace.tokens == 1 else f"{trace.tokens} tokens"]
    if trace.intensity is not None:
        of_what = " relative to tokens" if trace.intensity_kind == "token" else ""
        facts.append(f"intensity {trace.intensity:.2f}{of_what}")
    if trace.profile == "online":
        facts.append("compared with what this process has seen of the model")
    elif trace.profile:
        facts.append(f"compared with the profile {trace.profile}")
    return facts
