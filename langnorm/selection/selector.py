"""Best of n: a chat model that keeps the best of several answers, as a Runnable, and the same for messages at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from pydantic import create_model, model_validator

from langnorm.chat.settings import TOOL_NAMES
from langnorm.checks import brief
from langnorm.errors import OptionError
from langnorm.reductions import DISTRIBUTION, LENS, Distribution, Lens, Reductions
from langnorm.scores.samples import Sample, sample_of, with_relative_norms
from langnorm.selection.answers import read_answer
from langnorm.selection.endings import finish_reason
from langnorm.selection.options import Selection, resolve_selection
from langnorm.selection.ranking import Candidate, rank_candidates
from langnorm.stored import Stored, StoredForm
from langnorm.trace import KEY, NormTrace
from langnorm.wrapped_models import is_langnorm, unwrap_bindings, with_tools


class NormSelector(RunnableBindingBase[LanguageModelInput, AIMessage]):
    """Samples n answers in one call of the engine and returns the best one.

    It is the chat model with the option `selection` bound, so it goes where a chat model goes: in chains, batches and
    streams, synchronous or not. `response_metadata["langnorm"]["selection"]` of the message has the whole ranking.

    Args:
        llm: A ChatLangNorm, or one that has something bound, such as `chat.bind_tools(tools)`.
        selection: The selection; where it is not given, one of these options.
        **options: Fields of `Selection`: `n`, `score`, `combine`, `vote`, `answer`, `keep`, `near`, `prune`, `stop`,
            `window`, `stop_above`.

    Raises:
        OptionError: `llm` is something else, or an option is not allowed.

    Example:
        .. code-block:: python

            best = NormSelector(ChatLangNorm(), n=8, vote="majority").invoke("Calculate 47 + 385.")
            best.response_metadata["langnorm"]["selection"]["agreement"]
    """

    def __init__(
        self,
        llm: Runnable[Any, Any],
        *,
        selection: Selection | None = None,
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> None:
        chosen = resolve_selection(selection, options)
        _check_is_langnorm(llm)
        super().__init__(bound=llm, kwargs={"selection": chosen}, config=config)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return that LangChain's loader does not know this class."""
        return False

    @property
    def selection(self) -> Selection:
        """How it selects."""
        selection: Selection = self.kwargs["selection"]
        return selection

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> NormSelector:
        """Return a selector among answers that may call tools; see `ChatLangNorm.bind_tools`."""
        return NormSelector(with_tools(self.bound, tools, options), selection=self.selection, config=self.config)

    def with_structured_output(self, schema: Any = None, **options: Any) -> Runnable[LanguageModelInput, Any]:
        """Return a chain whose model selects; see `ChatLangNorm.with_structured_output`.

        The schema takes the place of tools that were bound before.
        """
        inner, settings, config = unwrap_bindings(self.bound)
        kept = {name: value for name, value in settings.items() if name not in TOOL_NAMES}
        settings = kept | {"selection": self.selection} | options
        chain: Runnable[LanguageModelInput, Any] = inner.with_structured_output(schema, **settings)
        return chain.with_config(merge_configs(config, self.config))

    def rank(self, messages: Sequence[AIMessage]) -> list[AIMessage]:
        """Return messages that were made elsewhere, best first; see `rank`."""
        return rank(messages, self.selection)


def rank(messages: Sequence[AIMessage], selection: Selection | None = None, **options: Any) -> list[AIMessage]:
    """Return the answers of one prompt, best first; the first is a copy that carries the ranking.

    Args:
        messages: Answers with what the score reads: made with `norms="tokens"`, with `logprobs=True`, or with both that
            and `distribution=True`. Where the score is None, `"shorter"`, or reads log-probabilities alone, messages of
            any chat model do; so they do by default, which then is `numeral_logprob`, where one lacks its
            distributions.
        selection: The selection; where it is not given, one of these options. Its `n`, `stop` and `prune` are of no
            account.
        **options: Fields of `Selection`, such as `score` and `vote`.

    Raises:
        OptionError: There is no message, one is no answer, or one lacks what the score reads.
    """
    chosen = resolve_selection(selection, options)
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence) or not messages:
        msg = f"There is no message to rank in `{brief(messages)}`. Give at least one, in a list."
        raise OptionError(msg)
    message: Any
    for number, message in enumerate(messages):
        if not isinstance(message, AIMessage) or not isinstance(message.response_metadata, Mapping):
            kind = type(message).__name__
            msg = f"Number {number} of what is to be ranked is no sound answer, but a `{kind}`. Give AIMessages."
            raise OptionError(msg)
    chosen = replace(chosen, prune=None, stop=None, stop_above=None)
    if any(_kept(message, DISTRIBUTION) is None for message in messages):
        chosen = chosen.without_distributions()
    ranking = rank_candidates(chosen, candidates_of(messages, chosen))
    ordered = [messages[i] for i in ranking.order]
    metadata = ordered[0].response_metadata
    of_ours = metadata.get(KEY)
    of_ours = {
        **(of_ours if isinstance(of_ours, Mapping) else {}),
        "selection": ranking.to_dict() | {"n": len(messages)},
    }
    return [ordered[0].model_copy(update={"response_metadata": metadata | {KEY: of_ours}}), *ordered[1:]]


class _Logprob(Stored):
    """The log-probability of a token, in OpenAI's form."""

    token: str
    logprob: float


class _Logprobs(Stored):
    """The log-probabilities of a message."""

    content: tuple[_Logprob, ...] | None = None


class _OfTokens(Stored):
    """Lists with a number for each token of a message."""

    @model_validator(mode="after")
    def _fits(self) -> _OfTokens:
        if len({len(values) for values in dict(self).values()}) > 1:
            msg = "its lists are not of one length"
            raise ValueError(msg)
        return self


def _form_of(kept: type[Distribution | Lens], what: str, mend: str) -> StoredForm[Any]:
    """Return the form in which messages keep a reduction of each token."""
    lists: Any = {field.name: (tuple[float, ...], ...) for field in fields(kept)}
    return StoredForm(create_model(f"_Stored{kept.__name__}", __base__=_OfTokens, **lists), what, mend)


_DISTRIBUTION = _form_of(Distribution, "how sure a model was of each token", "Ask it with `distribution=True`.")
_LENS = _form_of(Lens, "how late tokens settled", "Ask the model with `lens=True`.")
_LOGPROBS = StoredForm(_Logprobs, "log-probabilities in OpenAI's form", "Ask the model with `logprobs=True`.")


def candidates_of(messages: Sequence[AIMessage], selection: Selection) -> list[Candidate]:
    """Return what a ranking sees of messages.

    Raises:
        OptionError: One lacks what the score reads.
    """
    candidates = [_candidate(message, selection) for message in messages]
    if not (selection.needs_norms and selection.needs_relative_norms):
        return candidates
    traces = [NormTrace.from_message(message) for message in messages]
    if len({trace.layers for trace in traces}) > 1 or any(trace.token_ids is None for trace in traces):
        return candidates  # what is missing is said by the score that reads it
    samples = with_relative_norms(
        [candidate.sample for candidate in candidates], [trace.token_ids or () for trace in traces], traces[0].layers
    )
    return [replace(candidate, sample=sample) for candidate, sample in zip(candidates, samples, strict=True)]


def _candidate(message: AIMessage, selection: Selection) -> Candidate:
    metadata, usage = message.response_metadata, message.usage_metadata
    entries: tuple[_Logprob, ...] = ()
    if (selection.needs_logprobs or selection.needs_texts) and (stored := metadata.get("logprobs")):
        entries = _LOGPROBS.check(stored, "What a message has under `logprobs`").content or ()
    logprobs = [entry.logprob for entry in entries] or None
    texts = [entry.token for entry in entries] or None
    reductions = Reductions()
    if selection.needs_distribution and (of_tokens := _kept(message, DISTRIBUTION)) is not None:
        checked = _DISTRIBUTION.check(of_tokens, f"What a message has under `{DISTRIBUTION}`")
        reductions = Reductions(distribution=Distribution(**{name: np.array(v) for name, v in checked}))
    if selection.needs_lens and (of_tokens := _kept(message, LENS)) is not None:
        checked = _LENS.check(of_tokens, f"What a message has under `{LENS}`")
        reductions = replace(reductions, lens=Lens(**{name: np.array(v) for name, v in checked}))
    num_tokens = usage["output_tokens"] if usage else len(entries) or None
    sample = Sample((), (), logprobs=logprobs, texts=texts, reductions=reductions, num_tokens=num_tokens)
    if selection.needs_norms:
        trace = NormTrace.from_message(message)
        sample = sample_of(trace, logprobs, texts or trace.token_texts, reductions)
    return Candidate(
        sample=sample,
        answer=read_answer(selection.answer, message.text, message.tool_calls),
        tokens=len(message.text) if num_tokens is None else num_tokens,
        finish_reason=finish_reason(metadata) or "stop",
        text=message.text,
    )


def _kept(message: AIMessage, name: str) -> Any:
    """Return what a message keeps of its tokens under a name, unchecked, or None."""
    extra = message.additional_kwargs.get(KEY)
    return extra.get(name) if isinstance(extra, Mapping) else None


def _check_is_langnorm(llm: object) -> None:
    if not is_langnorm(llm):
        msg = (
            f"`llm={llm!r:.80}` is not a ChatLangNorm, nor one with tools or options bound. Give the chat model and "
            "put a parser behind the selector; for messages of other models there is `langnorm.selection.rank`."
        )
        raise OptionError(msg)
